"""Confidence intervals that know that the rides of one day share its weather and traffic."""

from __future__ import annotations

from functools import lru_cache
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
        days, self._day = np.unique(pickup_at.astype(f"datetime64[{block}]"), return_inverse=True)
        self.count = n = len(days)
        self._rides = np.bincount(self._day, minlength=n)
        self._draws = _draw(n, resamples, seed)
        self._tail = _tail_of(n, confidence)

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


# A look at a log draws the same few numbers of days again and again; a month's draws are 250 kB.
@lru_cache(maxsize=32)
def _draw(n: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each of n blocks is drawn, shape (resamples, n); not to be changed."""
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = draws.astype("float64")
    drawn.flags.writeable = False
    return drawn


@lru_cache(maxsize=256)
def _tail_of(n: int, confidence: float) -> float:
    """Return the share of draws beyond each end of an interval over n blocks."""
    from scipy import stats

    if n < 2:
        return 0.0
    t = stats.t.ppf((1 - confidence) / 2, n - 1)
    return float(stats.norm.cdf(t * np.sqrt(n / (n - 1))))
