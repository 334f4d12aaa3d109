"""The plots of notebook 05: each takes what the monitor found and returns a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxi_duration.evaluation.health import scored
from taxi_duration.plots.look import (
    BLUE,
    GREY,
    LEVEL_COLORS,
    ORANGE,
    RED,
    new_figure,
    write_instead,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from taxi_duration.evaluation.drift import Drift

NO_TRUTH = "no ride has its true duration yet"
SHOWN_BOUNDS = 3.0  # a measure further beyond its alarm bound would squeeze the others


def plot_errors(errors: pd.DataFrame, about: str = "") -> Figure:
    """MAE (minutes) and coverage by group, with 95 % intervals over days.

    Args:
        errors: as `health.live_errors`; an empty one gives a figure that says so.
    """
    size = (12, 0.4 * max(len(errors), 3) + 1.8)
    figure, (left, right) = new_figure(1, 2, size=size, about=about)
    left.set_title("Error by group (rides)")
    right.set_title("Rides inside P10-P90")
    if errors.empty:
        write_instead(left, NO_TRUTH)
        write_instead(right, NO_TRUTH)
        return figure
    place = np.arange(len(errors))[::-1]
    labels = [f"{row.by}: {row.group} ({row.rows:,})" for row in errors.itertuples()]
    for axes, name, scale in ((left, "mae", 1), (right, "coverage", 100)):
        value = errors[name] * scale
        spread = [value - errors[f"{name}_low"] * scale, errors[f"{name}_high"] * scale - value]
        axes.errorbar(
            value, place, xerr=np.maximum(spread, 0), fmt="o", color=BLUE, capsize=3,
            label="95 % over days",
        )  # fmt: skip
        axes.set_yticks(place, labels if axes is left else [])
        axes.set_ylim(-0.6, len(errors) - 0.4)
    right.axvspan(78, 82, color=ORANGE, alpha=0.2, label="wanted: 78 to 82 %")
    left.set(xlabel="MAE, minutes")
    right.set(xlabel="coverage, %")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def plot_days(answered: pd.DataFrame, about: str = "") -> Figure:
    """MAE and bias (minutes) of each pickup day.

    Args:
        answered: rides as `monitor.log_frame`, those without a scored truth are left out.
    """
    figure, axes = new_figure(size=(11, 3.8), about=about)
    axes.set_title("Error by day of pickup")
    known = scored(answered)
    if not len(known):
        write_instead(axes, NO_TRUTH)
        return figure
    error = known["duration"] - known["true_duration"]
    by_day = error.groupby(known["pickup_at"].dt.floor("D"))
    axes.plot(by_day.apply(lambda e: e.abs().mean()), color=BLUE, marker="o", label="MAE")
    axes.plot(by_day.mean(), color=ORANGE, marker=".", label="bias (answered - actual)")
    axes.axhline(0, color=GREY)
    axes.set(xlabel="day of pickup", ylabel="minutes")
    axes.tick_params(axis="x", rotation=30)
    axes.legend()
    return figure


def plot_drift(drifts: list[Drift], about: str = "") -> Figure:
    """Each measure as a share of its alarm bound: all units on one scale."""
    figure, axes = new_figure(size=(11, 0.32 * max(len(drifts), 3) + 1.8), about=about)
    axes.set_title("Drift from the training months")
    if not drifts:
        write_instead(axes, "too few rides to measure drift")
        return figure
    place = np.arange(len(drifts))[::-1]
    for level, color in LEVEL_COLORS.items():
        those = [(at, d) for at, d in zip(place, drifts, strict=True) if d.level == level]
        share = [min(d.value / d.alarm, SHOWN_BOUNDS) for _, d in those]
        if those:  # a key without bars would have no colour
            axes.barh([at for at, _ in those], share, color=color, label=level)
    axes.scatter(
        [d.watch / d.alarm for d in drifts], place, color="black", marker="|", s=120,
        label="watch bound",
    )  # fmt: skip
    axes.axvline(1, color=RED, label="alarm bound")
    names = [f"{d.feature} {d.measure}: {d.value:.3g} {d.unit}".rstrip() for d in drifts]
    axes.set_yticks(place, names)
    axes.set(xlabel=f"share of the alarm bound (cut at {SHOWN_BOUNDS:g})")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
