"""Confidence intervals that know that the rides of one day share its weather and traffic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A figure over rides and its confidence interval."""

    value: float
    low: float
    high: float


class DayBootstrap:
    """Confidence intervals of means over rides, drawing whole days.

    With few days the plain percentile interval is too narrow; its ends are moved out as a
    t-interval's would be (the expanded percentile interval of Hesterberg 2015).
    """

    def __init__(
        self,
        pickup_at: np.ndarray,
        confidence: float = 0.95,
        resamples: int = 1000,
        block: str = "D",
        seed: int = 0,
    ) -> None:
        """Draw blocks of rides.

        Args:
            pickup_at: of each ride, shape (n,).
            confidence: of the intervals, 0 to 1.
            resamples: draws.
            block: `D` for days, `h` for hours where there are too few days to draw.
            seed: of the draws.
        """
        from scipy import stats

        days, self._day = np.unique(pickup_at.astype(f"datetime64[{block}]"), return_inverse=True)
        self.count = n = len(days)
        self._rides = np.bincount(self._day, minlength=n)
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        self._draws = draws.astype("float64")
        tail = (1 - confidence) / 2
        self._tail = (
            float(stats.norm.cdf(stats.t.ppf(tail, n - 1) * np.sqrt(n / (n - 1)))) if n > 1 else 0.0
        )

    def mean(self, values: np.ndarray) -> Estimate:
        """Estimate the mean of a value per ride, shape (n,)."""
        return self.ratio(values, None)

    def ratio(self, values: np.ndarray, weights: np.ndarray | None) -> Estimate:
        """Estimate sum(values) / sum(weights), both per ride; weights of 1 when None."""
        size = self.count
        sums = np.bincount(self._day, values, size)
        of = self._rides if weights is None else np.bincount(self._day, weights, size)
        below = self._draws @ of
        drawn = (self._draws @ sums)[below > 0] / below[below > 0]
        low, high = np.quantile(drawn, [self._tail, 1 - self._tail])
        return Estimate(float(sums.sum() / of.sum()), float(low), float(high))

    def rmse(self, errors: np.ndarray, weights: np.ndarray | None = None) -> Estimate:
        """Estimate the root of the mean squared error, where weights (0 or 1) count."""
        squares = errors.astype("float64") ** 2
        kept = squares if weights is None else squares * weights
        return Estimate(*np.sqrt(self.ratio(kept, weights)))
