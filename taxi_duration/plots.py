"""The plots of the notebooks: each takes a frame and returns a figure with title and units."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxi_duration.data.trips import REASONS
from taxi_duration.domain.zones import zone_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MILES_EDGES = (0, 1, 2, 3, 5, 8, 12, 20)
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"


def _figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (10, 4)):
    """Return figure and axes in the project's look; seaborn is slow to import, so here."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.9)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    plt.close(figure)  # the caller shows it; an open figure would be shown twice
    return figure, axes


def plot_accounting(accounting: pd.DataFrame) -> Figure:
    """Bars of rows by reason code and month, on a log scale.

    Args:
        accounting: one row per month, a column per reason code, rows as counts.
    """
    import seaborn as sns

    counts = accounting[list(REASONS)].rename_axis("month").reset_index()
    long = counts.melt("month", var_name="reason", value_name="rows")
    figure, axes = _figure(size=(10, 3.6))
    sns.barplot(long, x="reason", y="rows", hue="month", ax=axes)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(title="Rows left out or flagged, by reason", xlabel="reason code", ylabel="rows (log)")
    return figure


def plot_distributions(trips: pd.DataFrame) -> Figure:
    """Histograms of duration (minutes) and distance (miles, up to the 99.5th percentile)."""
    import seaborn as sns

    figure, (left, right) = _figure(1, 2)
    sns.histplot(x=trips["duration"], binwidth=1, ax=left, color=BLUE)
    median = trips["duration"].median()
    left.axvline(median, color=ORANGE)
    left.set(title=f"Duration, median {median:.1f} min", xlabel="duration, minutes", ylabel="trips")
    miles = trips["trip_distance"].dropna()
    if len(miles):
        sns.histplot(x=miles[miles <= miles.quantile(0.995)], bins=60, ax=right, color=BLUE)
    right.set(title="Distance, without the largest 0.5 %", xlabel="distance, miles", ylabel="trips")
    return figure


def plot_hour_weekday(trips: pd.DataFrame) -> Figure:
    """Heat maps of trips and of median duration (minutes) by hour and weekday."""
    import seaborn as sns

    when = trips["pickup_at"].dt
    cells = trips.groupby([when.day_of_week.rename("day"), when.hour.rename("hour")])["duration"]
    figure, (left, right) = _figure(1, 2, size=(13, 3.4))
    for axes, values, title, unit in (
        (left, cells.size(), "When people ride", "trips"),
        (right, cells.median(), "How long it takes", "median minutes"),
    ):
        grid = values.unstack("hour").reindex(index=range(7), columns=range(24))
        sns.heatmap(grid, ax=axes, cmap="viridis", yticklabels=WEEKDAYS, cbar_kws={"label": unit})
        axes.set(title=title, xlabel="hour of pickup, New York time", ylabel="")
        axes.tick_params(axis="y", rotation=0)
    return figure


def plot_busiest_pairs(trips: pd.DataFrame, zones: int = 12) -> Figure:
    """Heat map of median minutes between the busiest zones; numbers are trips."""
    import seaborn as sns

    ids = pd.concat([trips["PULocationID"], trips["DOLocationID"]]).value_counts().index[:zones]
    busiest = trips[trips["PULocationID"].isin(ids) & trips["DOLocationID"].isin(ids)]
    cells = busiest.groupby(["PULocationID", "DOLocationID"])["duration"]
    minutes = cells.median().unstack().reindex(index=ids, columns=ids)
    counts = cells.size().unstack().reindex(index=ids, columns=ids).fillna(0).astype(int)
    names = [f"{zone_table().name[zone]} ({zone})" for zone in ids]
    figure, axes = _figure(size=(11, 8))
    sns.heatmap(
        minutes, annot=counts, fmt="d", cmap="viridis", ax=axes, xticklabels=names,
        yticklabels=names, cbar_kws={"label": "median minutes"}, annot_kws={"size": 8},
    )  # fmt: skip
    axes.set(title="Between the busiest zones (number: trips)", xlabel="drop-off", ylabel="pickup")
    axes.tick_params(axis="x", rotation=60)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    return figure


def plot_residuals(residuals: pd.DataFrame) -> Figure:
    """Error (predicted - actual, minutes) by hour, by asked distance and by pickup borough.

    Args:
        residuals: trips with `error`, as `diagnostics.residuals` gives them.
    """
    import seaborn as sns

    frame = pd.DataFrame(
        {
            "error": residuals["error"],
            "hour of pickup": residuals["pickup_at"].dt.hour,
            "distance, miles": _mile_bins(residuals["trip_distance"]),
            "pickup borough": zone_table().borough[residuals["PULocationID"]],
        }
    )
    figure, axes = _figure(1, 3, size=(15, 4.2))
    for ax, by in zip(axes, frame.columns[1:], strict=True):
        sns.boxplot(frame, x=by, y="error", ax=ax, color=BLUE, showfliers=False, whis=(10, 90))
        ax.axhline(0, color=ORANGE)
        ax.set(title=f"Error by {by.split(',')[0]}", ylabel="predicted - actual, minutes")
    axes[1].tick_params(axis="x", rotation=30)
    axes[2].tick_params(axis="x", rotation=30)
    axes[0].set_xticks(range(0, 24, 4))
    return figure


