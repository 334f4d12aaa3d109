"""The plot of the backtest: what automatic retraining gains over a frozen model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxi_duration.files import atomic_path
from taxi_duration.plots.look import BLUE, GREEN, GREY, ORANGE, RED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from taxi_duration.loop.backtest import Backtest

STYLES = {
    "frozen": ("frozen", GREY, "o"), "monthly": ("monthly", ORANGE, "s"),
    "auto": ("auto", BLUE, "D"), "auto_traffic": ("auto with live traffic", GREEN, "^"),
}  # fmt: skip
ALARM_NAME_DAYS = pd.Timedelta(days=9)


def plot_backtest(result: Backtest, about: str = "") -> Figure:
    """Error by month for each strategy, with auto's decisions and the alarms marked."""
    table = result.table
    at = np.array([np.datetime64(str(month)) for month in table.index], dtype="datetime64[D]") + 14
    figure, axes = new_figure(size=(12, 5), about=about)
    for name, (label, color, marker) in STYLES.items():
        axes.plot(at, table[f"{name}_mae"], color=color, marker=marker, label=label, lw=2)
    errors = table[[f"{name}_mae" for name in STYLES]]
    top, bottom = float(errors.max(axis=None)), 0.8 * float(errors.min(axis=None))
    acts = ("promote", "refuse", "drop", "roll back")
    kept = result.decisions[result.decisions["what"].str.startswith(acts)]
    for i, decision in enumerate(kept.itertuples()):
        verb, _, version = decision.what.partition(" ")
        color = GREEN if verb == "promote" else GREY
        axes.axvline(decision.day, color=color, ls=":" if verb != "promote" else "--", lw=1)
        name = "back to" if verb == "roll" else verb
        label = f" {name} {version.rsplit(':', 1)[-1]}"
        height = top + (top - bottom) * (0.34 - 0.07 * (i % 4))  # names above each other
        axes.text(decision.day, height, label, fontsize=8, color=color)
    _mark_alarms(axes, result.alarms, last=at[-1] + 15)
    axes.set(
        title="Error of what riders were answered, by month", xlabel="month",
        ylabel="MAE, minutes", ylim=(bottom, top + 0.42 * (top - bottom)),
    )  # fmt: skip
    axes.legend(loc="lower left")
    return figure


def _mark_alarms(axes: Any, alarms: pd.DataFrame, last: np.datetime64) -> None:
    """Shade the days on which the live verdict was an alarm; the first day of each is named.

    One that begins within ALARM_NAME_DAYS of a named one has no room for a name of its own.
    """
    named = None
    ends = [*alarms["day"].iloc[1:], last][: len(alarms)]  # the verdict may never have changed
    for alarm, end in zip(alarms.itertuples(), ends, strict=True):
        if alarm.level == "alarm":
            axes.axvspan(alarm.day, end, color=RED, alpha=0.15, lw=0)
            if named is not None and alarm.day - named < ALARM_NAME_DAYS:
                continue
            named = alarm.day
            label = f" alarm {alarm.day:%d %b}"
            low = axes.get_xaxis_transform()  # just above the axis, whatever the errors
            axes.text(
                alarm.day, 0.02, label, fontsize=8, color=RED, rotation=90, va="bottom",
                transform=low,
            )  # fmt: skip


def save_plot(result: Backtest, path: str | Path, about: str = "") -> None:
    """Write the plot as PNG; the folder is made when missing."""
    with atomic_path(path) as part:
        plot_backtest(result, about).savefig(part, format="png", dpi=110)
