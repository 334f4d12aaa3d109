"""The error before the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.error_estimate import ErrorEstimator, _known_of, learn_errors

OWN = (0.0, 0.0)  # no error of its own: what is left is chance


def answered(n=6000, wide=0.5, seed=0):
    """Rides of which a share has intervals and errors three times as wide; 80 % lie inside."""
    rng = np.random.default_rng(seed)
    half = np.where(rng.random(n) < wide, 6.0, 2.0)
    predicted = rng.gamma(4, 4.0, n) + 8
    return pd.DataFrame(
        {
            "PULocationID": rng.choice([74, 75, 41], n),
            "DOLocationID": rng.choice([42, 166, 138], n),
            "pickup_at": np.datetime64("2021-03-01T00:00:00")
            + rng.integers(0, 28 * 86_400, n).astype("m8[s]"),
            "trip_distance": np.float32(2.0),
            "duration": predicted,
            "p10": predicted - half,
            "p90": predicted + half,
            "support": 50,
            "used_distance": True,
            "true_duration": predicted + rng.normal(0, 1, n) * half / 1.2816,
        }
    )


def learned(frame):
    error = (frame["duration"] - frame["true_duration"]).abs().to_numpy()
    inside = frame["true_duration"].between(frame["p10"], frame["p90"]).to_numpy("float64")
    return ErrorEstimator(_known_of(Rides.from_frame(frame), frame), error, inside)


@pytest.mark.parametrize("wide", [0.1, 0.5, 0.9])
def test_another_mix_of_rides_is_foretold(wide):
    """Learned on half wide and half narrow intervals, asked about another mix."""
    estimator, now = learned(answered()), answered(seed=1, wide=wide)
    found = estimator.estimate(now.drop(columns="true_duration"), *OWN)
    true = (now["duration"] - now["true_duration"]).abs().mean()
    assert found.rides == len(now)
    assert found.mae == pytest.approx(true, rel=0.05)
    assert found.mae_low <= true <= found.mae_high
    assert found.coverage == pytest.approx(0.8, abs=0.02)


def test_no_rides_have_no_estimate():
    assert learned(answered()).estimate(answered()[:0], *OWN) is None


def test_few_rides_and_its_own_error_widen_the_bounds():
    estimator = learned(answered())
    few, many = (estimator.estimate(answered(n=n, seed=2), *OWN) for n in (25, 2500))
    assert few.mae_high - few.mae == pytest.approx(few.mae * 2 / 5)
    assert many.mae_high - many.mae == pytest.approx(many.mae * 2 / 50)
    own = estimator.estimate(answered(n=2500, seed=2), 0.3, 0.2)
    assert own.mae_high - own.mae == pytest.approx(own.mae * np.hypot(0.3, 2 / 50))
    spread = 2 * np.sqrt(own.coverage * (1 - own.coverage) / 2500)
    assert own.coverage - own.coverage_low == pytest.approx(np.hypot(0.2, spread))
    assert own.coverage_high == 1.0


def test_errors_are_learned_with_and_without_a_distance(sample_months, fitted):
    _, unseen = sample_months
    rides, actual = Rides.from_frame(unseen), unseen["duration"].to_numpy()
    model = fitted("LR")
    estimator = learn_errors(model, rides, actual)
    assert len(estimator.error) == 2 * len(unseen)
    mae = {}
    for name, asked in (("given", rides), ("none", rides.without_distance())):
        answers = model.answer(asked)
        columns = ("duration", "p10", "p90", "support", "used_distance")
        frame = unseen.assign(
            trip_distance=asked.trip_distance, **{c: getattr(answers, c) for c in columns}
        )
        found = estimator.estimate(frame, *OWN)
        mae[name] = float(np.abs(answers.duration - actual).mean())
        inside = ((actual >= answers.p10) & (actual <= answers.p90)).mean()
        assert found.mae == pytest.approx(mae[name], rel=0.05)
        assert found.coverage == pytest.approx(inside, abs=0.03)
    assert mae["none"] > mae["given"]
