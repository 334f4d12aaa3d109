"""The error before the truth is known: what rides of the same kind were off by in validation.

Direct loss estimation, as NannyML does it: a small model learns the absolute error and whether
P10-P90 held the truth, from what is known of an answer without its truth. It sees other rides
than before; it does not see that the same rides take longer than before, only their truth does.
How near it came in past months stands in docs/loop.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration.domain.findings import ErrorEstimate
from taxi_duration.domain.pickup_calendar import read_clocks
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.intervals import kind_table

# Small on purpose: the interval says most, and 20,000 rides teach no more than this.
LEARNER = {"max_iter": 60, "max_leaf_nodes": 15, "min_samples_leaf": 100, "random_state": 0}


@dataclass(frozen=True)
class ErrorEstimator:
    """What was learned from rides that the model had not seen.

    Args:
        known: what is known of each answer without its truth, shape (n, 7).
        error: absolute minutes, shape (n,).
        inside: 1.0 where P10-P90 held the truth, shape (n,).
    """

    known: np.ndarray
    error: np.ndarray
    inside: np.ndarray

    @cached_property
    def _learned(self) -> tuple[Any, Any]:
        """Fitted on first use: most looks at a log need no estimate."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        error, inside = (
            HistGradientBoostingRegressor(**LEARNER).fit(self.known, target)
            for target in (self.error, self.inside)
        )
        return error, inside

    def expect(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return each ride's expected absolute error (minutes) and chance to lie in P10-P90.

        Args:
            frame: answered rides as `log_frame`, shape (n, k), n > 0.
        """
        error, inside = self._learned
        known = _known_of(Rides.from_frame(frame), frame)
        return np.maximum(error.predict(known), 0.0), np.clip(inside.predict(known), 0.0, 1.0)

    def estimate(
        self, frame: pd.DataFrame, mae_share: float, coverage: float
    ) -> ErrorEstimate | None:
        """Return what is expected over rides without a truth; None when there are none.

        Args:
            frame: as `expect`.
            mae_share, coverage: how far off the estimate was in past months, as a share of the
                MAE and in coverage; to it comes what chance does to few rides.
        """
        if not len(frame):
            return None
        errors, chances = self.expect(frame)
        mae, inside, n = float(errors.mean()), float(chances.mean()), len(frame)
        # Absolute errors spread about as much as they are large.
        off = mae * float(np.hypot(mae_share, 2 / np.sqrt(n)))
        wide = float(np.hypot(coverage, 2 * np.sqrt(inside * (1 - inside) / n)))
        return ErrorEstimate(
            n, mae, max(mae - off, 0.0), mae + off,
            inside, max(inside - wide, 0.0), min(inside + wide, 1.0),
        )  # fmt: skip


def learn_errors(model: DurationModel, rides: Rides, actual: np.ndarray) -> ErrorEstimator:
    """Return what a model's errors are on rides that it has not seen, with and without distance.

    Args:
        rides: shape (n,), n > 0; actual: minutes, shape (n,).
    """
    known, error, inside = [], [], []
    for asked in (rides, rides.without_distance()):
        answers = model.answer(asked)
        known.append(_known_of(asked, answers))
        error.append(np.abs(answers.duration - actual))
        inside.append((actual >= answers.p10) & (actual <= answers.p90))
    return ErrorEstimator(
        np.concatenate(known),
        np.concatenate(error).astype("float64"),
        np.concatenate(inside).astype("float64"),
    )


def _known_of(rides: Rides, answers: Answers | pd.DataFrame) -> np.ndarray:
    """Interval, answer, support and the ride's kind and hour, shape (n, 7)."""
    duration, p10, p90, support, used = (
        np.asarray(getattr(answers, name), dtype="float64")
        for name in ("duration", "p10", "p90", "support", "used_distance")
    )
    kind = kind_table()[rides.PULocationID, rides.DOLocationID]
    cell = read_clocks(rides.pickup_at)[1]
    return np.column_stack([p90 - p10, duration, support, used, kind, cell % 24, cell // 24])
