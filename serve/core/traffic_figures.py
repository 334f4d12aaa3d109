"""The live traffic for people and programs: the levels, and the errors with and without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from prometheus_client.core import GaugeMetricFamily

from serve.bodies.folders import without_folders
from serve.core.answering import Answering
from serve.core.live_traffic import LiveTraffic
from serve.core.served_models import LoadedModel, served
from taxi_duration.live.traffic_bins import AREAS, BIN_MINUTES, TrafficBins
from taxi_duration.live.traffic_now import VersionTraffic, ride_clock

DAY_MINUTES = 24 * 60
SHOWN_MINUTES = 2 * DAY_MINUTES  # yesterday's rush beside today's
STEP_MINUTES = 2 * BIN_MINUTES  # of the line: as fine as the page shows
VERSION = ("version",)
NOTHING = "Answers follow no traffic yet: no true duration has come in."
OFF = "Off (TRAFFIC=off): answers are the model's own."
HELD_BACK = "Answers are the model's own: only some kinds of rides get feedback, says the monitor."


def traffic_content(answering: Answering, now: float) -> dict[str, Any]:
    """Return what the page for operators shows, as JSON types.

    `said` is a line for each version, `versions` a dict for each with a level: `areas` where
    rides have ended in the time shown, each with its `factor` now and a `line` of factors, each
    `step_minutes` from `since` to `until` (ride time); and the mean error of its rides `with` and
    `without` traffic, and the share of them in P10-P90 `covered_with` and `covered_without`.

    Args:
        now: unix seconds.
    """
    live = answering.traffic
    versions = [_version(loaded, level, now) for loaded, level in _levels(answering)]
    return {
        "is_on": live.is_on,
        "trouble": without_folders(live.problem),
        "said": "\n".join(map(_said, versions)) or _why_nothing(live),
        "step_minutes": STEP_MINUTES,
        "versions": versions,
    }


def _why_nothing(live: LiveTraffic) -> str:
    if not live.is_on:
        return OFF
    return HELD_BACK if live.is_held_back else NOTHING


def _said(version: dict[str, Any]) -> str:
    """Say how far off a version's answers were with and without traffic."""
    span = " to ".join(version[name].replace("T", " ") for name in ("since", "until"))
    if not version["rides"]:
        return f"{version['model']}, {span} (New York): no ride with a true duration ended."
    with_it, without = version["with"], version["without"]
    change = round(100 * (with_it / without - 1), 1) if without else 0.0
    compared = f" ({abs(change):.1f} % {'less' if change < 0 else 'more'})" if change else ""
    return (
        f"{version['model']}, {span} (New York): {version['rides']:,} rides, off by "
        f"{with_it:.2f} minutes with it and {without:.2f} without{compared}; "
        f"{version['covered_with']:.1%} and {version['covered_without']:.1%} in P10–P90."
    )


def _levels(answering: Answering) -> Iterator[tuple[LoadedModel, VersionTraffic]]:
    for loaded in served(answering.holder.serving):
        level = answering.traffic.of(loaded)
        if level is not None:
            yield loaded, level


def _version(loaded: LoadedModel, level: VersionTraffic, now: float) -> dict[str, Any]:
    until, ended = _shown_until(level.bins, now), _last_ended(level.bins)
    ats = np.arange(until - SHOWN_MINUTES, until + 1, STEP_MINUTES)
    lines, shown = level.levels(ats), _since(level.bins, until - SHOWN_MINUTES)
    areas = [
        {"name": AREAS[area], "factor": float(lines[-1, area]), "line": lines[:, area].tolist()}
        for area in sorted(set(level.bins.area[shown].tolist()))
    ]
    times = {"since": int(ats[0]), "until": int(ats[-1]), "last_ended": ended}
    return {
        "model": loaded.version, "arm": loaded.arm, "areas": areas,
        **{name: _iso(minute) for name, minute in times.items()},
        **_errors(level.bins, until),
    }  # fmt: skip


def _shown_until(bins: TrafficBins, now: float) -> int:
    """Return the last minute to show: now, or the end of rides that were replayed."""
    clock = ride_clock(now) // BIN_MINUTES * BIN_MINUTES
    ended = _last_ended(bins)
    return clock if clock - ended < SHOWN_MINUTES else ended


def _last_ended(bins: TrafficBins) -> int:
    """Return the minute by which the newest ride had ended."""
    return (int(bins.bin.max()) + 1) * BIN_MINUTES


def _since(bins: TrafficBins, minute: int) -> np.ndarray:
    since: np.ndarray = bins.bin * BIN_MINUTES >= minute
    return since


def _errors(bins: TrafficBins, until: int) -> dict[str, Any]:
    """Return mean absolute errors (minutes) and coverage (shares) of the rides of the time shown.

    Each as answered, and as the model alone would have: without traffic, nor its stretch.
    """
    shown = _since(bins, until - SHOWN_MINUTES)
    rides = float(bins.rides[shown].sum())
    inside = bins.rides - bins.below - bins.above
    inside_base = bins.rides - bins.below_base - bins.above_base
    columns = {"with": bins.off_with, "without": bins.off_without,
               "covered_with": inside, "covered_without": inside_base}  # fmt: skip
    sums = {name: column[shown].sum() for name, column in columns.items()}
    means = {name: float(one) / rides if rides else None for name, one in sums.items()}
    return {"rides": int(rides), **means}


def _iso(minute: int) -> str:
    return str(np.datetime64(minute, "m"))


def traffic_gauges(answering: Answering, now: float) -> Iterator[GaugeMetricFamily]:
    """Yield the levels, their errors, and how old they are; nothing where traffic is off.

    Args:
        now: unix seconds.
    """
    if not answering.traffic.is_on:
        return
    factor = GaugeMetricFamily("taxi_traffic", "Factor of a ride now.", labels=(*VERSION, "area"))
    of_days = "of the newest two days' rides, with and without traffic."
    error, covered = (
        GaugeMetricFamily(name, f"{what} {of_days}", labels=(*VERSION, "traffic"))
        for name, what in (("taxi_traffic_error_minutes", "Mean absolute error"),
                           ("taxi_traffic_coverage", "Share within P10-P90"))
    )  # fmt: skip
    ended = GaugeMetricFamily(
        "taxi_traffic_last_ended_age_seconds", "Since the newest ride ended.", labels=VERSION
    )
    stretch = GaugeMetricFamily(
        "taxi_interval_stretch",
        "Factor of the interval of a ride now, below and above its middle.",
        labels=(*VERSION, "side"),
    )
    clock = ride_clock(now)
    for loaded, level in _levels(answering):
        for area, value in zip(AREAS, level.levels(np.array([clock]))[0].tolist(), strict=True):
            factor.add_metric([loaded.version, area], value)
        for side, value in zip(("below", "above"), level.stretch(clock), strict=True):
            stretch.add_metric([loaded.version, side], value)
        found = _errors(level.bins, _shown_until(level.bins, now))
        for name in ("with", "without"):
            error.add_metric([loaded.version, name], found[name])
            covered.add_metric([loaded.version, name], found[f"covered_{name}"])
        ended.add_metric([loaded.version], 60.0 * (clock - _last_ended(level.bins)))
    yield from (factor, stretch, error, covered, ended)
    text = "Since all levels were read."
    yield GaugeMetricFamily(
        "taxi_traffic_refresh_age_seconds", text, value=answering.traffic.age_seconds
    )
