"""What a fitted model must pass before it may be registered, whatever its error says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from taxi_duration.data.window import Window
from taxi_duration.domain.limits import LONGEST_MINUTES
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.errors import TaxiError
from taxi_duration.evaluation.gate import Check
from taxi_duration.evaluation.window_scores import point_minutes, predictors, score_points
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.features import DISTANCE_FEATURES
from taxi_duration.model.lookups import Lookup

ROWS = 5000  # asked in each check; more would only take longer
# A straight line through outliers may answer a few rides with nonsense; not one in a hundred.
ANSWER_LIMITS_MINUTES = (0.0, 120.0)
MAX_OUTSIDE_SHARE = 0.01
STRETCHES = (0.5, 1.0, 1.5, 2.0)  # of the asked distance
# A straight line through meter faults of 200,000 miles is flat: it may fall by this much.
FLAT_MINUTES = 0.05
# Known only when the ride is over, or made from its duration.
LEAKS = ("fare", "tip", "toll", "total", "payment", "dropoff_at", "duration", "amount")
ASKED = ("PULocationID", "DOLocationID", "pickup_at", "trip_distance")
EQUAL_MINUTES = 1e-4  # float32 minutes added up in another order
# Versions a month apart differ by about half a minute on these rides, kinds of model by two.
MAX_CHANGE_MINUTES, MAX_MEAN_CHANGE_MINUTES = 10.0, 3.0
FLAGS = ("fixed_rides",)  # shown to a person, no reason to refuse

_FIXED = (
    # pickup, drop-off, when, miles: an avenue, a park, three airports, rivers, a rare pair
    (236, 237, "2021-02-02T09:00:00", 1.1),
    (74, 75, "2021-02-02T17:30:00", 1.4),
    (132, 230, "2021-02-03T16:00:00", 17.5),
    (138, 48, "2021-02-04T23:00:00", 9.8),
    (161, 1, "2021-02-05T06:00:00", 17.0),
    (255, 79, "2021-02-06T01:00:00", 3.2),
    (41, 42, "2021-02-07T12:00:00", 0.9),
    (65, 181, "2021-02-08T08:00:00", 2.6),
    (10, 50, "2021-02-09T08:30:00", 15.0),
    (251, 51, "2021-02-10T20:00:00", 24.0),
)


class ModelCheckError(TaxiError):
    """A fitted model fails a check and must not be registered; says which and by how much."""


def check_model(
    model: DurationModel,
    window: Window,
    lookups: Mapping[str, Lookup],
    previous: DurationModel | None = None,
) -> list[Check]:
    """Return every check with its numbers.

    Args:
        model: just fitted.
        window: validation trips; not empty.
        lookups: fitted on the model's own training trips.
        previous: the last registered version, to compare a few fixed rides with.
    """
    rides, minutes = window.evenly(ROWS)
    asked = pd.DataFrame({name: getattr(rides, name) for name in ASKED})
    ended = rides.pickup_at + (minutes * 60).astype("timedelta64[s]")
    asked = asked.assign(dropoff_at=ended, duration=minutes)
    checks = [
        _range(model.answer(rides)),
        _monotone(model, rides),
        _no_leak(model, asked),
        _row_order(model, rides),
        _field_order(model, asked),
        _beats_lookups(model, lookups, window),
    ]
    return checks if previous is None else [*checks, _fixed_rides(model, previous)]


def require_passed(checks: list[Check]) -> None:
    """Stop a model that fails; a flag alone does not.

    Raises:
        ModelCheckError: every failed check with its numbers.
    """
    failed = [check.detail for check in checks if not check.passed and check.name not in FLAGS]
    if failed:
        raise ModelCheckError(f"the model may not be registered: {'; '.join(failed)}")


def fixed_rides() -> Rides:
    """Return a few rides that every version answers, with and without their distance."""
    pickup, dropoff, when, miles = zip(*_FIXED, strict=True)
    unknown = (np.nan,) * len(miles)
    return Rides(
        np.array(pickup * 2, dtype="int16"),
        np.array(dropoff * 2, dtype="int16"),
        np.array(when * 2, dtype="datetime64[s]"),
        np.array(miles + unknown, dtype="float32"),
    )


def _range(answers: Answers) -> Check:
    minutes = np.column_stack([answers.duration, answers.p10, answers.p50, answers.p90])
    low, high = ANSWER_LIMITS_MINUTES
    finite = bool(np.isfinite(minutes).all())
    outside = float(((minutes < low) | (minutes > high)).any(axis=1).mean())
    ordered = bool(((answers.p10 <= answers.p50) & (answers.p50 <= answers.p90)).all())
    detail = (
        f"{outside:.2%} of the answers lie outside {low:.0f} to {high:.0f} minutes (at most "
        f"{MAX_OUTSIDE_SHARE:.0%}), {'all' if finite else 'not all'} are finite, "
        f"P10 <= P50 <= P90 {'holds' if ordered else 'does not hold'}"
    )
    passed = finite and ordered and outside <= MAX_OUTSIDE_SHARE
    return Check("range", passed, detail, {"outside_share": outside})


def _monotone(model: DurationModel, rides: Rides) -> Check:
    """A longer way must not take less time, on average over the rides."""
    answers = [model.answer(_stretched(rides, s)) for s in STRETCHES]
    used = np.logical_and.reduce([each.used_distance for each in answers])
    if not used.any():
        return Check("monotone", True, "no trip has a distance that can be stretched", {})
    means = [float(each.duration[used].mean()) for each in answers]
    detail = "mean answer at " + ", ".join(
        f"{s:g} times the distance {m:.2f}" for s, m in zip(STRETCHES, means, strict=True)
    )
    smallest = min(np.diff(means).tolist())
    detail = f"{detail} min; must not fall"
    return Check("monotone", smallest > -FLAT_MINUTES, detail, {"step_min": smallest})


def _stretched(rides: Rides, factor: float) -> Rides:
    miles = (rides.trip_distance * factor).astype("float32")
    return Rides(rides.PULocationID, rides.DOLocationID, rides.pickup_at, miles)


def _no_leak(model: DurationModel, trips: pd.DataFrame) -> Check:
    """Neither a feature's name nor a changed outcome of the ride may show in the answers."""
    names = [name for name in DISTANCE_FEATURES if any(leak in name for leak in LEAKS)]
    spoiled = trips.assign(
        duration=np.float32(LONGEST_MINUTES), dropoff_at=trips["dropoff_at"] + pd.Timedelta(hours=9)
    )
    spoiled = spoiled.assign(fare_amount=1.0, tip_amount=99.0, total_amount=100.0)
    before = model.answer(Rides.from_frame(trips[list(ASKED)]))
    moved = _largest_change(before, model.answer(Rides.from_frame(spoiled)))
    detail = f"answers move by {moved:.2g} min with what is known only after the ride"
    if names:
        detail += f"; features with such names: {', '.join(names)}"
    return Check("no_leak", not names and moved == 0, detail, {"moved_min": moved})


