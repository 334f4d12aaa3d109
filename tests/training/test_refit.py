"""A judged model, fitted once more with the month that judged it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from taxi_duration.data.window import Window
from taxi_duration.evaluation.metrics import interval_metrics
from taxi_duration.model.duration_model import count_pairs
from taxi_duration.training.fit import fit_model
from taxi_duration.training.refit import refit_model, with_shown_intervals


@pytest.fixture
def months(sample_months):
    return [Window.from_frame(trips) for trips in (*sample_months, pd.concat(sample_months))]


def test_refit_answers_as_a_model_fitted_on_the_whole_window_does(months, fitted):
    _, unseen, both = months
    judged = fitted("LR")
    refit, whole = refit_model(judged, both, unseen), fit_model("LR", both)
    rides = unseen.whole().rides
    assert np.array_equal(refit.answer(rides).duration, whole.answer(rides).duration)
    assert not np.allclose(refit.answer(rides).duration, judged.answer(rides).duration)
    assert np.array_equal(refit.pair_trips, count_pairs(both.whole().rides))
    assert refit.kind == "LR"


@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_intervals_too_wide_or_too_narrow_hold_what_they_promise_afterwards(months, fitted, factor):
    """The streets get calmer or wilder: old intervals hold far more or less than 80 %."""
    rides, duration = months[1].whole()
    judged = fitted("LR")
    middle = judged.answer(rides).p50
    actual = np.clip(middle + factor * (duration - middle), 1, 60)
    asked = [rides, rides.without_distance()]
    before = [interval_metrics(actual, judged.answer(r))["coverage"] for r in asked]
    measured = with_shown_intervals(judged, judged, Window.of(rides, actual))
    after = [interval_metrics(actual, measured.answer(r))["coverage"] for r in asked]
    assert all(abs(share - 0.8) > 0.03 for share in before)
    assert after == pytest.approx([0.81, 0.81], abs=0.02)
    assert np.array_equal(measured.answer(rides).duration, judged.answer(rides).duration)


def test_groups_are_those_of_the_judged_model(months, fitted):
    """A pair that the judged model knew well must not count as unseen for its own errors."""
    judged = fitted("LR")
    nothing_seen = replace(judged, pair_trips=np.zeros_like(judged.pair_trips))
    one, other = (with_shown_intervals(judged, m, months[1]) for m in (judged, nothing_seen))
    assert any(
        len(a) != len(b) or not np.allclose(a, b)
        for a, b in zip(one.with_distance.ratios, other.with_distance.ratios, strict=True)
    )
