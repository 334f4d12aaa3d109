"""A window gives a month's trips in order, batch by batch, and all of them."""

import numpy as np
import pytest

from taxi_duration.data import window
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import BATCH_ROWS, Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides


@pytest.fixture
def months():
    return prepare_months("green", parse_months("2021-01:2021-02"), mode="sample")


def joined(some):
    batches = list(some.batches())
    columns = [
        np.concatenate([getattr(batch.rides, name) for batch in batches])
        for name in window.RIDE_COLUMNS
    ]
    return columns, np.concatenate([batch.minutes for batch in batches])


@pytest.mark.parametrize("rows", [BATCH_ROWS, 1000])
def test_batches_are_the_trips_of_the_months_in_order(months, monkeypatch, rows):
    monkeypatch.setattr(window, "BATCH_ROWS", rows)
    some = Window.scored(months)
    columns, minutes = joined(some)
    frames = [month.trips() for month in months]
    trips = [Rides.from_frame(frame) for frame in frames]
    for name, column in zip(window.RIDE_COLUMNS, columns, strict=True):
        expected = np.concatenate([getattr(rides, name) for rides in trips])
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)
    np.testing.assert_array_equal(minutes, np.concatenate([f["duration"] for f in frames]))
    assert minutes.dtype == np.float32
    assert len(some) == len(minutes)
    assert max(len(batch.minutes) for batch in some.batches()) <= rows


def test_trips_in_memory_make_the_same_window(months):
    frame = months[0].trips()
    rides, minutes = Rides.from_frame(frame), frame["duration"].to_numpy()
    for ours, files in zip(joined(Window.of(rides, minutes))[0],
                           joined(Window.scored(months[:1]))[0], strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours, files)
    assert len(Window.of(rides, minutes)) == len(frame)
