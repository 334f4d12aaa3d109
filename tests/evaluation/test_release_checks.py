"""Checks of a model before it may be registered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.evaluation.release_checks import (
    ModelCheckError,
    check_model,
    fixed_rides,
    require_passed,
)
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.fit import fit_model


class Fake:
    """A model made of one function of rides to minutes."""

    def __init__(self, minutes, low=0.7, high=1.4) -> None:
        self.minutes, self.low, self.high = minutes, low, high

    def answer(self, rides: Rides) -> Answers:
        minutes = np.asarray(self.minutes(rides), dtype="float32")
        n = len(rides)
        return Answers(
            minutes, minutes * self.low, minutes, minutes * self.high,
            np.ones(n, dtype="int32"), np.ones(n, dtype=bool),
        )  # fmt: skip


def miles(rides):
    return np.nan_to_num(rides.trip_distance, nan=3.0)


GOOD = Fake(lambda rides: 5 + 3 * miles(rides))


@pytest.fixture
def lookups(trips):
    return fit_baselines(Window.from_frame(trips))


def failed(model, trips, lookups, previous=None) -> set[str]:
    return {
        c.name
        for c in check_model(model, Window.from_frame(trips), lookups, previous)
        if not c.passed
    }


def test_fitted_model_passes_every_check(trips, lookups):
    model = fit_model("LR", Window.from_frame(trips))
    assert failed(model, trips, lookups, model) == set()


@pytest.mark.parametrize(
    "model",
    [
        Fake(lambda rides: np.full(len(rides), np.nan)),
        Fake(lambda rides: 500 + miles(rides)),
        Fake(GOOD.minutes, low=1.5),
    ],
    ids=["not a number", "hours", "P10 above P50"],
)
def test_answer_out_of_range_is_found(trips, lookups, model):
    assert "range" in failed(model, trips, lookups)


def test_model_that_takes_less_time_for_a_longer_way_is_found(trips, lookups):
    assert "monotone" in failed(Fake(lambda r: 30 - 0.5 * miles(r)), trips, lookups)


def test_service_without_distances_has_nothing_to_stretch(trips, lookups):
    assert "monotone" not in failed(GOOD, trips.assign(trip_distance=np.float32("nan")), lookups)


def test_model_that_reads_the_outcome_is_found(trips, lookups, monkeypatch):
    def with_outcome(cls, frame):
        rides = original(frame)
        if "duration" in frame:
            rides = replace(rides, trip_distance=frame["duration"].to_numpy())
        return rides

    original = Rides.from_frame
    monkeypatch.setattr(Rides, "from_frame", classmethod(with_outcome))
    assert "no_leak" in failed(GOOD, trips, lookups)


def test_feature_named_after_the_outcome_is_found(trips, lookups, monkeypatch):
    from taxi_duration.evaluation import release_checks

    monkeypatch.setattr(release_checks, "DISTANCE_FEATURES", ("hour_of_week", "tip_share"))
    assert "no_leak" in failed(GOOD, trips, lookups)


def test_model_that_depends_on_the_order_of_rides_is_found(trips, lookups):
    drifting = Fake(lambda r: 5 + 3 * miles(r) + np.linspace(0, 1, len(r)))
    assert "row_order" in failed(drifting, trips, lookups)


def test_model_that_depends_on_the_order_of_fields_is_found(trips, lookups, monkeypatch):
    def by_position(cls, frame):
        rides = original(frame)
        first = frame.columns[0] == "duration"
        return replace(rides, trip_distance=rides.trip_distance * (2 if first else 1))

    original = Rides.from_frame
    monkeypatch.setattr(Rides, "from_frame", classmethod(by_position))
    assert "field_order" in failed(GOOD, trips, lookups)


def test_model_no_better_than_a_lookup_is_found(trips, lookups):
    assert "lookups" in failed(Fake(lambda r: 40 + 0.1 * miles(r)), trips, lookups)


def test_model_far_from_the_last_version_is_flagged_and_not_refused(trips, lookups):
    checks = check_model(
        GOOD, Window.from_frame(trips), lookups, previous=Fake(lambda r: 25 + 3 * miles(r))
    )
    assert [check.name for check in checks if not check.passed] == ["fixed_rides"]
    require_passed(checks)


def test_refusal_names_every_failed_check_with_its_numbers(trips, lookups):
    checks = check_model(Fake(lambda r: 30 - 0.5 * miles(r)), Window.from_frame(trips), lookups)
    with pytest.raises(ModelCheckError, match=r"mean answer at 0\.5 times.*best lookup"):
        require_passed(checks)


def test_fixed_rides_are_asked_with_and_without_distance():
    missing = np.isnan(fixed_rides().trip_distance)
    assert missing.sum() == len(missing) / 2
