"""Sentences about the data, computed from the data: what the notebooks say on any month."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration.chain.exploration import RideCounts, add_speed, mile_classes
from taxi_duration.data.month_health import MonthHealth
from taxi_duration.domain.limits import (
    LONGEST_MINUTES,
    MAX_TRIP_MILES,
    SHORTEST_MINUTES,
    UNKNOWN_ZONE,
)
from taxi_duration.domain.zones import zone_table
from taxi_duration.evaluation.metrics import NOMINAL_COVERAGE
from taxi_duration.model.intervals import RARE_TRIPS

DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FEW_TRIPS = 10  # a group of fewer is not named as the best or worst
FAST_MPH = 60.0  # nobody averages that in the city
COMMON_PAIRS = 1000


# --- notebook 01 -----------------------------------------------------------------------------


def describe_nulls(nulls: pd.DataFrame) -> str:
    """Say which columns are empty, and which have a type that another month has not."""
    shares = nulls.drop(columns="type")
    empty = shares.index[(shares == 1.0).any(axis=1)]
    some = shares.index[(shares > 0).any(axis=1)].difference(empty)
    absent = shares.index[shares.isna().any(axis=1)]
    parts = [
        f"{len(shares)} columns",
        f"all null in some month: {_names(empty)}",
        f"with some nulls: {_names(some)}",
    ]
    if len(absent):
        parts.append(f"not there in every month: {_names(absent)}")
    return "; ".join(parts) + "."


def describe_quarantine(quarantine: pd.DataFrame) -> str:
    """Say what the rows look like that the course rule left out."""
    if quarantine.empty:
        return "No row was left out."
    minutes = quarantine["duration"]
    long = minutes[minutes > LONGEST_MINUTES]
    short = (minutes < SHORTEST_MINUTES).mean()
    parts = [f"{len(quarantine):,} rows were left out, {short:.0%} under a minute"]
    if len(long):
        whole_day = long.between(23 * 60, 24 * 60).mean()
        parts.append(
            f"of the {len(long):,} over an hour half take more than {long.median():.0f} minutes, "
            f"and {whole_day:.0%} end 23 to 24 hours later (a meter left running)"
        )
    return "; ".join(parts) + "."


def describe_health(months: Sequence[MonthHealth]) -> str:
    """Say how many months' columns are in order, and what is wrong with the worst."""
    unusual = [health for health in months if health.findings]
    alone = [str(health.month) for health in months if not health.compared]
    text = f"Nothing unusual in {len(months) - len(unusual)} of {len(months)} months"
    if alone:
        text += f" ({_names(alone)}: no earlier month at hand to compare with)"
    if suspects := sum(health.suspects for health in months):
        text += f"; {suspects:,} rows of a proven fault are scored and not learned from"
    lines = "\n".join(f"- {line}" for health in unusual for line in health.lines)
    return f"{text}.\n\n{lines}" if lines else f"{text}."


def describe_trips(trips: pd.DataFrame) -> str:
    """Say how long and how far usual and long trips are."""
    minutes = trips["duration"].quantile([0.5, 0.99])
    text = f"Half of the trips take under {minutes[0.5]:.1f} minutes, 1 % over {minutes[0.99]:.0f}"
    miles = trips["trip_distance"].dropna()
    if not len(miles):
        return f"{text}. No trip carries a distance."
    zero, far = (miles == 0).mean(), (miles > MAX_TRIP_MILES).sum()
    return (
        f"{text}. Half are shorter than {miles.median():.1f} miles; {zero:.1%} have a distance of "
        f"0 (the meter recorded none), {far:,} more than {MAX_TRIP_MILES:g} miles, up to "
        f"{miles.max():,.0f}."
    )


def describe_speed(trips: pd.DataFrame) -> str:
    """Say how fast trips are, by the clock, and how many speeds cannot be true."""
    known = add_speed(trips).dropna(subset=["speed_mph"])
    if not len(known):
        return "No trip carries a distance: there is no speed to speak of."
    speed = known["speed_mph"]
    by_hour = speed.groupby(known["pickup_at"].dt.hour)
    medians = by_hour.median()[by_hour.size() >= FEW_TRIPS]
    text = f"The middle trip goes {speed.median():.1f} mph"
    if len(medians):
        fast, slow = medians.idxmax(), medians.idxmin()
        text += (
            f"; the streets are fastest at {fast}:00 ({medians[fast]:.1f} mph) and slowest at "
            f"{slow}:00 ({medians[slow]:.1f})"
        )
    return f"{text}. {(speed > FAST_MPH).sum():,} trips would have gone over {FAST_MPH:.0f} mph."


