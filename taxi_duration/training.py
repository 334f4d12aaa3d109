"""Fits a model of any kind: point answers, intervals calibrated on the window's end, support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from taxi_duration.baselines import pair_counts
from taxi_duration.linear import fit_linear, pair_code
from taxi_duration.rides import Answers, Rides


@dataclass(frozen=True)
class DurationModel:
    kind: str
    point: Any
    quant: Any
    counts: np.ndarray
    parameters: dict

    def answer(self, rides: Rides) -> Answers:
        d = self.point.predict_minutes(rides)
        q = self.quant
        return Answers(
            d,
            d + q[0],
            d + q[1],
            d + q[2],
            self.counts[pair_code(rides.PULocationID, rides.DOLocationID)],
            self.point.uses_distance(rides),
        )


def fit_model(kind: str, rides: Rides, duration: np.ndarray) -> DurationModel:
    from sklearn.linear_model import Lasso, LinearRegression, Ridge

    est = {"LR": LinearRegression(), "LASSO": Lasso(0.01), "RIDGE": Ridge(1.0)}.get(
        kind, Ridge(2.0)
    )
    point = fit_linear(est, rides, duration)
    r = duration - point.predict_minutes(rides)
    return DurationModel(
        kind, point, np.quantile(r, [0.1, 0.5, 0.9]).astype("float32"), pair_counts(rides), {"a": 1}
    )
