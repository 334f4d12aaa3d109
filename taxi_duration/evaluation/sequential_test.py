"""When the feedback has said enough about a challenger.

The test may be looked at after every batch of feedback: its error holds at any moment it is
stopped, also when the gain of one day resembles the gain of the day before, when days are
skewed, and when the gain wanders slowly. It is a likelihood-ratio test; that its boundary
holds is simulated, not proved: see benchmarks/sequential_test.py and docs/loop.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Correlations between neighbouring days that the test must stand. Pairs of models on real green
# months showed -0.1 to 0.6. A few days cannot tell 0.6 from 0.7: without 0.7 in the list, days
# correlated by 0.6 are called better in 6 %.
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.7)
# Or the gain wanders: independent days around a random walk, its daily step in spreads of a day.
# A walk of 0.1 over 60 days is called better in 4 %; with 0.05 here in 8 %. With 0.1 here a gain
# of one spread would be found within 28 days in 71 instead of 80 % of the tests.
WALK_STEP = 0.07
# Short series look less skewed than they are, for their extreme days have not come yet: what is
# seen counts so many times. Lognormal days (sigma 1) are called better in 3 %, with 1 in 9 %.
SKEW_WEIGHT = 5.0
# Beyond this mean / scale the correction shrinks t by one factor: a gain of 5 spreads of a day is
# found within 8 days in 86 %, without the limit in 72 %.
SKEW_LIMIT = 0.7
# With few blocks the likelihood ratio says too much: its logarithm counts 1 / (1 + (4 / n)³).
EARLY_BLOCKS = 4
# Minutes up to which one ride counts, and the share of rides above which it is no accident. Of
# real pairs 1 to 2 rides in 10,000 were beyond, the largest 13 minutes; a narrower limit
# takes more of the gain than of its spread, see docs/loop.md.
MOST_RIDE_GAIN = 10.0
FREAK_SHARE = 0.001


@dataclass(frozen=True)
class Outcome:
    """What the feedback says about a challenger, where the verdict fell or else now.

    Args:
        verdict: `better`, `worse` or `undecided`.
        gain_min: minutes by which the challenger is nearer on average.
        low_min, high_min: each lies beyond the true gain, at any look, with a probability of
            at most alpha; the verdict is `better` when low_min is above 0, `worse` when
            high_min is below.
        e_value: evidence against "no difference", on a scale on which the test is decided at
            1 / alpha.
        boundary: 1 / alpha.
        blocks, trips: days that are over and trips on them, at the latest look.
        decided_at: block at which the verdict fell, None when it has not.
    """

    verdict: str
    gain_min: float
    low_min: float
    high_min: float
    e_value: float
    boundary: float
    blocks: int
    trips: int
    decided_at: int | None


def paired_gains(
    day: np.ndarray, champion_error: np.ndarray, challenger_error: np.ndarray, min_trips: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the challenger's mean gain (minutes) and the trips of each block of days, in order.

    The trips of one day share its weather and traffic, so a day, not a trip, is one
    observation. The last day may still grow and is left out; days with few trips are joined
    with the next.

    A ride counts MOST_RIDE_GAIN minutes at most, so that one freak does not hide weeks of
    evidence. A gain that lies in the rare ride would be hidden by that, and so would a loss:
    when more than FREAK_SHARE of the rides are beyond, every ride counts in full.

    Args:
        day: datetime64[D] of the pickups, shape (n,).
        champion_error, challenger_error: absolute minutes on the same rides, shape (n,).
        min_trips: a block has at least as many.
    """
    block, trips = _blocks(day, min_trips)
    gain = np.subtract(champion_error, challenger_error, dtype="float64")
    freaks = np.count_nonzero(np.abs(gain) > MOST_RIDE_GAIN)
    if freaks <= max(1, FREAK_SHARE * len(gain)):
        gain = np.clip(gain, -MOST_RIDE_GAIN, MOST_RIDE_GAIN)
    return _block_means(block, gain, len(trips)), trips


