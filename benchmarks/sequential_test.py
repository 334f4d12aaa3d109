"""How often the sequential test is wrong, and how soon it is right: simulated, 20,000 times each.

Prints two Markdown tables: the share of tests between two equal models that end in `better` or
`worse` when they are looked at after every day, and the power at true gains.

    python benchmarks/sequential_test.py            # both tables of docs/loop.md, minutes
    python benchmarks/sequential_test.py --series 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np

from taxi_duration.evaluation.sequential_test import evidence

DAYS = 60  # max_test_days
MIN_BLOCKS = 7  # shadow_blocks
ALPHA = 0.05
CHUNK = 2_000  # series at a time: what fits into a small memory
WARM_UP = 30  # days before the first one, so that sums of shocks are as spread on day 1 as later
RIDE_ERROR_SHAPE = 3.4  # minutes; absolute errors of a ride are about exponential, mean 3.4
Make = Callable[[np.random.Generator, int], np.ndarray]


def correlated(shocks: np.ndarray, r: float) -> np.ndarray:
    """Return days of which each resembles the one before with correlation r; shape as shocks."""
    days = shocks.copy()
    for day in range(1, shocks.shape[1]):
        days[:, day] = r * days[:, day - 1] + (1 - r**2) ** 0.5 * shocks[:, day]
    return days


def normal(r: float = 0.0, days: int = DAYS) -> Make:
    return lambda rng, series: correlated(rng.standard_normal((series, days)), r)


def heavy_tailed(r: float = 0.0) -> Make:
    """Student's t with 3 degrees of freedom."""

    def make(rng: np.random.Generator, series: int) -> np.ndarray:
        return correlated(rng.standard_t(3, (series, WARM_UP + DAYS)), r)[:, WARM_UP:]

    return make


def lognormal(sigma: float, sign: int, r: float = 0.0) -> Make:
    """sign -1: most days a little better, few much worse. r is the correlation of the days."""
    inner = np.log1p(r * np.expm1(sigma**2)) / sigma**2  # of their logarithms

    def make(rng: np.random.Generator, series: int) -> np.ndarray:
        return sign * (np.exp(sigma * normal(inner)(rng, series)) - np.exp(sigma**2 / 2))

    return make


def wandering(step: float) -> Make:
    """Independent days around a random walk from 0; the step in spreads of a day."""

    def make(rng: np.random.Generator, series: int) -> np.ndarray:
        steps, days = step * rng.standard_normal((series, DAYS)), normal()(rng, series)
        return days + np.cumsum(steps, axis=1)

    return make


def weekends(spread: float, shift: float) -> Make:
    """Two days of the week of another spread, and of a mean that the other five make up for."""
    weekend = np.arange(DAYS) % 7 < 2
    mean = np.where(weekend, -shift, shift * 2 / 5)
    return lambda rng, series: normal()(rng, series) * np.where(weekend, spread, 1.0) + mean


def paired(rides: int, ride_spread: float, day_spread: float, r: float) -> Make:
    """Mean gains of a day's rides: heavy-tailed rides under a shared day, minutes."""

    def make(rng: np.random.Generator, series: int) -> np.ndarray:
        count = np.maximum(rng.poisson(rides, (series, DAYS)), 1)
        # a mixture of two spreads has the tails of real pairs: kurtosis 7
        wild = rng.binomial(count, 0.1)
        spread = ride_spread / 1.7**0.5 * ((count - wild) + 8 * wild) ** 0.5 / count
        day = day_spread * normal(r)(rng, series)
        return day + spread * rng.standard_normal((series, DAYS))

    return make


def split(rides: int, share: float, min_trips: int = 20) -> Make:
    """Blocks of two arms on different rides; NaN after the last full block."""

    def make(rng: np.random.Generator, series: int) -> np.ndarray:
        total = rng.poisson(rides, (series, DAYS))
        ours = rng.binomial(total, share)
        gains, block = np.full((series, DAYS), np.nan), np.zeros(series, dtype=int)
        trips = np.zeros((2, series))
        for day in range(DAYS):
            trips += np.stack([total[:, day] - ours[:, day], ours[:, day]])
            full = np.flatnonzero((trips >= min_trips).all(axis=0))
            champion, challenger = rng.gamma(trips[:, full]) * RIDE_ERROR_SHAPE / trips[:, full]
            gains[full, block[full]] = champion - challenger
            trips[:, full] = 0
            block[full] += 1
        return gains

    return make


