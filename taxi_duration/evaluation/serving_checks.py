"""What only real serving shows of a challenger: its share of rides, its failures, its latency.

Each check takes counts and a bound; it fails only when the figure is beyond its bound by more
than chance explains, and passes only when the figure itself is within.
"""

from __future__ import annotations

from math import erfc, inf, sqrt
from typing import NamedTuple

import numpy as np

# Standard errors of the interval that must lie beyond a bound: a check is made at every turn,
# and at three a good challenger is failed by chance in 1 of 700 looks.
STANDARD_ERRORS = 3.0
QUANTILES = {"median": 0.5, "P95": 0.95}


class Finding(NamedTuple):
    """What a check found; `passed` is None while that is not known."""

    name: str
    passed: bool | None
    text: str


def check_split(challenger: int, rides: int, share: float, min_p: float) -> Finding:
    """Hold the rides that met the challenger against the planned share, by a chi-square test.

    Args:
        challenger: rides that it was asked to answer.
        rides: of both arms, each once.
        share: planned for the challenger, 0 to 1.
        min_p: of the test; below it the split is not the planned one.
    """
    variance = rides * share * (1 - share)
    off = abs(challenger - rides * share)
    chi_square = off**2 / variance if variance else inf if off else 0.0
    p = erfc(sqrt(chi_square / 2))
    text = f"{_share(challenger, rides)} met the challenger, planned are {share:.0%} (p {p:.2g})"
    return Finding("split", p >= min_p, text)


def check_failures(failed: int, rides: int, most: float) -> Finding:
    """Hold the share of rides that the challenger failed at against the largest allowed."""
    low, _ = _interval(failed, rides)
    text = f"it failed at {_share(failed, rides)}, allowed are {most:.1%}"
    return Finding("failures", _within(failed <= most * rides, low > most), text)


def check_answers(both: int, rides: int, least: float) -> Finding:
    """Hold the share of rides that both versions answered against the smallest allowed."""
    _, high = _interval(both, rides)
    text = f"both answered {_share(both, rides)}, needed are {least:.0%}"
    return Finding("answers", _within(both >= least * rides, high < least), text)


def check_latency(
    champion_ms: np.ndarray, challenger_ms: np.ndarray, ratio: float, free_ms: float
) -> Finding:
    """Hold the challenger's median and P95 against the champion's.

    Args:
        champion_ms, challenger_ms: milliseconds of the rides that each answered, shapes (n,), (m,).
        ratio: how many times the champion's are allowed.
        free_ms: that are allowed whatever the champion's are.
    """
    within, beyond, parts = True, False, []
    for name, q in QUANTILES.items():
        most = max(ratio * float(np.quantile(champion_ms, q)), free_ms)
        value = float(np.quantile(challenger_ms, q))
        # A quantile's place in the order is known to sqrt(q (1 - q) / n).
        low_q = max(q - STANDARD_ERRORS * sqrt(q * (1 - q) / len(challenger_ms)), 0.0)
        within &= value <= most
        beyond |= float(np.quantile(challenger_ms, low_q)) > most
        parts.append(f"{name} {value:.2f} ms (allowed {most:.2f})")
    return Finding("latency", _within(within, beyond), f"it takes {', '.join(parts)}")


def _within(within: bool, beyond: bool) -> bool | None:
    return True if within else False if beyond else None


def _interval(count: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share."""
    p, z2 = count / n, STANDARD_ERRORS**2
    half = STANDARD_ERRORS * sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    low, high = ((p + z2 / (2 * n) + side * half) / (1 + z2 / n) for side in (-1, 1))
    return low, high


def _share(count: int, n: int) -> str:
    return f"{count:,} of {n:,} rides ({count / n:.1%})"