def _row_order(model: DurationModel, rides: Rides) -> Check:
    order = np.random.default_rng(0).permutation(len(rides))
    answers, shuffled = model.answer(rides), model.answer(rides.take(order))
    moved = float(np.abs(answers.duration[order] - shuffled.duration).max())
    detail = f"answers move by {moved:.2g} min when rides are asked in another order"
    return Check("row_order", moved <= EQUAL_MINUTES, detail, {"moved_min": moved})


def _field_order(model: DurationModel, trips: pd.DataFrame) -> Check:
    forward = model.answer(Rides.from_frame(trips))
    backward = model.answer(Rides.from_frame(trips[trips.columns[::-1]]))
    moved = _largest_change(forward, backward)
    detail = f"answers move by {moved:.2g} min when the fields come in another order"
    return Check("field_order", moved <= EQUAL_MINUTES, detail, {"moved_min": moved})


def _beats_lookups(model: DurationModel, lookups: Mapping[str, Lookup], window: Window) -> Check:
    scores = score_points({"": partial(point_minutes, model), **predictors(lookups)}, window)
    theirs = {name: score["rmse"] for name, score in scores.items()}
    ours = theirs.pop("")
    best = min(theirs, key=theirs.__getitem__)
    detail = f"RMSE {ours:.3f} min, the best lookup, {best}, has {theirs[best]:.3f}"
    numbers = {"rmse": ours, "lookup_rmse": theirs[best]}
    return Check("lookups", ours < theirs[best], detail, numbers)


def _fixed_rides(model: DurationModel, previous: DurationModel) -> Check:
    rides = fixed_rides()
    change = np.abs(model.answer(rides).duration - previous.answer(rides).duration)
    worst, mean = float(change.max()), float(change.mean())
    at = int(change.argmax())
    detail = (
        f"{len(rides)} fixed rides change by {mean:.2f} min on average and by at most {worst:.2f} "
        f"({rides.PULocationID[at]} to {rides.DOLocationID[at]}); more than "
        f"{MAX_MEAN_CHANGE_MINUTES:.0f} or {MAX_CHANGE_MINUTES:.0f} deserve a look"
    )
    passed = worst <= MAX_CHANGE_MINUTES and mean <= MAX_MEAN_CHANGE_MINUTES
    return Check("fixed_rides", passed, detail, {"mean_min": mean, "worst_min": worst})


def _largest_change(before: Answers, after: Answers) -> float:
    return float(np.abs(before.duration - after.duration).max())
