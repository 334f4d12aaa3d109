"""When the feedback has said enough about a challenger.

The test may be looked at after every batch of feedback: its error holds at any moment it is
stopped, also when the gain of one day resembles the gain of the day before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Effects as large as their own spread from day to day: where a week can tell, it does.
EFFECT_VARIANCE = 1.0
# One day's gain resembles the last one's: real green months showed a correlation of 0.2 to 0.6
# between neighbours. The belief before the test has seen any day, and the days it is worth.
USUAL_CORRELATION = 0.4
USUAL_CORRELATION_BLOCKS = 20


@dataclass(frozen=True)
class Outcome:
    """What the feedback says about a challenger so far.

    Args:
        verdict: `better`, `worse` or `undecided`.
        gain_min: minutes by which the challenger is nearer on average; low_min and high_min
            hold the true gain at every look with probability 1 - alpha.
        e_value: evidence against "no difference" where the verdict fell, else now.
        boundary: evidence at which the test is decided.
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

    Args:
        day: datetime64[D] of the pickups, shape (n,).
        champion_error, challenger_error: absolute minutes on the same rides, shape (n,).
        min_trips: a block has at least as many.
    """
    block, trips = _blocks(day, np.ones((1, len(day))), min_trips)
    gain = np.subtract(champion_error, challenger_error, dtype="float64")
    return _block_means(block, gain, len(trips)), trips


def split_gains(
    day: np.ndarray, error: np.ndarray, is_challenger: np.ndarray, min_trips: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for arms that answered different rides.

    Args:
        day: datetime64[D] of the pickups, shape (n,).
        error: absolute minutes of the model that answered, shape (n,).
        is_challenger: True where the challenger answered, shape (n,).
        min_trips: a block has at least as many in each arm.
    """
    arms = np.stack([~is_challenger, is_challenger])
    block, trips = _blocks(day, arms, min_trips)
    champion, challenger = (
        _block_means(np.where(arm, block, -1), error, len(trips)) for arm in arms
    )
    return champion - challenger, trips


def variance_inflation(gains: np.ndarray) -> np.ndarray:
    """Return, after each block, how much wider the mean is than if the blocks were independent.

    It is (1 + r) / (1 - r), the long-run variance of a first-order autoregression, at least 1.
    r is the blocks' own correlation with the block before, corrected for its bias in short
    series, and pulled to USUAL_CORRELATION as by USUAL_CORRELATION_BLOCKS earlier blocks.
    Source: Bayley and Hammersley (1946); Marriott and Pope (1954) for the bias.

    Args:
        gains: as for `e_values`.
    """
    n = np.arange(1, gains.shape[-1] + 1)
    total = np.cumsum(gains, axis=-1)
    mean = total / n
    products = np.zeros_like(mean)
    products[..., 1:] = np.cumsum(gains[..., 1:] * gains[..., :-1], axis=-1)
    neighbours = products - mean * (2 * total - gains[..., :1] - gains) + (n - 1) * mean**2
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.nan_to_num(neighbours / _spread(gains), nan=0.0, posinf=0.0, neginf=0.0)
    own = own + (1 + 3 * own) / n
    prior = USUAL_CORRELATION_BLOCKS
    r = np.clip((n * own + prior * USUAL_CORRELATION) / (n + prior), 0.0, 0.8)
    return (1 + r) / (1 - r)


