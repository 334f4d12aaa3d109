"""The plots of notebook 05: each takes what the monitor found and returns a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxi_duration.plots import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from taxi_duration.domain.findings import Drift

COLORS = {"ok": BLUE, "watch": "#d69e2e", "alarm": "#c53030"}


def _figure(columns: int = 1, size: tuple[float, float] = (10, 4)):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained")
    plt.close(figure)  # the caller shows it; an open figure would be shown twice
    return figure, axes


def plot_errors(errors: pd.DataFrame) -> Figure:
    """MAE (minutes) and coverage by group, with 95 % intervals over days.

    Args:
        errors: as `monitor.live_errors`; an empty one gives a figure that says so.
    """
    figure, (left, right) = _figure(2, (12, 0.4 * max(len(errors), 3) + 1.5))
    if errors.empty:
        for axes in (left, right):
            axes.text(0.5, 0.5, "no ride has its true duration yet", ha="center")
            axes.axis("off")
        return figure
    place = np.arange(len(errors))[::-1]
    labels = [f"{row.by}: {row.group} ({row.rows:,})" for row in errors.itertuples()]
    for axes, name, scale in ((left, "mae", 1), (right, "coverage", 100)):
        value = errors[name] * scale
        spread = [value - errors[f"{name}_low"] * scale, errors[f"{name}_high"] * scale - value]
        axes.errorbar(value, place, xerr=np.maximum(spread, 0), fmt="o", color=BLUE, capsize=3)
        axes.set_yticks(place, labels if axes is left else [])
        axes.grid(alpha=0.3)
    right.axvspan(78, 82, color=ORANGE, alpha=0.2)
    left.set(title="Error, 95 % over days (rides)", xlabel="MAE, minutes")
    right.set(title="Rides inside P10-P90 (band: 78 to 82 %)", xlabel="coverage, %")
    return figure


def plot_days(answered: pd.DataFrame) -> Figure:
    """MAE and bias (minutes) of each pickup day.

    Args:
        answered: rides as `monitor.log_frame`, those without a truth are left out.
    """
    figure, axes = _figure(size=(11, 3.6))
    known = answered[answered["true_duration"].notna()] if len(answered) else answered
    if not len(known):
        axes.text(0.5, 0.5, "no ride has its true duration yet", ha="center")
        axes.axis("off")
        return figure
    error = known["duration"] - known["true_duration"]
    by_day = error.groupby(known["pickup_at"].dt.floor("D"))
    axes.plot(by_day.apply(lambda e: e.abs().mean()), color=BLUE, marker="o", label="MAE")
    axes.plot(by_day.mean(), color=ORANGE, marker=".", label="bias (answered - actual)")
    axes.axhline(0, color=GREY)
    axes.set(title="Error by day of pickup", xlabel="day", ylabel="minutes")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def plot_drift(drifts: list[Drift]) -> Figure:
    """Each measure as a share of its alarm bound: all units on one scale."""
    figure, axes = _figure(size=(10, 0.32 * max(len(drifts), 3) + 1.3))
    if not drifts:
        axes.text(0.5, 0.5, "too few rides to measure drift", ha="center")
        axes.axis("off")
        return figure
    place = np.arange(len(drifts))[::-1]
    share = [min(drift.value / drift.alarm, 3.0) for drift in drifts]
    axes.barh(place, share, color=[COLORS[drift.level] for drift in drifts])
    axes.scatter([d.watch / d.alarm for d in drifts], place, color=GREY, marker="|", s=120)
    axes.axvline(1, color=COLORS["alarm"])
    names = [f"{d.feature} {d.measure}: {d.value:.3g} {d.unit}".rstrip() for d in drifts]
    axes.set_yticks(place, names)
    axes.set(
        title="Drift from the training months (line: alarm, tick: watch; cut at 3)",
        xlabel="share of the alarm bound",
    )
    return figure