@dataclass(frozen=True)
class _Fits:
    """Each dependence fitted to the blocks so far, shape (dependences, ..., n) of each array.

    Args:
        mean: of the gain, minutes, by generalised least squares.
        scale: minutes; the root of the sum of squares around the mean over the precision.
        misfit: by how much the logarithm of the (restricted) likelihood is below the best's.
        skewness: of a mean of so dependent days, times the root of their number.
    """

    mean: np.ndarray
    scale: np.ndarray
    misfit: np.ndarray
    skewness: np.ndarray


def evidence(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the evidence that the gain is above 0, and that it is below, after each block.

    It is a likelihood ratio: of a constant gain with the dependence that fits the blocks best,
    against no gain with whichever dependence explains them best. t of every dependence is made
    smaller when the skewness speaks for the verdict: for small t by Hall's correction, for large
    t by one factor. The ratio's logarithm is divided by `_caution`, so that
    1 / alpha is the boundary at every look.
    Source: Hall (1992) for the skewness; Patterson and Thompson (1971) for the likelihood.

    Args:
        gains: minutes, the last axis runs over blocks; further axes are independent tests.
    """
    fits = _fit(gains)
    return _evidence(fits, 1), _evidence(fits, -1)


def confidence_bounds(gains: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest gain (minutes) not spoken against, after each block.

    Each is wrong at any look with a probability of at most alpha; infinite after one block.

    Args:
        gains: as for `evidence`, so are the shapes returned.
    """
    n = np.arange(1, gains.shape[-1] + 1)
    fits = _fit(gains)
    room = np.where(n > 1, np.log(1 / alpha) * _caution(len(n)) - fits.misfit, np.inf)
    t = np.sqrt(np.expm1(np.clip(2 * room / n, 0.0, 700.0)))
    low = np.where(room > 0, fits.mean - fits.scale * _uncorrected(t, fits.skewness), np.inf)
    high = np.where(room > 0, fits.mean + fits.scale * _uncorrected(t, -fits.skewness), -np.inf)
    return (
        np.where(n > 1, low.min(axis=0), -np.inf),
        np.where(n > 1, high.max(axis=0), np.inf),
    )


def judge(gains: np.ndarray, trips: np.ndarray, alpha: float, min_blocks: int) -> Outcome:
    """Return the verdict of the sequential test; once fallen it stays.

    Args:
        gains: minutes by block, in the order of time.
        trips: of each block.
        alpha: chance of `better` when there is no difference, and of `worse`.
        min_blocks: no verdict before, however clear the evidence.
    """
    better, worse = evidence(gains)
    strongest = np.maximum(better, worse)
    late_enough = np.arange(1, len(gains) + 1) >= max(min_blocks, 2)
    crossed = np.flatnonzero((strongest >= 1 / alpha) & late_enough)
    end = int(crossed[0]) + 1 if len(crossed) else len(gains)
    verdict = "undecided"
    if len(crossed):
        verdict = "better" if better[end - 1] > worse[end - 1] else "worse"
    gain, low, high, e_value = 0.0, -np.inf, np.inf, 1.0
    if end:
        lows, highs = confidence_bounds(gains[:end], alpha)
        gain, low, high = float(gains[:end].mean()), float(lows[-1]), float(highs[-1])
        e_value = float(strongest[end - 1])
    return Outcome(
        verdict, gain, low, high, e_value, 1 / alpha,
        len(gains), int(np.sum(trips)), end if len(crossed) else None,
    )  # fmt: skip


def _dependences(n: int) -> list[tuple[np.ndarray, float]]:
    """Return how n days may hang together, and how much more skewed that makes their mean.

    The first is a correlation matrix up to a factor, shape (n, n); the second belongs to a
    first-order autoregression.
    """
    position = np.arange(n)
    apart = np.abs(position[:, None] - position)
    walk = np.minimum(position[:, None], position) + 1
    alike = [(r ** apart.astype(float), (1 - r**3) / (1 - r**2) ** 1.5) for r in CORRELATIONS]
    return [*alike, (np.eye(n) + WALK_STEP**2 * walk, 1.0)]


def _fit(gains: np.ndarray) -> _Fits:
    n = np.arange(1, gains.shape[-1] + 1)
    skewness = _skewness(gains)
    means, scales, scores, skews = [], [], [], []
    for dependence, factor in _dependences(len(n)):
        root = np.linalg.cholesky(dependence)
        whiten = np.linalg.inv(root)  # lower triangular: later days change nothing before them
        days, ones = gains @ whiten.T, whiten.sum(axis=1)
        precision, squares = np.cumsum(ones**2), np.cumsum(days**2, axis=-1)
        mean = np.cumsum(days * ones, axis=-1) / precision
        rest = squares - precision * mean**2
        rest = np.maximum(rest, 1e-12 * squares + 1e-300)  # equal days: rounding is all there is
        log_volume = np.cumsum(np.log(np.diag(root))) + np.log(precision) / 2
        means.append(mean)
        scales.append(np.sqrt(rest / precision))
        scores.append(-(n - 1) / 2 * np.log(rest) - log_volume)
        skews.append(factor * skewness)
    misfit = np.max(scores, axis=0) - np.stack(scores)
    return _Fits(np.stack(means), np.stack(scales), misfit, np.stack(skews))


def _evidence(fits: _Fits, sign: int) -> np.ndarray:
    """Return the evidence for a gain above 0 (sign 1) or below (-1)."""
    n = np.arange(1, fits.mean.shape[-1] + 1)
    t = _corrected(np.maximum(sign * fits.mean / fits.scale, 0.0), sign * fits.skewness)
    logs = np.min(fits.misfit + n / 2 * np.log1p(t**2), axis=0) / _caution(len(n))
    return np.where(n > 1, np.exp(np.minimum(logs, 700.0)), 1.0)


def _caution(n: int) -> np.ndarray:
    """Return by how much the boundary is raised after each of n blocks."""
    return 1 + (EARLY_BLOCKS / np.arange(1, n + 1)) ** 3


def _skewness(gains: np.ndarray) -> np.ndarray:
    """Return the skewness of the blocks so far, shape as the input; 0 for equal blocks."""
    n = np.arange(1, gains.shape[-1] + 1)
    gains = gains - gains[..., :1]
    mean, square, cube = (np.cumsum(gains**power, axis=-1) / n for power in (1, 2, 3))
    variance = np.maximum(square - mean**2, 1e-12 * square + 1e-100)
    skewness: np.ndarray = (cube - 3 * mean * square + 2 * mean**3) / variance**1.5
    return skewness


def _against(skew: np.ndarray) -> np.ndarray:
    """Return how much skewness makes a mean above 0 look surer than it is; at least 0."""
    return np.maximum(-2 / 3 * SKEW_WEIGHT * skew, 0.0)


def _corrected(t: np.ndarray, skew: np.ndarray) -> np.ndarray:
    """Return mean / scale, at least 0, without what skewness may have added."""
    corrected: np.ndarray = t / np.sqrt(1 + _against(skew) * np.minimum(t, SKEW_LIMIT))
    return corrected


def _uncorrected(t: np.ndarray, skew: np.ndarray) -> np.ndarray:
    """Return what `_corrected` makes t of."""
    against = _against(skew)
    below = (against * t**2 + t * np.sqrt((against * t) ** 2 + 4)) / 2
    uncorrected: np.ndarray = np.minimum(below, t * np.sqrt(1 + against * SKEW_LIMIT))
    return uncorrected


def _blocks(day: np.ndarray, min_trips: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each trip's block (-1: none) and the trips of each block."""
    days, position, counts = np.unique(day, return_inverse=True, return_counts=True)
    block_of_day = np.full(len(days), -1)
    block, filled, start = 0, 0, 0
    for i in range(len(days) - 1):  # the last day is not over
        filled += counts[i]
        if filled >= max(min_trips, 1):
            block_of_day[start : i + 1] = block
            block, filled, start = block + 1, 0, i + 1
    of_trip = block_of_day[position]
    return of_trip, np.bincount(of_trip[of_trip >= 0], minlength=block)


def _block_means(block: np.ndarray, values: np.ndarray, blocks: int) -> np.ndarray:
    inside = block >= 0
    total = np.bincount(block[inside], values[inside], blocks)
    return total / np.bincount(block[inside], minlength=blocks)
