"""Very many trips are looked at as an even sample that says so; few are looked at whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxi_duration.chain import exploration
from taxi_duration.data import window
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import parse_months


@pytest.fixture
def months():
    return prepare_months("green", parse_months("2021-01:2021-02"), mode="sample")


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_kth_trip_is_shown_across_months_and_batches(months, monkeypatch, every):
    whole = pd.concat([month.trips() for month in months], ignore_index=True)
    monkeypatch.setattr(exploration, "SHOWN_TRIPS", len(whole) // every)
    monkeypatch.setattr(window, "BATCH_ROWS", 1000)
    trips = exploration.sample_trips(months)
    pd.testing.assert_frame_equal(trips, whole[::every].reset_index(drop=True))
    note = f", from {len(trips):,} of {len(whole):,} trips"
    assert exploration.sample_note(trips, months) == (note if every > 1 else "")


def test_months_that_another_machine_prepared_are_shown_too(months):
    there = [replace(m, trips_path=Path("/there/prepared", m.trips_path.name)) for m in months]
    shown = exploration.sample_trips(there)
    pd.testing.assert_frame_equal(shown, exploration.sample_trips(months))


def test_counts_are_of_all_trips_and_tables_of_a_sample_take_them(months, monkeypatch):
    monkeypatch.setattr(window, "BATCH_ROWS", 1000)
    tags = [month.raw.month for month in months]
    whole = pd.concat([month.trips() for month in months], ignore_index=True)
    counts, some = exploration.count_rides(months), whole[::3]
    for sampled, full in (
        (exploration.by_day(some, tags, counts), exploration.by_day(whole, tags)),
        (exploration.by_hour(some, tags, counts), exploration.by_hour(whole, tags)),
        (exploration.by_zone(some, counts), exploration.by_zone(whole)),
    ):
        pd.testing.assert_series_equal(sampled["trips"], full["trips"], check_dtype=False)
    pairs = whole.groupby(["PULocationID", "DOLocationID"]).size()
    assert counts.pair.sum() == len(whole)
    at = tuple(np.array(pairs.index.to_list()).T)
    np.testing.assert_array_equal(counts.pair[at], pairs)


def test_tables_of_all_trips_are_the_same_with_counts(months):
    tags = [month.raw.month for month in months]
    trips, counts = exploration.sample_trips(months), exploration.count_rides(months)
    for make in (exploration.by_day, exploration.by_hour):
        pd.testing.assert_frame_equal(make(trips, tags, counts), make(trips, tags))
    pd.testing.assert_frame_equal(exploration.by_zone(trips, counts), exploration.by_zone(trips))