def describe_days(days: pd.DataFrame) -> str:
    """Name the holidays of the window, and the days far off their weekday's usual."""
    holidays = _names([f"{day:%a %Y-%m-%d}" for day in days.index[days["holiday"]]])
    far = days[days["far_off"]]
    text = (
        f"A middle day has {days['trips'].median():,.0f} trips. Federal holidays: {holidays}. "
        f"{len(far)} of {len(days)} days are far off their weekday's usual"
    )
    change = far["trips"] / far["usual_trips"] - 1
    worst = change.abs().sort_values(ascending=False).index[:8]
    if not len(worst):
        return f"{text}."
    lines = "\n".join(
        f"- {day:%a %Y-%m-%d}: {far.loc[day, 'trips']:,.0f} trips "
        f"({change[day]:+.0%}){_speed_change(far.loc[day])}"
        for day in sorted(worst)
    )
    more = f", such as the {len(worst)} furthest" if len(far) > len(worst) else ""
    return f"{text}{more}:\n\n{lines}"


def _speed_change(day: pd.Series) -> str:
    if np.isnan(day["speed_mph"]) or np.isnan(day["usual_speed_mph"]):
        return ""
    change = day["speed_mph"] / day["usual_speed_mph"] - 1
    return f", {day['speed_mph']:.1f} mph ({change:+.0%})"


def describe_hours(hours: pd.DataFrame) -> str:
    """Name the busiest and quietest hour of the week, and where rides take longest."""
    enough = hours[hours["trips"] >= FEW_TRIPS]
    if enough.empty:
        return f"No hour of the week has {FEW_TRIPS} trips."
    busy, quiet = hours["trips_per_hour"].idxmax(), hours["trips_per_hour"].idxmin()
    slow, quick = enough["minutes"].idxmax(), enough["minutes"].idxmin()
    return (
        f"Busiest: {_hour(busy)} with {hours.loc[busy, 'trips_per_hour']:,.0f} trips an hour; "
        f"quietest: {_hour(quiet)} with {hours.loc[quiet, 'trips_per_hour']:,.1f}. The middle ride "
        f"is longest {_hour(slow)}, {enough.loc[slow, 'minutes']:.1f} minutes, and shortest "
        f"{_hour(quick)}, {enough.loc[quick, 'minutes']:.1f}."
    )


def _hour(weekday_and_hour: Any) -> str:
    weekday, hour = weekday_and_hour
    return f"{DAY_NAMES[weekday]} {hour}:00"


def describe_zones(zones: pd.DataFrame) -> str:
    """Name the zones where most rides begin, and the share that begins nowhere known."""
    table, trips = zone_table(), zones["trips"].sort_values(ascending=False)
    unknown = trips[trips.index >= UNKNOWN_ZONE].sum() / trips.sum()
    first = [f"{table.name[z]} ({n:,})" for z, n in trips.head(5).items()]
    half = int((trips.cumsum() < trips.sum() / 2).sum()) + 1
    return (
        f"Rides begin in {len(trips)} zones, half of them in {half}; first come "
        f"{', '.join(first)}. {unknown:.1%} begin in a zone that is not known or outside the city."
    )


def describe_pairs(counts: RideCounts) -> str:
    """Say how much of the trips the common pairs of zones make, and how many are rare."""
    pairs = np.sort(counts.pair[counts.pair > 0])[::-1]
    share = pairs[:COMMON_PAIRS].sum() / pairs.sum()
    rare = pairs < RARE_TRIPS
    return (
        f"{len(pairs):,} pairs; the first {COMMON_PAIRS:,} hold {share:.0%} of trips. "
        f"{rare.sum():,} pairs ({rare.mean():.0%}) were seen fewer than {RARE_TRIPS} times."
    )


# --- notebooks 02 and 03 ---------------------------------------------------------------------


def describe_residuals(errors: pd.DataFrame) -> str:
    """Name the hour, the distance and the borough whose answers are most off as a whole.

    Args:
        errors: as `diagnostics.residuals` gives it.
    """
    groups = {
        "hour": errors["pickup_at"].dt.hour.map("{}:00".format),
        "distance": mile_classes(errors["trip_distance"]).astype(object),
        "pickup borough": pd.Series(zone_table().borough[errors["PULocationID"]], errors.index),
    }
    found = []
    for name, group in groups.items():
        error = errors["error"].groupby(group, observed=True)
        bias = error.mean()[error.size() >= FEW_TRIPS]
        if len(bias):
            worst = bias.abs().idxmax()
            unit = " miles" if name == "distance" else ""
            found.append(f"{name} {worst}{unit} ({bias[worst]:+.2f} minutes)")
    return (
        f"On average answers are {errors['error'].mean():+.2f} minutes off. Most off as a whole: "
        f"{_names(found)}."
    )


def describe_calibration(table: pd.DataFrame) -> str:
    """Say in which tenth of the answers the mean and the interval are worst."""
    bias = table["predicted"] - table["actual"]
    off, inside = bias.abs().idxmax(), table["inside"]
    worst = (inside - NOMINAL_COVERAGE).abs().idxmax()
    return (
        f"Furthest from the truth: answers of about {table.loc[off, 'predicted']:.0f} minutes, by "
        f"{bias[off]:+.2f}. P10-P90 holds {inside.min():.0%} to {inside.max():.0%} of a tenth's "
        f"trips; furthest from 80 % at about {table.loc[worst, 'predicted']:.0f} minutes."
    )


