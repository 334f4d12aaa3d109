"""Selective feedback: do the rides whose truth came in stand for all rides that were answered?

An error over the short rides, or over those who complain, is not the riders' error.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from taxi_duration.domain.findings import Reason, level_of
from taxi_duration.domain.limits import LONGEST_MINUTES
from taxi_duration.domain.pickup_calendar import hours_of_day
from taxi_duration.domain.zones import zone_table
from taxi_duration.evaluation.drift import psi, psi_chance

MIN_RIDES = 200  # with a truth; fewer differ from all rides by chance as much as by choice
HOURS = 3  # of the day in one bin: nights have too few rides for one an hour
# Share of true durations within a tenth of the answer: 20 to 30 % when all rides have feedback, a
# few when the answers are wrong, none when only badly answered riders send feedback.
NEAR, FEWEST_NEAR = 0.1, 0.02
TENTHS = np.linspace(0, 1, 11)[1:-1]


def judge_selection(
    frame: pd.DataFrame, has_truth: np.ndarray, watch: float, alarm: float
) -> list[Reason]:
    """Hold the rides with a truth against all rides, by predicted minutes, borough and hour.

    Args:
        frame: answered rides as `log_frame`, shape (n, k).
        has_truth: True where a true duration came, whatever it says, shape (n,).
        watch, alarm: bounds of the PSI, beyond what chance may give.
    """
    if np.count_nonzero(has_truth) < MIN_RIDES:
        return []
    pickup_at = frame["pickup_at"].to_numpy()
    # A ride that began later may still be under way, and the longer it is the more likely.
    over = pickup_at <= pickup_at[has_truth].max() - np.timedelta64(int(LONGEST_MINUTES), "m")
    frame, has_truth = frame[over], has_truth[over]
    n, m = len(frame), int(np.count_nonzero(has_truth))
    if m < MIN_RIDES or m == n:
        return []
    found = _only_complaints(frame[has_truth])
    for name, bins in _bins(frame):
        counts = np.bincount(bins), np.bincount(bins[has_truth], minlength=bins.max() + 1)
        value = psi(*counts, subset=True)
        near = value - psi_chance(len(counts[0]), n, m, subset=True)
        level = level_of(near, watch, alarm)
        if level != "ok":
            found.append(Reason("selection", level, _in_words(name, value, frame, has_truth)))
    return found


def _only_complaints(with_truth: pd.DataFrame) -> list[Reason]:
    """Whether there is hardly any feedback on rides that were answered well."""
    share = float((with_truth["true_duration"] / with_truth["duration"] - 1).abs().le(NEAR).mean())
    if share >= FEWEST_NEAR:
        return []
    text = (
        f"{share:.1%} of the true durations are within {NEAR:.0%} of the answer: only rides that "
        "were answered badly seem to have feedback. Errors are those of the rides with feedback"
    )
    return [Reason("selection", "watch", text)]


def _bins(frame: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Each ride's bin, by what is binned; no bin is empty."""
    minutes = frame["duration"].to_numpy()
    yield "predicted minutes", _coded(np.searchsorted(np.quantile(minutes, TENTHS), minutes))
    yield "borough", _coded(zone_table().borough[frame["PULocationID"].to_numpy()])
    hour = hours_of_day(frame["pickup_at"].to_numpy())
    yield "hour", _coded(hour // HOURS)


def _coded(values: np.ndarray) -> np.ndarray:
    codes: np.ndarray = np.unique(values, return_inverse=True)[1]
    return codes


def _in_words(name: str, value: float, frame: pd.DataFrame, has_truth: np.ndarray) -> str:
    mean = float(frame["duration"].mean()), float(frame["duration"][has_truth].mean())
    return (
        f"feedback came for {has_truth.mean():.0%} of the rides, and not for the same ones: "
        f"by {name} they differ by a PSI of {value:.2g}; {mean[1]:.1f} min were predicted for "
        f"them, {mean[0]:.1f} for all. Errors are those of the rides with feedback"
    )
