"""Figures of a window are those of all its trips, however it is cut into parts and batches."""

import hashlib

import numpy as np
import pytest

from taxi_duration.data import window as windows
from taxi_duration.data.window import MemoryPart, Window
from taxi_duration.evaluation.metrics import error_metrics, evaluate, prediction_bytes
from taxi_duration.evaluation.window_scores import (
    predictors,
    score_model,
    score_points,
    window_digest,
)
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.fit import fit_model


@pytest.fixture
def whole(trips):
    trips.loc[::50, "trip_distance"] = np.nan
    return Window.from_frame(trips)


@pytest.fixture
def model(whole):
    return fit_model("LR", whole)


def cut(window, at):
    (part,) = window.parts
    halves = slice(None, at), slice(at, None)
    return Window(tuple(MemoryPart(part.rides.take(h), part.minutes[h]) for h in halves))


def both(model, rides, minutes):
    """What one set of all trips gives, with and without distance."""
    unaided = rides.without_distance()
    return {
        "with_distance": evaluate(minutes, model.answer(rides), rides),
        "without_distance": evaluate(minutes, model.answer(unaided), unaided),
    }


def about(figures):
    return {
        name: about(value) if isinstance(value, dict) else pytest.approx(value, rel=1e-9)
        for name, value in figures.items()
    }


def test_one_batch_has_the_figures_of_one_set_to_the_bit(model, whole):
    rides, minutes = whole.whole()
    digest = hashlib.sha256(prediction_bytes(model.answer(rides))).hexdigest()
    assert score_model(model, whole) == (both(model, rides, minutes), digest)
    assert window_digest(model, whole) == digest


def test_batches_of_a_part_have_its_figures_and_its_digest(model, whole, monkeypatch):
    expected, digest = score_model(model, whole)
    monkeypatch.setattr(windows, "BATCH_ROWS", 100)
    assert score_model(model, whole) == (about(expected), digest)
    assert window_digest(model, whole) == digest


def test_parts_add_up_and_their_digests_are_digested(model, whole):
    expected, _ = score_model(model, whole)
    parts = cut(whole, 70)
    digests = [score_model(model, Window((part,)))[1] for part in parts.parts]
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert score_model(model, parts) == (about(expected), digest)
    assert window_digest(model, parts) == digest


def test_lookups_are_scored_as_on_all_trips_at_once(whole, monkeypatch):
    rides, minutes = whole.whole()
    lookups = fit_baselines(whole)
    expected = {n: error_metrics(minutes, a.predict_minutes(rides)) for n, a in lookups.items()}
    assert score_points(predictors(lookups), whole) == expected
    monkeypatch.setattr(windows, "BATCH_ROWS", 100)
    assert score_points(predictors(lookups), cut(whole, 70)) == about(expected)


@pytest.mark.parametrize(("most", "every"), [(1, 200), (60, 3), (100, 2), (101, 1), (500, 1)])
def test_even_sample_takes_every_kth_trip_across_batches_and_parts(whole, monkeypatch, most, every):
    rides, minutes = whole.whole()
    rides, minutes = rides.take(slice(200)), minutes[:200]
    monkeypatch.setattr(windows, "BATCH_ROWS", 7)
    some, kept = cut(Window.of(rides, minutes), 71).evenly(most)
    np.testing.assert_array_equal(kept, minutes[::every])
    for name in windows.RIDE_COLUMNS:
        np.testing.assert_array_equal(getattr(some, name), getattr(rides, name)[::every])