def e_values(gains: np.ndarray) -> np.ndarray:
    """Return the evidence against "no difference" after each block, shape as the input.

    It is the Bayes factor of a t-test with effect sizes drawn from N(0, EFFECT_VARIANCE), t²
    being divided by `variance_inflation`. For independent normal blocks of whatever spread the
    factor without the division is a martingale that starts at 1, so it ever reaches 1 / alpha
    with a probability of at most alpha, however often one looks. Days are not independent; the
    division keeps that promise for the correlations met, which is simulated, not proved: see
    tests/test_ab_test.py.
    Source: Lai (1976); Wang and Ramdas, Anytime-valid t-tests (2024).

    Args:
        gains: minutes, the last axis runs over blocks; further axes are independent tests.
    """
    n = np.arange(1, gains.shape[-1] + 1)
    odds = 1.0 + n * EFFECT_VARIANCE
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.cumsum(gains, axis=-1) ** 2 / n / _spread(gains)  # t² / (n - 1)
    ratio = np.nan_to_num(ratio, nan=0.0, posinf=1e12) / variance_inflation(gains)
    logs = n / 2 * (np.log1p(ratio) - np.log1p(ratio / odds)) - np.log(odds) / 2
    return np.where(n > 1, np.exp(np.minimum(logs, 700.0)), 1.0)


def confidence_half_width(gains: np.ndarray, alpha: float) -> float:
    """Return how far (minutes) the mean gain may be off, at any look, with error alpha."""
    n = len(gains)
    odds = 1.0 + n * EFFECT_VARIANCE
    limit = (np.sqrt(odds) / alpha) ** (2 / n) if n else np.inf
    if n < 2 or limit >= odds:
        return float("inf")
    ratio = (limit - 1) / (1 - limit / odds)
    return float(np.sqrt(ratio * variance_inflation(gains)[-1] * np.var(gains)))


def judge(gains: np.ndarray, trips: np.ndarray, alpha: float, min_blocks: int) -> Outcome:
    """Return the verdict of the sequential test; once fallen it stays.

    Args:
        gains: minutes by block, in the order of time.
        trips: of each block.
        alpha: chance of a verdict when there is no difference.
        min_blocks: no verdict before, however clear the evidence.
    """
    evidence = e_values(gains) if len(gains) else np.ones(1)
    late_enough = np.arange(1, len(evidence) + 1) >= max(min_blocks, 2)
    crossed = np.flatnonzero((evidence >= 1 / alpha) & late_enough)
    verdict, at = "undecided", len(evidence) - 1
    if len(crossed):
        at = int(crossed[0])
        verdict = "better" if gains[: at + 1].mean() > 0 else "worse"
    gain = float(gains.mean()) if len(gains) else 0.0
    half = confidence_half_width(gains, alpha)
    return Outcome(
        verdict, gain, gain - half, gain + half, float(evidence[at]), 1 / alpha,
        len(gains), int(np.sum(trips)), at + 1 if len(crossed) else None,
    )  # fmt: skip


def _spread(gains: np.ndarray) -> np.ndarray:
    """Return the sum of squares around the mean after each block."""
    n = np.arange(1, gains.shape[-1] + 1)
    total, squares = np.cumsum(gains, axis=-1), np.cumsum(gains**2, axis=-1)
    return np.maximum(squares - total**2 / n, 0.0)


def _blocks(day: np.ndarray, arms: np.ndarray, min_trips: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each trip's block (-1: none) and the trips of each block.

    Args:
        arms: which arm a trip counts for, shape (arms, n).
    """
    days, position = np.unique(day, return_inverse=True)
    counts = np.stack([np.bincount(position, arm, len(days)) for arm in arms])
    block_of_day = np.full(len(days), -1)
    block, filled, start = 0, np.zeros(len(arms)), 0
    for i in range(len(days) - 1):  # the last day is not over
        filled = filled + counts[:, i]
        if (filled >= max(min_trips, 1)).all():
            block_of_day[start : i + 1] = block
            block, filled, start = block + 1, np.zeros(len(arms)), i + 1
    of_trip = block_of_day[position]
    return of_trip, np.bincount(of_trip[of_trip >= 0], minlength=block)


def _block_means(block: np.ndarray, values: np.ndarray, blocks: int) -> np.ndarray:
    inside = block >= 0
    total = np.bincount(block[inside], values[inside], blocks)
    return total / np.bincount(block[inside], minlength=blocks)
