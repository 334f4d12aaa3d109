"""The plots of notebooks 02 and 03: how right a model is, where it errs, what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxi_duration.chain.exploration import mile_classes
from taxi_duration.domain.zones import zone_table
from taxi_duration.plots.look import BLUE, GREY, ORANGE, draw_histogram, new_figure, write_instead

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_ERROR_MINUTES = 30  # larger errors are counted in the outermost bars


def plot_residuals(residuals: pd.DataFrame, about: str = "") -> Figure:
    """Error (predicted - actual, minutes) by hour, by asked distance and by pickup borough.

    Args:
        residuals: trips with `error`, as `diagnostics.residuals` gives them.
    """
    frame = pd.DataFrame(
        {
            "error": residuals["error"],
            "hour of pickup": residuals["pickup_at"].dt.hour,
            "distance, miles": mile_classes(residuals["trip_distance"]),
            "pickup borough": zone_table().borough[residuals["PULocationID"]],
        }
    )
    figure, axes = new_figure(1, 3, size=(15, 4.4), about=about)
    for ax, by in zip(axes, frame.columns[1:], strict=True):
        ax.set(title=f"Error by {by.split(',')[0]}", xlabel=by)
        if frame[by].isna().all():
            write_instead(ax, "these trips carry no distance")
            continue
        _draw_boxes(ax, frame["error"].groupby(frame[by], observed=True))
        ax.axhline(0, color=ORANGE, label="no error")
        ax.set(ylabel="predicted - actual, minutes")
    for label in [*axes[1].get_xticklabels(), *axes[2].get_xticklabels()]:
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    handles, labels = axes[0].get_legend_handles_labels()
    title = "box: P25, median, P75\nends: P10, P90"
    axes[2].legend(handles, labels, title=title, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _draw_boxes(axes: Axes, groups: Any) -> None:
    """A box of P25, median and P75 with ends at P10 and P90 for each group, in its order."""
    quantiles = groups.quantile([0.1, 0.25, 0.5, 0.75, 0.9]).unstack().to_numpy()
    names = ("whislo", "q1", "med", "q3", "whishi")
    boxes = [dict(zip(names, row, strict=True)) for row in quantiles]
    place = np.arange(len(boxes))
    look = {"facecolor": BLUE, "edgecolor": "black"}
    axes.bxp(
        boxes, place, widths=0.8, showfliers=False, patch_artist=True, boxprops=look,
        medianprops={"color": "white"}, manage_ticks=False,
    )  # fmt: skip
    every = 4 if len(boxes) > 12 else 1
    axes.set_xticks(place[::every], list(groups.groups)[::every])


def plot_predictions(residuals: pd.DataFrame, about: str = "") -> Figure:
    """Predicted against actual minutes as a density, and the distribution of the error."""
    figure, (left, right) = new_figure(1, 2, size=(12, 4.2), about=about)
    dots = left.hexbin(
        residuals["duration"], residuals["predicted"], gridsize=60, extent=(0, 60, 0, 60),
        bins="log", cmap="viridis", mincnt=1,
    )  # fmt: skip
    figure.colorbar(dots, ax=left, label="trips (log)")
    left.plot([0, 60], [0, 60], color=ORANGE, label="perfect")
    left.legend(loc="upper left")
    left.set(
        title="Predicted against actual", xlabel="actual, minutes", ylabel="predicted, minutes"
    )
    end, mean = SHOWN_ERROR_MINUTES, residuals["error"].mean()
    error = residuals["error"].clip(-end, end)
    draw_histogram(right, error, np.arange(-end, end + 1))
    right.axvline(mean, color=ORANGE, label=f"mean {mean:+.2f} min")
    right.legend()
    right.set(title="Error", xlabel=f"predicted - actual, minutes (cut at ±{end})", ylabel="trips")
    return figure


def plot_leaderboard(table: pd.DataFrame, about: str = "") -> Figure:
    """Bars of RMSE with and without distance, baselines in grey, best on top.

    Args:
        table: as `candidates.rank_candidates` gives it.
    """
    figure, axes = new_figure(size=(10, 0.5 * len(table) + 1.8), about=about)
    names, place = table.index[::-1], np.arange(len(table))
    shown = table.loc[names]
    lookup = shown["is_baseline"].to_numpy(dtype=bool)
    for rows, column, offset, color, label in (
        (~lookup, "rmse", 0.2, BLUE, "model, distance given"),
        (~lookup, "rmse_no_distance", -0.2, ORANGE, "model, no distance"),
        (lookup, "rmse", 0.0, GREY, "lookup"),
    ):
        bars = axes.barh(
            place[rows] + offset, shown[column][rows], height=0.38, color=color, label=label
        )
        axes.bar_label(bars, fmt=" %.2f", fontsize=8)
    axes.set_yticks(place, names)
    axes.set(
        title="RMSE on the validation months", xlabel="RMSE, minutes", ylabel="",
        xlim=(0, float(shown[["rmse", "rmse_no_distance"]].max(axis=None)) * 1.1),
    )  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def plot_segments(metrics: dict, about: str = "") -> Figure:
    """Bars of MAE (minutes) and of P10-P90 coverage by segment.

    Args:
        metrics: one entry of a card's metrics, such as `with_distance`.
    """
    segments = pd.DataFrame(metrics["segments"]).T
    figure, (left, right) = new_figure(1, 2, size=(12, 3.4), about=about)
    left.barh(segments.index, segments["mae"], color=BLUE)
    left.axvline(metrics["mae"], color=ORANGE, label="all trips")
    left.set(title="MAE by segment", xlabel="MAE, minutes")
    coverage = segments["coverage"] * 100
    right.barh(segments.index, coverage, color=BLUE)
    right.axvline(80, color=ORANGE, label="nominal")
    low = min(50.0, 10 * np.floor(coverage.min() / 10))
    right.set(title="Trips inside P10-P90", xlabel="coverage, %", xlim=(low, 100))
    right.set_yticks(right.get_yticks(), [])
    for axes in (left, right):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure


def plot_calibration(table: pd.DataFrame, about: str = "") -> Figure:
    """Mean answer against mean truth, and trips below, inside and above P10-P90, by tenths.

    Args:
        table: as `diagnostics.calibration_table` gives it.
    """
    figure, (left, right) = new_figure(1, 2, size=(12, 4), about=about)
    left.plot(table["predicted"], table["actual"], "o-", color=BLUE, label="a tenth of the trips")
    edge = [0, float(table[["predicted", "actual"]].max().max()) * 1.05]
    left.plot(edge, edge, color=ORANGE, label="perfect")
    left.legend()
    left.set(
        title="Tenths of the trips by their answer",
        xlabel="mean predicted, minutes", ylabel="mean actual, minutes",
    )  # fmt: skip
    place, bottom = np.arange(len(table)), np.zeros(len(table))
    for column, color in (("below", GREY), ("inside", BLUE), ("above", ORANGE)):
        right.bar(place, table[column] * 100, bottom=bottom, color=color, label=column)
        bottom += table[column] * 100
    for level, label in ((10, "nominal"), (90, None)):
        right.axhline(level, color="black", linewidth=1, linestyle="--", label=label)
    right.set_xticks(place, [f"{minutes:.0f}" for minutes in table["predicted"]])
    right.set(
        title="Truth below, inside and above P10-P90",
        xlabel="mean predicted, minutes", ylabel="trips, %", ylim=(0, 100),
    )  # fmt: skip
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def plot_importance(table: pd.DataFrame, about: str = "") -> Figure:
    """Bars of the mean absolute minutes of each reason, with and without distance.

    Args:
        table: as `diagnostics.importance` gives it.
    """
    figure, axes = new_figure(size=(10, 0.5 * len(table) + 1.4), about=about)
    place = np.arange(len(table))[::-1]
    for column, offset, color in zip(table, (0.2, -0.2), (BLUE, ORANGE), strict=True):
        axes.barh(place + offset, table[column], height=0.38, color=color, label=column)
    axes.set_yticks(place, table.index)
    axes.set(title="How far each reason moves an answer", xlabel="mean absolute minutes")
    axes.legend(loc="lower right")
    return figure


def plot_boosting_curve(table: pd.DataFrame, about: str = "") -> Figure:
    """RMSE with distance against the rows that trees learned from.

    Args:
        table: as `diagnostics.boosting_curve` gives it.
    """
    figure, axes = new_figure(size=(8, 3.8), about=about)
    axes.plot(table["rows"], table["rmse"], "o-", color=BLUE)
    axes.set_xscale("log", base=2)
    axes.set(
        title="What more rows teach the trees: RMSE on the validation months",
        xlabel="rows learned from, doubled from point to point", ylabel="RMSE, minutes",
    )  # fmt: skip
    axes.set_xticks(table["rows"], [f"{rows:,}" for rows in table["rows"]])
    axes.minorticks_off()
    return figure


def plot_learning_curve(table: pd.DataFrame, about: str = "") -> Figure:
    """RMSE with and without distance against the days learned from.

    Args:
        table: as `diagnostics.learning_curve` gives it.
    """
    figure, axes = new_figure(size=(8, 3.8), about=about)
    for column, style, color, label in (
        ("rmse", "o-", BLUE, "distance given"),
        ("rmse_no_distance", "s:", ORANGE, "no distance"),  # seen where both lines are one
    ):
        axes.plot(table["days"], table[column], style, color=color, label=label)
    axes.set(
        title="What more days buy: RMSE on the validation months",
        xlabel="days learned from, the last of the training window", ylabel="RMSE, minutes",
    )  # fmt: skip
    axes.set_xticks(table["days"])
    axes.legend()
    return figure
