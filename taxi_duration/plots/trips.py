"""The plots of notebook 01: what a month of trips looks like before any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxi_duration.chain.exploration import add_speed, by_distance
from taxi_duration.data.trips import REASONS
from taxi_duration.domain.zones import zone_table
from taxi_duration.plots.look import (
    BLUE,
    FEW_TRIPS,
    GREY,
    ORANGE,
    RED,
    WEEKDAYS,
    draw_histogram,
    new_figure,
    write_instead,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_DISTANCE = "these trips carry no distance"
# Minutes, by the course rule; and mph: faster trips are clock or meter faults.
SHOWN_UNITS = 60
SHOWN_SHARE = 0.995  # of the distances; the longest would squeeze the rest


def plot_accounting(accounting: pd.DataFrame, about: str = "") -> Figure:
    """Bars of rows by reason code and month, on a log scale.

    Args:
        accounting: one row per month, a column per reason code, rows as counts.
    """
    import seaborn as sns

    counts = accounting[list(REASONS)].rename_axis("month").reset_index()
    long = counts.melt("month", var_name="reason", value_name="rows")
    figure, axes = new_figure(size=(10, 3.6), about=about)
    sns.barplot(long, x="reason", y="rows", hue="month", ax=axes)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(title="Rows left out or flagged, by reason", xlabel="reason code", ylabel="rows (log)")
    axes.legend(title="month", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def plot_distributions(trips: pd.DataFrame, about: str = "") -> Figure:
    """Histograms of duration (minutes) and distance (miles, up to the 99.5th percentile)."""
    figure, (left, right) = new_figure(1, 2, about=about)
    _histogram(left, trips["duration"], "min")
    left.set(title="Duration", xlabel="duration, minutes", ylabel="trips")
    miles = trips["trip_distance"].dropna()
    right.set(title=f"Distance, without the largest {1 - SHOWN_SHARE:.1%}")
    if not len(miles):
        write_instead(right, NO_DISTANCE)
        return figure
    far = max(float(miles.quantile(SHOWN_SHARE)), 1.0)
    _histogram(right, miles, "miles", np.linspace(0, far, 61))
    right.set(xlabel="distance, miles", ylabel="trips")
    return figure


def _histogram(
    axes: Axes,
    values: pd.Series,
    unit: str,
    edges: Sequence[float] | np.ndarray = range(SHOWN_UNITS + 1),
) -> None:
    """Counts between edges, and the median."""
    draw_histogram(axes, values, edges)
    axes.axvline(values.median(), color=ORANGE, label=f"median {values.median():.1f} {unit}")
    axes.legend()


def plot_duration_by_distance(trips: pd.DataFrame, about: str = "") -> Figure:
    """Density of minutes against miles, with the median and the P10-P90 band of each class."""
    figure, axes = new_figure(size=(10, 4.6), about=about)
    axes.set_title("Duration against distance")
    known = add_speed(trips).dropna(subset=["miles"])
    if not len(known):
        write_instead(axes, NO_DISTANCE)
        return figure
    far = max(float(known["miles"].quantile(SHOWN_SHARE)), 1.0)
    shown = known[known["miles"] <= far]
    dots = axes.hexbin(
        shown["miles"], shown["duration"], gridsize=60, extent=(0, far, 0, 60), bins="log",
        cmap="Blues", mincnt=1,
    )  # fmt: skip
    figure.colorbar(dots, ax=axes, label="trips (log)")
    table = by_distance(known).query("trips >= @FEW_TRIPS")
    axes.fill_between(
        table["miles"], table["p10"], table["p90"], color=ORANGE, alpha=0.2, label="P10 to P90"
    )
    axes.plot(table["miles"], table["median"], "o-", color=ORANGE, label="median")
    axes.set(xlabel="distance, miles", ylabel="duration, minutes", xlim=(0, far), ylim=(0, 60))
    axes.legend(loc="lower right")
    return figure


def plot_speed(trips: pd.DataFrame, about: str = "") -> Figure:
    """Histogram of mean speed over the ride (mph), and its median by hour and kind of day."""
    figure, (left, right) = new_figure(1, 2, size=(12, 4), about=about)
    left.set_title("Speed of a ride")
    right.set_title("Median speed by hour")
    known = add_speed(trips).dropna(subset=["speed_mph"])
    if not len(known):
        write_instead(left, NO_DISTANCE)
        write_instead(right, NO_DISTANCE)
        return figure
    _histogram(left, known["speed_mph"].clip(upper=SHOWN_UNITS), "mph")
    left.set(xlabel=f"distance / duration, mph (cut at {SHOWN_UNITS})", ylabel="trips")
    when = known["pickup_at"].dt
    weekend = (when.day_of_week >= 5).to_numpy()
    for days, color, label in ((~weekend, BLUE, "Mon to Fri"), (weekend, ORANGE, "Sat and Sun")):
        speed = known["speed_mph"][days].groupby(when.hour[days])
        right.plot(speed.median().where(speed.size() >= FEW_TRIPS), "o-", color=color, label=label)
    right.set(xlabel="hour of pickup, New York time", ylabel="median mph", xlim=(-0.5, 23.5))
    right.set_xticks(range(0, 24, 3))
    right.legend()
    return figure


def plot_days(days: pd.DataFrame, about: str = "") -> Figure:
    """Trips and median speed of every day, beside what its weekday usually is.

    Holidays and days far off their usual are marked, whatever made them so.

    Args:
        days: as `exploration.by_day` gives it.
    """
    figure, (top, bottom) = new_figure(2, 1, size=(12, 6), about=about, sharex=True)
    _draw_days(top, days, "trips", "trips a day")
    top.set_ylim(bottom=0)
    top.set(title="Trips by day of pickup")
    bottom.set(title="Median speed by day of pickup", xlabel="day of pickup")
    if days["speed_mph"].notna().any():
        _draw_days(bottom, days, "speed_mph", "median mph")
    else:
        write_instead(bottom, NO_DISTANCE)
    _name_far_days(top, days)
    top.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _draw_days(axes: Axes, days: pd.DataFrame, column: str, unit: str) -> None:
    # Months that do not follow each other are not joined by a line.
    shown = days.asfreq("D")
    axes.plot(shown.index, shown[column], ".-", color=BLUE, label="that day")
    axes.plot(shown.index, shown[f"usual_{column}"], color=GREY, label="usual of its weekday")
    far = days[days["far_off"]]
    axes.plot(far.index, far[column], "o", color=RED, label="far off the usual")
    for number, day in enumerate(days.index[days["holiday"]]):
        label = "federal holiday" if number == 0 else None
        axes.axvline(day, color=ORANGE, linestyle="--", linewidth=1, label=label)
    axes.set(ylabel=unit)


def _name_far_days(axes: Axes, days: pd.DataFrame, most: int = 12) -> None:
    """Write the date under the days furthest off, as far as there is room."""
    change = (days["trips"] / days["usual_trips"].where(days["usual_trips"] > 0) - 1).abs()
    order = change[days["far_off"]].sort_values(ascending=False).index
    room = (days.index[-1] - days.index[0]) / 18
    named: list[pd.Timestamp] = []
    for day in order:
        if len(named) < most and all(abs(day - other) >= room for other in named):
            named.append(day)
            axes.annotate(
                f"{day:%a %-d %b}", (day, days.loc[day, "trips"]), xytext=(4, -3),
                textcoords="offset points", fontsize=8, color=RED, va="top",
            )  # fmt: skip


def plot_hours(hours: pd.DataFrame, about: str = "") -> Figure:
    """Heat maps of trips per hour and of median minutes by weekday and hour.

    Args:
        hours: as `exploration.by_hour` gives it; cells of fewer than FEW_TRIPS stay white.
    """
    import seaborn as sns

    figure, panels = new_figure(1, 2, size=(14, 3.6), about=about)
    enough = hours["trips"] >= FEW_TRIPS
    for axes, column, title, unit in (
        (panels[0], "trips_per_hour", "When people ride", "trips per hour"),
        (panels[1], "minutes", "How long it takes", "median minutes"),
    ):
        axes.set(title=title)
        if not enough.any():
            write_instead(axes, f"no hour of the week has {FEW_TRIPS} trips")
            continue
        grid = hours[column].where(enough).unstack("hour")
        sns.heatmap(grid, ax=axes, cmap="viridis", yticklabels=WEEKDAYS, cbar_kws={"label": unit})
        axes.set(xlabel="hour of pickup, New York time", ylabel="")
        axes.grid(visible=False)
        axes.tick_params(axis="y", rotation=0)
        if not enough.all():
            axes.set_xlabel(f"hour of pickup, New York time (white: under {FEW_TRIPS} trips)")
    return figure


def plot_busiest_pairs(trips: pd.DataFrame, about: str = "", zones: int = 12) -> Figure:
    """Heat map of median minutes between the busiest zones; numbers are trips."""
    import seaborn as sns

    ids = pd.concat([trips["PULocationID"], trips["DOLocationID"]]).value_counts().index[:zones]
    busiest = trips[trips["PULocationID"].isin(ids) & trips["DOLocationID"].isin(ids)]
    cells = busiest.groupby(["PULocationID", "DOLocationID"])["duration"]
    minutes = cells.median().unstack().reindex(index=ids, columns=ids)
    counts = cells.size().unstack().reindex(index=ids, columns=ids).fillna(0).astype(int)
    names = [f"{zone_table().name[zone]} ({zone})" for zone in ids]
    figure, axes = new_figure(size=(11, 8), about=about)
    sns.heatmap(
        minutes, annot=counts, fmt="d", cmap="viridis", ax=axes, xticklabels=names,
        yticklabels=names, cbar_kws={"label": "median minutes"}, annot_kws={"size": 8},
    )  # fmt: skip
    axes.set(title="Between the busiest zones (number: trips)", xlabel="drop-off", ylabel="pickup")
    axes.grid(visible=False)  # it would show through pairs without a trip
    axes.tick_params(axis="x", rotation=60)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    return figure


def plot_nulls(nulls: pd.DataFrame, about: str = "") -> Figure:
    """Heat map of the share of nulls by raw column and month.

    Args:
        nulls: as `exploration.count_nulls` gives it.
    """
    import seaborn as sns

    shares = nulls.drop(columns="type") * 100
    size = (min(5 + 0.7 * shares.shape[1], 14), 0.28 * len(shares) + 1.6)
    figure, axes = new_figure(size=size, about=about)
    sns.heatmap(
        shares, ax=axes, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f", linewidths=0.5,
        annot_kws={"size": 8}, cbar_kws={"label": "nulls, %"},
    )  # fmt: skip
    missing = " (white: no such column)" if np.isnan(shares.to_numpy()).any() else ""
    axes.set(title=f"Nulls by column{missing}", xlabel="month", ylabel="")
    axes.grid(visible=False)
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=0 if shares.shape[1] < 8 else 60)
    return figure