def describe_worst(errors: pd.DataFrame, trips: int = 100) -> str:
    """Say what the worst answers have in common, beside all trips."""
    order = errors["error"].abs().sort_values(ascending=False).index
    worst = errors.loc[order[:trips]]
    shares = [
        f"{name}: {test(worst).mean():.0%} (of all trips {test(errors).mean():.0%})"
        for name, test in (
            ("answered too short", lambda e: e["error"] < 0),
            ("no believable distance", lambda e: add_speed(e)["miles"].isna()),
            ("slower than walking, 3 mph", lambda e: add_speed(e)["speed_mph"] < 3.0),
        )
    ]
    return f"Of the {len(worst)} worst answers, " + "; ".join(shares) + "."


def describe_reasons(reasons: pd.DataFrame) -> str:
    """Name what moves an answer most, with and without distance."""
    first = [f"{column}: {reasons[column].idxmax()}" for column in reasons]
    return f"What moves an answer most ({'; '.join(first)})."


def describe_curve(curve: pd.DataFrame) -> str:
    """Say what the second half of the days bought.

    Args:
        curve: as `diagnostics.learning_curve` gives it; the last row is the whole window.
    """
    before, whole = curve.iloc[-2], curve.iloc[-1]
    gain = before["rmse"] - whole["rmse"]
    return (
        f"From {before['days']:.0f} to {whole['days']:.0f} days the RMSE changes by {-gain:+.3f} "
        f"minutes ({-gain / before['rmse']:+.1%}) with distance, by "
        f"{whole['rmse_no_distance'] - before['rmse_no_distance']:+.3f} without."
    )


def describe_longer_window(curve: pd.DataFrame) -> str:
    """Say what twice as many days would buy, if the learning curve went on as it ends.

    Args:
        curve: as `diagnostics.learning_curve` gives it, each row about twice the one before.
    """
    days, said = int(curve["days"].iloc[-1]), []
    for column, words in (("rmse", "with distance"), ("rmse_no_distance", "without")):
        rmse = curve[column].to_numpy()
        said.append(f"{_next_gain(rmse) / rmse[-1]:.1%} {words}")
    if said[0].startswith("0.0%"):
        return f"a longer TRAIN_DATA than {days} days would hardly help: the last half did not"
    return (
        f"twice the {days} days of TRAIN_DATA would lower the RMSE by about {', '.join(said)}, if "
        "its curve (notebook 03) went on as it ends"
    )


def describe_boosting(curve: pd.DataFrame | None) -> str:
    """Say what each doubling of the rows bought, and what the next one would at this pace.

    Args:
        curve: as `diagnostics.boosting_curve` gives it, each row twice the one before.
    """
    if curve is None:
        return "This kind of model is not boosted: it learns from sums over all trips, or a forest."
    rows, rmse = curve["rows"].to_numpy(), curve["rmse"].to_numpy()
    said = ", ".join(f"{-gain:+.3f}" for gain in rmse[:-1] - rmse[1:])
    text = f"Doubling the rows up to {rows[-1]:,} changes the RMSE by {said} minutes."
    ahead = _next_gain(rmse)
    if ahead <= 0:
        return f"{text} The last doubling bought nothing: more rows would only cost time."
    return f"{text} At this pace the next one would buy about {ahead:.3f} ({ahead / rmse[-1]:.1%})."


def _next_gain(rmse: np.ndarray) -> float:
    """Return what the next doubling would buy: each gain is mostly a constant share of the last.

    Args:
        rmse: after each doubling, shape (n,), n > 2; 0 where the last one bought nothing.
    """
    before, last = (rmse[-3:-1] - rmse[-2:]).tolist()
    if last <= 0:
        return 0.0
    return last * min(last / before, 1.0) if before > 0 else last


def describe_ranking(table: pd.DataFrame) -> str:
    """Say by how much the best model is ahead of the next and of the best lookup.

    Args:
        table: as `candidates.rank_candidates` gives it.
    """
    lookup = table["is_baseline"].to_numpy(dtype=bool)
    models, lookups = table["rmse"][~lookup], table["rmse"][lookup]
    text = f"{models.index[0]} is first of {len(models)} with {models.iloc[0]:.3f} minutes"
    if len(models) > 1:
        text += f", {models.iloc[1] - models.iloc[0]:.3f} ahead of {models.index[1]}"
    gap = lookups.iloc[0] - models.iloc[0]
    side = "better" if gap > 0 else "worse"
    return f"{text}, and {abs(gap):.3f} {side} than the best lookup, {lookups.index[0]}."


def _names(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"