# The test's promise: each of these ends in `better` at most one time in 20, and in `worse`.
PROMISED: dict[str, Make] = {
    **{f"normal days, lag-1 {r:g}": normal(r) for r in (0.0, 0.2, 0.4, 0.6)},
    **{f"t with 3 degrees, lag-1 {r:g}": heavy_tailed(r) for r in (0.0, 0.4, 0.6)},
    **{
        f"lognormal, sigma {sigma:g}, long tail {'up' if sign > 0 else 'down'}": lognormal(
            sigma, sign
        )
        for sigma in (0.5, 1.0)
        for sign in (1, -1)
    },
    "lognormal, sigma 0.5, long tail down, lag-1 0.4": lognormal(0.5, -1, 0.4),
    **{f"random walk, step {step:g} of a day's spread": wandering(step) for step in (0.02, 0.1)},
    "weekends three times as spread": weekends(3.0, 0.0),
    "weekends go the other way": weekends(1.0, 1.5),
    **{f"pairs, {n} rides a day, lag-1 0.4": paired(n, 0.6, 0.05, 0.4) for n in (20, 300)},
    **{
        f"split, {share:.0%} of {n} rides a day": split(n, share)
        for n in (20, 300)
        for share in (0.05, 0.2)
    },
}
# Harder than promised; to know what happens there.
BEYOND: dict[str, Make] = {
    "lognormal, sigma 0.5, long tail down, lag-1 0.6": lognormal(0.5, -1, 0.6),
    **{
        f"lognormal, sigma 1, long tail down, lag-1 {r:g}": lognormal(1.0, -1, r)
        for r in (0.2, 0.4, 0.6)
    },
    "random walk, step 0.2 of a day's spread": wandering(0.2),
    "normal days, lag-1 0.8": normal(0.8),
}
# Between two trained models: spread of a ride's gain, of a day's shared part, lag-1, minutes.
PAIRS = {"like models": (0.6, 0.05, 0.4), "models of different months": (1.4, 0.12, 0.4)}


def verdicts(gains: np.ndarray, min_blocks: int = MIN_BLOCKS) -> tuple[np.ndarray, np.ndarray]:
    """Return the block at which each test said `better`, and `worse`; infinite when never.

    Args:
        gains: minutes, shape (tests, blocks); NaN where a test has no further block.
    """
    better, worse = evidence(np.nan_to_num(gains))
    block = np.arange(1, gains.shape[1] + 1.0)
    open_to_look = (block >= min_blocks) & np.isfinite(gains)
    first = [
        np.where(open_to_look & (said >= 1 / ALPHA), block, np.inf).min(axis=1)
        for said in (better, worse)
    ]
    up, down = first
    return np.where(up < down, up, np.inf), np.where(down < up, down, np.inf)


def simulate(make: Make, series: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the verdicts of that many tests, their seed always the same."""
    rng, parts = np.random.default_rng(14), []
    while sum(len(up) for up, _ in parts) < series:
        parts.append(verdicts(make(rng, min(CHUNK, series)) + gain))
    return np.concatenate([up for up, _ in parts]), np.concatenate([down for _, down in parts])


def false_verdicts(series: int) -> Iterator[str]:
    """Tell the shares of false verdicts within 60 days."""
    yield "| days of two equal models | `better` | `worse` |\n| --- | --- | --- |"
    for part, cases in (("", PROMISED), ("beyond the promise: ", BEYOND)):
        for name, make in cases.items():
            up, down = (np.isfinite(first).mean() for first in simulate(make, series))
            yield f"| {part}{name} | {up:.1%} | {down:.1%} |"


def power(series: int) -> Iterator[str]:
    """Tell how many tests of a better challenger say so within 28 days, and after how many."""
    yield "| models | rides a day | true gain, min | `better` in 28 days | median days |"
    yield "| --- | --- | --- | --- | --- |"
    for models, (ride, day, r) in PAIRS.items():
        for rides in (300, 700, 2_700):
            for gain in (0.05, 0.1, 0.2, 0.5):
                up, _ = simulate(paired(rides, ride, day, r), series, gain)
                median = np.median(up)
                days = f"{median:.0f}" if np.isfinite(median) else "more than 60"
                yield f"| {models} | {rides:,} | {gain:g} | {(up <= 28).mean():.0%} | {days} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=20_000, help="tests of each case")
    series = parser.parse_args().series
    for table in (false_verdicts, power):
        for line in table(series):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
