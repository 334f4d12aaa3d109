"""Drift of rides and answers, with bounds from real months."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from taxi_duration.data.trips import read_dataframe
from taxi_duration.domain.findings import Bound, worst
from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.domain.months import parse_month
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.drift import (
    DAY_SETTINGS_FILE,
    MIN_ROWS,
    SETTINGS_FILE,
    Sample,
    drift_bounds,
    feature_values,
    like_days,
    measure_drift,
    number_psi,
    psi,
    shift,
    zone_psi,
)


def sample(n=4000, seed=0, miles=3.0, hour_mean=13.0, zones=(74, 75, 41, 42, 236, 237)):
    rng = np.random.default_rng(seed)
    day = rng.integers(0, 28, n)
    hour = np.clip(rng.normal(hour_mean, 4, n), 0, 23.9)
    seconds = (day * 86400 + hour * 3600).astype("m8[s]")
    asked = rng.gamma(2.0, miles / 2, n).astype("float32") + np.float32(0.1)
    rides = Rides(
        rng.choice(zones, n).astype("int16"), rng.choice(zones, n).astype("int16"),
        np.datetime64("2021-01-04T00:00:00") + seconds, asked,
    )  # fmt: skip
    minutes = 4 + 3 * asked
    return Sample(rides, minutes, minutes + rng.normal(0, 2, n))


def levels(reference, current, whole_months=True):
    found = measure_drift(reference, current, whole_months)
    return {f"{d.feature}.{d.measure}": d.level for d in found if d.level != "ok"}


def test_month_like_the_reference_is_quiet():
    assert levels(sample(seed=1), sample(seed=2)) == {}


def test_longer_trips_show_in_distance_prediction_and_duration():
    found = levels(sample(), sample(seed=1, miles=4.5))
    assert {"trip_distance.shift", "prediction.shift", "duration.shift"} <= found.keys()


def test_rides_at_other_hours_show_in_the_hour():
    assert levels(sample(), sample(seed=1, hour_mean=10.0))["hour.shift"] == "alarm"


def test_rides_from_other_zones_show_in_the_zones():
    found = levels(sample(), sample(seed=1, zones=(74, 75, 41, 7, 95, 130)))
    assert found["pickup_zone.psi"] == found["dropoff_zone.psi"] == "alarm"


def test_unknown_zones_show_as_a_share():
    current = sample(seed=1)
    zones = np.where(np.arange(4000) % 10 == 0, 264, current.rides.PULocationID).astype("int16")
    current = current._replace(rides=replace(current.rides, PULocationID=zones))
    assert levels(sample(), current)["unknown_zone.share"] == "alarm"


def test_missing_distances_show_as_a_share():
    current = sample(seed=1)
    miles = np.where(np.arange(4000) % 10 == 0, np.nan, current.rides.trip_distance)
    current = current._replace(rides=replace(current.rides, trip_distance=miles.astype("float32")))
    assert levels(sample(), current) == {"missing_distance.share": "alarm"}


def test_a_third_of_the_trips_shows_in_the_volume():
    assert levels(sample(9000), sample(3000, seed=1)) == {"volume.ratio": "alarm"}


def test_volume_of_a_sample_is_that_of_the_month_it_stands_for():
    assert levels(sample(3000)._replace(every=3), sample(9000, seed=1)) == {}


def test_volume_of_a_log_that_sees_a_part_of_the_rides_is_not_judged():
    assert levels(sample(9000), sample(3000, seed=1), whole_months=False) == {}


def test_few_rides_are_not_judged():
    assert measure_drift(sample(), sample(MIN_ROWS - 1, miles=9.0)) == []


def test_rides_without_any_distance_are_measured_all_the_same():
    current = sample(seed=1)
    unknown = current._replace(rides=current.rides.without_distance())
    names = {f"{d.feature}.{d.measure}" for d in measure_drift(sample(), unknown)}
    assert "straight_distance.shift" in names
    assert "trip_distance.shift" not in names


def test_psi_is_the_textbook_sum():
    expected = (0.4 - 0.5) * np.log(0.4 / 0.5) + (0.6 - 0.5) * np.log(0.6 / 0.5)
    many = 10**9
    assert psi(np.array([5, 5]) * many, np.array([4, 6]) * many) == pytest.approx(expected)


def test_psi_of_few_rides_from_the_same_city_is_not_mistaken_for_drift():
    rng = np.random.default_rng(0)
    city = np.full(21, 1 / 21)
    found = [psi(rng.multinomial(20_000, city), rng.multinomial(500, city)) for _ in range(300)]
    assert np.quantile(found, 0.95) < drift_bounds()["dropoff_zone.psi"].watch


def test_weekend_alone_is_not_judged():
    weekend = sample(seed=1, hour_mean=10.0)
    since_friday = (np.arange(4000) * 43).astype("m8[s]")  # 48 hours
    at = np.datetime64("2021-01-08T00:00:00") + since_friday
    weekend = weekend._replace(rides=replace(weekend.rides, pickup_at=at))
    assert measure_drift(sample(), weekend) == []


def test_psi_of_a_number_that_is_often_the_same_is_finite():
    assert number_psi(np.zeros(1000), np.ones(1000)) < 20


def test_zone_that_was_never_seen_falls_into_the_common_bin():
    before = np.repeat([74, 75], 500).astype("int16")
    assert np.isfinite(zone_psi(before, np.full(1000, 3, dtype="int16")))


def test_shift_says_by_how_much_a_number_moved():
    values = np.random.default_rng(0).normal(10, 2, 5000)
    assert shift(values, values + 1.5) == pytest.approx(1.5)


def test_finding_says_value_unit_and_bounds():
    drift = next(
        d for d in measure_drift(sample(), sample(seed=1, miles=4.5)) if d.measure == "shift"
        and d.feature == "trip_distance"
    )  # fmt: skip
    assert "miles (watch from 0.7, alarm from 1.4)" in drift.text


@pytest.mark.parametrize("name", [SETTINGS_FILE, DAY_SETTINGS_FILE])
def test_every_bound_has_a_reason_and_watches_before_it_alarms(name):
    content = json.loads((files("taxi_duration.evaluation") / name).read_text())
    assert all(len(entry["why"]) > 20 for entry in content.values())
    assert all(entry["watch"] < entry["alarm"] for entry in content.values())


# --- noise of small samples ------------------------------------------------------------------


def by_name(drifts):
    return {f"{d.feature}.{d.measure}": d for d in drifts}


@pytest.mark.parametrize("rides", [500, 700, 2000])
def test_small_logs_of_the_same_city_raise_nothing(rides):
    """Each measure is corrected for what so few rides give by chance."""
    reference = sample(10_000)
    for seed in range(1, 13):
        current = sample(rides, seed=seed)
        assert levels(reference, current, whole_months=False) == {}
        assert measure_drift(reference, current, False, one_day=True)


def test_what_chance_gives_is_taken_off_and_what_it_may_add_is_said():
    """Over many small samples the middle value is near 0, and hardly one is beyond its noise."""
    reference, found = sample(10_000), []
    for seed in range(1, 51):
        found += measure_drift(reference, sample(500, seed=seed), whole_months=False)
    for name in {f"{d.feature}.{d.measure}" for d in found}:
        ours = [d for d in found if f"{d.feature}.{d.measure}" == name]
        noise = np.array([d.noise for d in ours])
        values = np.array([d.value for d in ours])
        assert np.median(values) <= noise.mean() / 2, name
        assert (values > noise).mean() <= 0.04, name


def test_noise_is_gone_on_whole_months():
    for drift in measure_drift(sample(60_000), sample(60_000, seed=1)):
        assert drift.noise < drift.watch / 5, drift


def test_level_is_that_of_what_is_beyond_noise():
    bounds = {"missing_distance.share": Bound(0.04, 0.08)}
    current = sample(600, seed=1)
    miles = np.where(np.arange(600) % 12 == 0, np.nan, current.rides.trip_distance)
    current = current._replace(rides=replace(current.rides, trip_distance=miles.astype("float32")))
    (drift,) = measure_drift(sample(20_000), current, bounds=bounds)
    assert drift.value == pytest.approx(1 / 12, abs=0.002)  # above the alarm bound by itself
    assert drift.value - drift.noise < 0.08
    assert drift.level == "watch"


@pytest.mark.parametrize("side", ["PULocationID", "DOLocationID"])
def test_unknown_zones_of_either_side_count(side):
    current = sample(seed=1)
    zones = np.where(np.arange(4000) % 10 == 0, 264, getattr(current.rides, side)).astype("int16")
    current = current._replace(rides=replace(current.rides, **{side: zones}))
    found = by_name(measure_drift(sample(), current))["unknown_zone.share"]
    assert (found.level, found.value) == ("alarm", pytest.approx(0.1, abs=0.002))


def test_psi_of_every_number_is_that_of_its_tenths():
    reference, current = sample(20_000), sample(seed=1, miles=4.5, hour_mean=11.0)
    found = by_name(measure_drift(reference, current))
    numbers = [feature_values(each) for each in (reference, current)]
    for name in ("hour", "trip_distance", "prediction", "duration"):
        value = number_psi(*(of[name] for of in numbers))
        assert found[f"{name}.psi"].value == pytest.approx(value)
        assert value > 0.05


# --- one day ---------------------------------------------------------------------------------


def on_days(sample, days):
    """The same rides, on some days of January 2021 only."""
    at = sample.rides.pickup_at
    hour = at - at.astype("datetime64[D]")
    day = np.array(days, dtype="datetime64[D]")[np.arange(len(at)) % len(days)]
    return sample._replace(rides=replace(sample.rides, pickup_at=day + hour))


WORKDAYS = [f"2021-01-{d:02}" for d in (4, 5, 6, 7, 8, 11, 12, 13, 14, 15)]
SUNDAYS = ["2021-01-03", "2021-01-10"]


def month_of_two_kinds():
    """Ten working days around 9 and two Sundays around 15."""
    busy, late = (
        on_days(sample(10_000, hour_mean=9.0), WORKDAYS),
        on_days(sample(2000, seed=3, hour_mean=15.0), SUNDAYS),
    )
    both = {f: np.concatenate([getattr(s.rides, f) for s in (busy, late)])
            for f in ("PULocationID", "DOLocationID", "pickup_at", "trip_distance")}  # fmt: skip
    return Sample(Rides(**both), np.concatenate([busy.predicted, late.predicted]),
                  np.concatenate([busy.actual, late.actual]))  # fmt: skip


def test_a_sunday_is_held_against_sundays():
    sunday = on_days(sample(700, seed=5, hour_mean=15.0), ["2021-01-17"])
    found = measure_drift(month_of_two_kinds(), sunday, False, one_day=True)
    assert [d for d in found if d.level != "ok"] == []
    workday = on_days(sunday, ["2021-01-19"])  # the same rides on a Tuesday are another matter
    found = by_name(measure_drift(month_of_two_kinds(), workday, False, one_day=True))
    assert found["hour.shift"].level == "alarm"


def test_like_days_keep_the_mix_of_those_that_are_asked_for():
    reference = month_of_two_kinds()
    asked = np.array(["2021-01-16", *SUNDAYS], dtype="datetime64[s]")[[1, 1, 1, 2]]
    asked[0] = np.datetime64("2021-01-12")
    kept = like_days(reference, asked)
    sunday = np.isin(kept.rides.pickup_at.astype("datetime64[D]").astype(str), SUNDAYS)
    assert sunday.mean() == pytest.approx(0.75, abs=0.01)
    assert sunday.sum() == 2000  # as many as there are
    assert len(kept.actual) == len(kept.rides)


def test_day_of_a_kind_that_the_reference_never_saw_is_not_judged():
    saturday = on_days(sample(700, seed=5), ["2021-01-16"])
    assert measure_drift(month_of_two_kinds(), saturday, False, one_day=True) == []


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_kilometres_show_within_a_day_as_another_detour(share):
    rng = np.random.default_rng(0)
    reference = sample(20_000)
    straight = zone_geometry().straight_km

    def asked(rides):
        """Distances that fit the zones."""
        miles = straight[rides.PULocationID, rides.DOLocationID] * rng.gamma(9, 0.1, len(rides))
        return replace(rides, trip_distance=miles.astype("float32"))

    reference = reference._replace(rides=asked(reference.rides))
    rides = asked(sample(700, seed=2).rides)
    factor = np.where(rng.random(700) < share, 1.609344, 1.0)
    current = Sample(replace(rides, trip_distance=rides.trip_distance * factor))
    found = by_name(measure_drift(reference, current, False, one_day=True))
    assert found["detour.psi"].level == "alarm"
    quiet = by_name(measure_drift(reference, Sample(rides), False, one_day=True))
    assert quiet["detour.psi"].level == "ok"


def test_every_bound_of_a_day_is_also_one_of_a_month():
    assert drift_bounds(one_day=True).keys() <= drift_bounds().keys()


# --- real months -----------------------------------------------------------------------------

REAL_PAIRS = [
    ("yellow", "2019-02", "2019-01", "csv.gz", {"ok"}),
    ("yellow", "2020-04", "2020-03", "csv.gz", {"alarm"}),
    ("yellow", "2020-04", "2019-01", "csv.gz", {"alarm"}),
    ("green", "2021-02", "2021-01", "parquet", {"ok", "watch"}),
    ("green", "2020-04", "2020-03", "parquet", {"alarm"}),
    ("green", "2023-02", "2023-01", "parquet", {"ok", "watch"}),
]


@pytest.mark.parametrize(("service", "month", "reference", "suffix", "expected"), REAL_PAIRS)
def test_real_month_is_judged_as_what_it_was(
    real_months, service, month, reference, suffix, expected
):
    """Answers come from a plain slope over the distance: drift of them needs no good model."""
    samples = []
    for tag in (reference, month):
        path = real_months / "trip-data" / f"{service}_tripdata_{tag}.{suffix}"
        trips = read_dataframe(path, parse_month(tag))
        rides = Rides.from_frame(trips)
        predicted = 6 + 3 * np.nan_to_num(np.minimum(rides.trip_distance, 15), nan=3.0)
        samples.append(Sample(rides, predicted, trips["duration"].to_numpy()))
    found = measure_drift(*samples)
    assert worst(d.level for d in found) in expected, [d.text for d in found if d.level != "ok"]
