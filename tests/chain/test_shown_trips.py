"""Very many trips are looked at as an even sample that says so; few are looked at whole."""

import pandas as pd
import pytest

from taxi_duration.chain import exploration
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import parse_months


@pytest.fixture
def months():
    return prepare_months("green", parse_months("2021-01:2021-02"), mode="sample")


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_kth_trip_is_shown_across_months_and_batches(months, monkeypatch, every):
    whole = pd.concat([month.trips() for month in months], ignore_index=True)
    monkeypatch.setattr(exploration, "SHOWN_TRIPS", len(whole) // every)
    monkeypatch.setattr(exploration, "BATCH_ROWS", 1000)
    trips = exploration.sample_trips(months)
    pd.testing.assert_frame_equal(trips, whole[::every].reset_index(drop=True))
    note = f", from {len(trips):,} of {len(whole):,} trips"
    assert exploration.sample_note(trips, months) == (note if every > 1 else "")