def plot_predictions(residuals: pd.DataFrame) -> Figure:
    """Predicted against actual minutes as a density, and the distribution of the error."""
    import seaborn as sns

    figure, (left, right) = _figure(1, 2)
    left.hexbin(
        residuals["duration"], residuals["predicted"], gridsize=60, extent=(0, 60, 0, 60),
        bins="log", cmap="viridis", mincnt=1,
    )  # fmt: skip
    left.plot([0, 60], [0, 60], color=ORANGE)
    left.set(
        title="Predicted against actual", xlabel="actual, minutes", ylabel="predicted, minutes"
    )
    error = residuals["error"].clip(-30, 30)
    sns.histplot(x=error, bins=np.arange(-30, 31), ax=right, color=BLUE)
    right.set(
        title=f"Error, mean {residuals['error'].mean():+.2f} min",
        xlabel="predicted - actual, minutes (cut at ±30)", ylabel="trips",
    )  # fmt: skip
    return figure


def plot_leaderboard(table: pd.DataFrame) -> Figure:
    """Bars of RMSE with and without distance, baselines in grey, best on top.

    Args:
        table: as `candidates.compare_candidates` gives it.
    """
    figure, axes = _figure(size=(10, 0.5 * len(table) + 1.4))
    names, place = table.index[::-1], np.arange(len(table))
    shown = table.loc[names]
    colors = [GREY if b else BLUE for b in shown["is_baseline"]]
    axes.barh(place + 0.2, shown["rmse"], height=0.38, color=colors)
    axes.barh(place - 0.2, shown["rmse_no_distance"], height=0.38, color=ORANGE)
    for at, value in zip(place, shown["rmse"], strict=True):
        axes.text(value, at + 0.2, f" {value:.2f}", va="center", fontsize=9)
    axes.set_yticks(place, names)
    axes.set(
        title="RMSE on the validation months (blue: distance given, orange: not, grey: lookup)",
        xlabel="RMSE, minutes", ylabel="", xlim=(0, float(shown["rmse"].max()) * 1.1),
    )  # fmt: skip
    return figure


def plot_segments(metrics: dict) -> Figure:
    """Bars of MAE (minutes) and of P10-P90 coverage by segment.

    Args:
        metrics: one entry of a card's metrics, such as `with_distance`.
    """
    segments = pd.DataFrame(metrics["segments"]).T
    figure, (left, right) = _figure(1, 2, size=(12, 3.2))
    left.barh(segments.index, segments["mae"], color=BLUE)
    left.axvline(metrics["mae"], color=ORANGE)
    left.set(title="MAE by segment (line: overall)", xlabel="MAE, minutes")
    right.barh(segments.index, segments["coverage"] * 100, color=BLUE)
    right.axvline(80, color=ORANGE)
    right.set(title="Trips inside P10-P90 (line: nominal)", xlabel="coverage, %", xlim=(50, 100))
    return figure


def plot_calibration(table: pd.DataFrame) -> Figure:
    """Mean answer against mean truth, and trips below, inside and above P10-P90, by tenths.

    Args:
        table: as `diagnostics.calibration_table` gives it.
    """
    figure, (left, right) = _figure(1, 2, size=(12, 3.8))
    left.plot(table["predicted"], table["actual"], "o-", color=BLUE)
    edge = [0, float(table[["predicted", "actual"]].max().max()) * 1.05]
    left.plot(edge, edge, color=ORANGE)
    left.set(
        title="Tenths of the trips by their answer (line: perfect)",
        xlabel="mean predicted, minutes", ylabel="mean actual, minutes",
    )  # fmt: skip
    place, bottom = np.arange(len(table)), np.zeros(len(table))
    for column, color in (("below", GREY), ("inside", BLUE), ("above", ORANGE)):
        right.bar(place, table[column] * 100, bottom=bottom, color=color, label=column)
        bottom += table[column] * 100
    for level in (10, 90):
        right.axhline(level, color="black", linewidth=1, linestyle="--")
    right.set_xticks(place, [f"{minutes:.0f}" for minutes in table["predicted"]])
    right.set(
        title="Truth below, inside and above P10-P90 (dashed: nominal)",
        xlabel="mean predicted, minutes", ylabel="trips, %", ylim=(0, 100),
    )  # fmt: skip
    right.legend(loc="center right")
    return figure


def plot_importance(table: pd.DataFrame) -> Figure:
    """Bars of the mean absolute minutes of each reason, with and without distance.

    Args:
        table: as `diagnostics.importance` gives it.
    """
    figure, axes = _figure(size=(10, 0.5 * len(table) + 1.2))
    place = np.arange(len(table))[::-1]
    for column, offset, color in zip(table, (0.2, -0.2), (BLUE, ORANGE), strict=True):
        axes.barh(place + offset, table[column], height=0.38, color=color, label=column)
    axes.set_yticks(place, table.index)
    axes.set(title="How far each reason moves an answer", xlabel="mean absolute minutes")
    axes.legend(loc="lower right")
    return figure


def plot_learning_curve(table: pd.DataFrame) -> Figure:
    """RMSE with and without distance against the days learned from.

    Args:
        table: as `diagnostics.learning_curve` gives it.
    """
    figure, axes = _figure(size=(8, 3.6))
    for column, color, label in (
        ("rmse", BLUE, "distance given"), ("rmse_no_distance", ORANGE, "no distance"),
    ):  # fmt: skip
        axes.plot(table["days"], table[column], "o-", color=color, label=label)
    axes.set(
        title="What more days buy (the last days of the training window)",
        xlabel="days learned from", ylabel="RMSE on the validation months, minutes",
    )  # fmt: skip
    axes.set_xticks(table["days"])
    axes.legend()
    return figure


def _mile_bins(miles: pd.Series) -> pd.Series:
    """Distance classes as text, in order; unknown distances apart."""
    bins = pd.cut(miles, [*MILES_EDGES, np.inf], right=False)
    labels = [f"{a}-{b}" for a, b in pairwise(MILES_EDGES)]
    labels.append(f"{MILES_EDGES[-1]}+")
    return bins.cat.rename_categories(labels)
