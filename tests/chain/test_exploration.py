"""Known effects are planted in trips and files, and found again."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_duration.chain.exploration import (
    add_speed,
    by_day,
    by_distance,
    by_hour,
    by_zone,
    count_nulls,
    mile_classes,
)
from taxi_duration.chain.sentences import (
    describe_days,
    describe_hours,
    describe_nulls,
    describe_quarantine,
    describe_speed,
    describe_zones,
)
from taxi_duration.data.health.profile import Profile
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.data.sources import RawMonth
from taxi_duration.data.trips import Accounting
from taxi_duration.domain.months import Month, parse_months

MARCH = [Month(2021, 3)]  # begins on a Monday: five Mondays, Tuesdays and Wednesdays
HOLIDAYS = parse_months("2021-01")


def ridden(per_hour=12, months="2021-03", **columns) -> pd.DataFrame:
    """Equally many trips in every hour of the months: 3 miles in 15 minutes, from zone 74."""
    days = [(np.datetime64(str(m)), np.datetime64(str(m.shift(1)))) for m in parse_months(months)]
    hours = np.concatenate([np.arange(a, b, dtype="datetime64[h]") for a, b in days])
    pickup = np.repeat(hours.astype("datetime64[us]"), per_hour)
    frame = pd.DataFrame({"pickup_at": pickup, "PULocationID": np.int16(74)})
    return frame.assign(trip_distance=np.float32(3), duration=np.float32(15), **columns)


# --- hours -------------------------------------------------------------------------------


def test_weekdays_that_occur_four_and_five_times_are_equal_when_their_hours_are():
    hours = by_hour(ridden(per_hour=12), MARCH)
    assert hours.loc[(0, 8), "trips"] == 60 and hours.loc[(6, 8), "trips"] == 48
    assert (hours["trips_per_hour"] == 12).all()


def test_stray_dates_are_in_no_hour_of_the_week():
    stray = ridden(per_hour=50, months="2009-01").assign(duration=np.float32(59))
    hours = by_hour(pd.concat([ridden(), stray]), MARCH)
    assert (hours["trips_per_hour"] == 12).all() and (hours["minutes"] == 15).all()


def test_hour_in_which_nobody_rode_counts_as_none():
    trips = ridden()
    trips = trips[trips["pickup_at"].dt.hour != 4]
    hours = by_hour(trips, MARCH)
    assert (hours.loc[(slice(None), 4), "trips_per_hour"] == 0).all()
    assert hours.loc[(2, 4), "minutes"] != hours.loc[(2, 4), "minutes"]  # NaN: nothing known


def test_planted_rush_is_named_as_the_busiest_hour():
    rush = ridden().query("pickup_at.dt.day_of_week == 3 and pickup_at.dt.hour == 17")
    text = describe_hours(by_hour(pd.concat([ridden(), rush]), MARCH))
    assert "Busiest: Thursday 17:00 with 24 trips an hour" in text


# --- days --------------------------------------------------------------------------------


def stormy(day="2021-03-16", left=1, months="2021-02:2021-03") -> pd.DataFrame:
    """Two months in which one trip an hour was left on a day."""
    trips = ridden(months=months)
    hit = trips["pickup_at"].dt.floor("D") == day
    return pd.concat([trips[~hit], trips[hit].groupby(trips["pickup_at"]).head(left)])


def far_days(trips, months) -> list[str]:
    days = by_day(trips, parse_months(months))
    return [f"{day:%Y-%m-%d}" for day in days.index[days["far_off"]]]


def test_every_day_of_an_even_month_is_as_usual():
    assert far_days(ridden(), "2021-03") == []


def test_day_of_few_trips_is_far_off_and_named():
    assert far_days(stormy(), "2021-02:2021-03") == ["2021-03-16"]
    text = describe_days(by_day(stormy(), parse_months("2021-02:2021-03")))
    assert "Tue 2021-03-16: 24 trips (-92%)" in text


def test_day_on_which_nobody_rode_is_far_off():
    assert far_days(stormy(left=0), "2021-02:2021-03") == ["2021-03-16"]


def test_day_of_slow_streets_is_far_off_with_as_many_trips():
    trips = ridden(months="2021-02:2021-03")
    slow = trips["pickup_at"].dt.floor("D") == "2021-03-18"
    trips.loc[slow, "duration"] = np.float32(20)
    assert far_days(trips, "2021-02:2021-03") == ["2021-03-18"]


def test_first_days_of_a_window_across_a_years_end_are_days_too():
    days = by_day(ridden(months="2020-12:2021-01"), parse_months("2020-12:2021-01"))
    assert len(days) == 62 and not days["far_off"].any()
    holidays = [f"{day:%Y-%m-%d}" for day in days.index[days["holiday"]]]
    assert holidays == ["2020-12-25", "2021-01-01", "2021-01-18"]


def test_stray_dates_are_no_days():
    stray = ridden(per_hour=1, months="2009-01")
    days = by_day(pd.concat([ridden(), stray]), MARCH)
    assert len(days) == 31 and (days["trips"] == 12 * 24).all()


def test_noise_of_a_tiny_month_is_no_storm():
    rng = np.random.default_rng(3)
    trips = ridden(per_hour=1, months="2021-02:2021-03")
    few = trips[rng.random(len(trips)) < 0.1]  # two or three trips a day
    assert far_days(few, "2021-02:2021-03") == []


# --- distance and speed ------------------------------------------------------------------


def test_speed_of_a_planted_trip():
    assert add_speed(ridden().head(1))["speed_mph"].tolist() == [12.0]  # 3 miles in 15 minutes


@pytest.mark.parametrize("miles", [0.0, -1.0, 244_152.0, np.nan])
def test_distance_that_cannot_be_true_has_no_speed(miles):
    trips = ridden().head(1).assign(trip_distance=np.float32(miles))
    assert add_speed(trips)["speed_mph"].isna().all()


def test_fastest_and_slowest_hour_are_named():
    trips = ridden()
    hour = trips["pickup_at"].dt.hour
    trips["duration"] = np.select([hour == 5, hour == 17], [6.0, 30.0], 15.0)
    text = describe_speed(trips)
    assert "fastest at 5:00 (30.0 mph) and slowest at 17:00 (6.0)" in text


def test_trips_without_distances_have_no_speed_to_speak_of():
    trips = ridden().assign(trip_distance=np.float32(np.nan))
    assert "No trip carries a distance" in describe_speed(trips)


def test_distance_classes_keep_their_order_and_their_edges():
    classes = mile_classes(pd.Series([0.0, 1.0, 19.9, 20.0, np.nan]))
    assert classes.tolist()[:4] == ["0-1", "1-2", "12-20", "20+"] and pd.isna(classes[4])


def test_minutes_by_distance_are_those_of_the_class():
    far = ridden(per_hour=2).assign(trip_distance=np.float32(10), duration=np.float32(40))
    table = by_distance(pd.concat([ridden(), far]))
    assert table["median"].to_dict() == {"3-5": 15.0, "8-12": 40.0}
    assert table["trips"].to_dict() == {"3-5": 12 * 744, "8-12": 2 * 744}


# --- places ------------------------------------------------------------------------------


def test_zones_are_counted_and_the_unknown_ones_told():
    trips = ridden(per_hour=3)
    trips["PULocationID"] = np.resize([74, 74, 264], len(trips))
    zones = by_zone(trips)
    assert zones["trips"].to_dict() == {74: 2 * 744, 264: 744}
    assert "33.3% begin in a zone that is not known" in describe_zones(zones)


# --- nulls -------------------------------------------------------------------------------


def prepared(path, month) -> PreparedMonth:
    raw = RawMonth("green", month, path, "0" * 64, "tlc", None)
    return PreparedMonth(raw, path, path, Accounting(0, 0, {}, 0.0), [], Profile({}, {}, {}, []))


def write(path, statistics=True, **columns):
    pq.write_table(pa.table(columns), path, write_statistics=statistics)
    return path


@pytest.mark.parametrize("statistics", [True, False])
def test_nulls_of_a_parquet_month_are_counted(tmp_path, statistics):
    path = write(tmp_path / "a.parquet", statistics, VendorID=[1, None, 2, None],
                 ehail_fee=pa.nulls(4), fare=[1.0, 2.0, 3.0, 4.0])  # fmt: skip
    nulls = count_nulls([prepared(path, Month(2021, 1))])
    assert nulls["2021-01"].to_dict() == {"VendorID": 0.5, "ehail_fee": 1.0, "fare": 0.0}
    assert nulls["type"].to_dict() == {"VendorID": "int64", "ehail_fee": "null", "fare": "double"}


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_nulls_of_a_csv_month_are_counted(tmp_path, opener):
    path = tmp_path / "a.csv"
    with opener(path, "wt") as file:
        file.write("vendor_id,pickup_datetime\nCMT,2019-01-01 00:00:00\n,2019-01-01 00:01:00\n")
    nulls = count_nulls([prepared(path, Month(2019, 1))])
    assert nulls["2019-01"].to_dict() == {"vendor_id": 0.5, "pickup_datetime": 0.0}


@pytest.mark.parametrize("statistics", [True, False])
def test_nulls_of_columns_behind_a_nested_one_are_their_own(tmp_path, statistics):
    path = write(tmp_path / "a.parquet", statistics, route=[{"miles": 1.0, "toll": None}] * 4,
                 stops=[[1], None, [2, 3], []], fare=[1.0, None, 3.0, 4.0],
                 tip=[None, None, None, 1.0])  # fmt: skip
    nulls = count_nulls([prepared(path, Month(2021, 1))])["2021-01"]
    assert nulls.to_dict() == {"route": 0.0, "stops": 0.25, "fare": 0.25, "tip": 0.75}


def test_columns_of_a_csv_month_may_have_no_name_and_any_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("vendor_id,note,,\nCMT,caf\xe9,,\n,,,\n".encode("latin-1"))
    nulls = count_nulls([prepared(path, Month(2019, 1))])
    assert nulls["2019-01"].to_dict() == {"vendor_id": 0.5, "note": 0.5, "": 1.0}


def test_column_that_only_one_month_has_is_named(tmp_path):
    old = write(tmp_path / "a.parquet", VendorID=[1, 2])
    new = write(tmp_path / "b.parquet", VendorID=[1, 2], cbd_congestion_fee=[0.75, None])
    nulls = count_nulls([prepared(old, Month(2024, 12)), prepared(new, Month(2025, 1))])
    assert nulls.loc["cbd_congestion_fee"].tolist()[0] == "double"
    assert np.isnan(nulls.loc["cbd_congestion_fee", "2024-12"])
    assert "not there in every month: cbd_congestion_fee" in describe_nulls(nulls)


# --- what was left out -------------------------------------------------------------------


def test_meters_left_running_are_found_among_the_rows_left_out():
    out = pd.DataFrame({"duration": [0.2, 0.3, 70.0, 80.0, 1435.0, 1439.0]})
    text = describe_quarantine(out)
    assert "6 rows were left out, 33% under a minute" in text and "50% end 23 to 24 hours" in text


def test_nothing_left_out_is_said():
    assert describe_quarantine(pd.DataFrame({"duration": []})) == "No row was left out."
