"""Do intervals hold what they promise, month by month, group by group, and week by week?

Month-old models answer the month after the one they learned from. Three tables: their intervals as
fitted; those calibrated anew on a month's answers, on the month after (as a refit does); and the
intervals week by week while feedback stretches them (`live/interval_stretch.py`), with and without
the live traffic, each ride knowing only truths that had been told.

    python benchmarks/intervals.py [--months 2020-03:2021-06] [--answers build/bench/answers]
                                   [--told 0.1] [--fresh] [--false 0.05]

A file of answers is made where it is missing (a fit a month) and read again the next time.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from results import PROJECT

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.pickup_calendar import hours_of_day
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.evaluation.metrics import interval_metrics
from taxi_duration.live.interval_stretch import IntervalStretch, StretchSettings
from taxi_duration.live.traffic_bins import (
    BIN_MINUTES,
    BINS_A_DAY,
    SUMS,
    TrafficBins,
    end_bin,
    minute_of,
    zone_areas,
)
from taxi_duration.loop.traffic_replay import AnsweredRides, TrafficReplay
from taxi_duration.model.duration_model import interval_groups
from taxi_duration.model.intervals import KIND_NAMES, SUPPORTS, Intervals, scale_places
from taxi_duration.training.calibration import both_intervals
from taxi_duration.training.fit import fit_model

BLOCK = 60 // BIN_MINUTES  # bins that are answered with one stretch
HOURS = {"0-5": (0, 6), "6-9": (6, 10), "10-15": (10, 16), "16-19": (16, 20), "20-23": (20, 24)}
FALSE_FACTOR = 3.0  # what a false truth is of the true one
NOT_THERE = "2020-08"  # of the months around it, none of ours


class Answered(NamedTuple):
    """Scored rides of a month in order of pickup and what a month-old model answered to them.

    Args:
        minutes: with and without distance, shape (2, n).
        quantiles: P10, P50, P90 of the same, shape (2, n, 3).
        used: whose distance was used.
    """

    rides: Rides
    actual: np.ndarray
    minutes: np.ndarray
    quantiles: np.ndarray
    support: np.ndarray
    used: np.ndarray


def main() -> None:
    """Print the tables."""
    asked = _arguments()
    months = list(_months(asked))
    print("\n### Intervals as fitted\n\n" + HEADER)
    for month, each in months:
        _print(month, each, each.quantiles)
    print("\n### Calibrated on the answers of the month before\n\n" + HEADER)
    anew = []
    for (_, before), (month, each) in itertools.pairwise(months):
        fitted = both_intervals(
            before.rides, before.actual, before.minutes, before.support, before.used
        )
        quantiles = np.array([_ask(fitted, each, given) for given in (True, False)])
        anew.append((month, each._replace(quantiles=quantiles)))
        _print(month, each, quantiles)
    if anew:
        _live(anew, asked)


def _months(asked: argparse.Namespace) -> Iterator[tuple[str, Answered]]:
    """Yield answers to each month by the model of the month before it that is there."""
    tags = [tag for month in parse_months(asked.months) if (tag := str(month)) != NOT_THERE]
    for train, month in itertools.pairwise(tags):
        file = asked.answers / f"green-{train}-to-{month}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **_answer(train, month))
        with np.load(file) as kept:
            yield month, _take(month, {name: kept[name] for name in kept.files})


def _answer(train: str, month: str) -> dict[str, np.ndarray]:
    """Fit XGB on a month and answer every ride of another."""
    learned, later = (prepare_months("green", parse_months(tag)) for tag in (train, month))
    model, frame = fit_model("XGB", Window.learnable(learned)), later[0].every_ride()
    rides = Rides.from_frame(frame)
    given, none = model.answer(rides), model.answer(rides.without_distance())
    return {
        "pickup_at": rides.pickup_at, "PU": rides.PULocationID, "DO": rides.DOLocationID,
        "trip_distance": rides.trip_distance, "actual": frame["duration"].to_numpy(),
        "minutes": given.duration, "p10": given.p10, "p50": given.p50, "p90": given.p90,
        "used": given.used_distance, "support": given.support, "minutes_none": none.duration,
        "p10_none": none.p10, "p50_none": none.p50, "p90_none": none.p90,
    }  # fmt: skip


def _take(month: str, kept: dict[str, np.ndarray]) -> Answered:
    """Take the scored rides that were picked up within the month."""
    scored = (kept["actual"] >= TRIP_MINUTES[0]) & (kept["actual"] <= TRIP_MINUTES[1])
    rows = np.flatnonzero(
        scored & (kept["pickup_at"].astype("datetime64[M]") == np.datetime64(month))
    )
    rows = rows[np.argsort(kept["pickup_at"][rows], kind="stable")]
    of = {name: column[rows] for name, column in kept.items()}
    quantiles = [[of[f"{p}{none}"] for p in ("p10", "p50", "p90")] for none in ("", "_none")]
    return Answered(
        Rides(of["PU"], of["DO"], of["pickup_at"], of["trip_distance"]),
        of["actual"].astype("float64"),
        np.array([of["minutes"], of["minutes_none"]], dtype="float64"),
        np.moveaxis(np.array(quantiles, dtype="float64"), 1, 2),
        of["support"], of["used"],
    )  # fmt: skip


def _ask(fitted: tuple[Intervals, Intervals], each: Answered, given: bool) -> np.ndarray:
    """Return P10, P50, P90 of a month's rides, shape (n, 3), as `DurationModel.answer` does."""
    rides = each.rides if given else each.rides.without_distance()
    used, base = each.used & given, np.clip(each.minutes[0 if given else 1], *TRIP_MINUTES)
    group, places = interval_groups(rides, each.support), scale_places(rides, used)
    quantiles = np.empty((len(rides), 3))
    for intervals, rows in zip(fitted, (used, ~used), strict=True):
        scale = intervals.scale([place[rows] for place in places])
        quantiles[rows] = intervals.quantiles(base[rows], group[rows], scale)
    return quantiles


# --- week by week ----------------------------------------------------------------------------


def _live(months: list[tuple[str, Answered]], asked: argparse.Namespace) -> None:
    """Print what feedback does, with the asked distance, over all months in a row."""
    rng, traffic = np.random.default_rng(1), TrafficReplay()
    ways: dict[str, list[np.ndarray]] = {}
    bins = {way: LiveBins() for way in ("stretched", "traffic, stretched")}
    for _, each in months:
        told = rng.random(len(each.actual)) < asked.told
        said = np.where(rng.random(len(told)) < asked.false, FALSE_FACTOR, 1.0) * each.actual
        base = np.clip(each.minutes[0], *TRIP_MINUTES)
        known_at = np.where(told, 0.0, np.inf)
        areas = zone_areas()[each.rides.PULocationID]
        factor = traffic.factors(AnsweredRides(each.rides.pickup_at, areas, said, base, known_at))
        fixed = each.quantiles[0]
        moved = np.clip(fixed * factor[:, None], *TRIP_MINUTES)
        for way, quantiles in (("as fitted", fixed), ("traffic", moved)):
            ways.setdefault(way, []).append(quantiles)
        for way, quantiles in zip(bins, (fixed, moved), strict=True):
            if asked.fresh:
                bins[way] = LiveBins()
            ways.setdefault(way, []).append(bins[way].stretch(each, quantiles, said, told))
    print(f"\n### Weeks, {asked.told:.0%} told, {asked.false:.0%} of them false\n")
    print("| | weeks within 75-85 % | narrowest | widest | coverage | width | pinball | crps |")
    print("|---|---|---|---|---|---|---|---|")
    for way, parts in ways.items():
        print(_weeks(way, months, parts))


class LiveBins:
    """The bins of one version as time goes on, and the stretch that they give."""

    def __init__(self, settings: StretchSettings | None = None) -> None:
        self._settings = settings
        self._start: int | None = None
        self._sums = np.zeros((3, 0))  # rides, below and above by bin

    def stretch(
        self, each: Answered, quantiles: np.ndarray, said: np.ndarray, told: np.ndarray
    ) -> np.ndarray:
        """Return the quantiles of a month as stretched; what its rides tell is kept.

        Args:
            quantiles: P10, P50, P90, shape (n, 3).
            said: true durations as they are told.
            told: whose are, bool of shape (n,).
        """
        slot = minute_of(each.rides.pickup_at) // BIN_MINUTES
        self._make_room(int(slot[0]), int(slot[-1]))
        counts = told & (said >= TRIP_MINUTES[0]) & (said <= TRIP_MINUTES[1])
        place = end_bin(each.rides.pickup_at, said) - (self._start or 0)
        edges = np.searchsorted(slot // BLOCK, np.unique(slot // BLOCK))
        out = np.empty_like(quantiles)
        for start, end in zip(edges, [*edges[1:], len(slot)], strict=True):
            rows = slice(start, end)
            stretch = self._now(int(slot[start]) // BLOCK * BLOCK)
            middle = quantiles[rows, 1:2]
            sides = np.array([stretch[0], 1.0, stretch[1]])
            out[rows] = np.clip(middle + (quantiles[rows] - middle) * sides, *TRIP_MINUTES)
            below, above = said[rows] < out[rows, 0], said[rows] > out[rows, 2]
            for sums, what in zip(self._sums, (np.ones(end - start), below, above), strict=True):
                np.add.at(sums, place[rows][counts[rows]], what[counts[rows]])
        return out

    def _make_room(self, first: int, last: int) -> None:
        if self._start is None:
            self._start = first
        room = last + 2 * BINS_A_DAY - self._start - self._sums.shape[1]
        self._sums = np.hstack([self._sums, np.zeros((3, max(room, 0)))])

    def _now(self, slot: int) -> tuple[float, float]:
        end = slot - (self._start or 0)
        first = max(end - 15 * BINS_A_DAY, 0)
        sums = dict(zip(("rides", "below", "above"), self._sums[:, first:end], strict=True))
        none = np.zeros(end - first)
        number = np.arange(first, end) + (self._start or 0)
        bins = TrafficBins(number, number * 0, *(sums.get(name, none) for name in SUMS))
        return IntervalStretch(bins, self._settings).at(slot * BIN_MINUTES)


def _weeks(way: str, months: list[tuple[str, Answered]], parts: list[np.ndarray]) -> str:
    """Return the line of one way over all weeks of all months."""
    pickup_at = np.concatenate([each.rides.pickup_at for _, each in months])
    actual = np.concatenate([each.actual for _, each in months])
    quantiles = np.concatenate(parts)
    inside = (actual >= quantiles[:, 0]) & (actual <= quantiles[:, 2])
    week = (pickup_at.astype("datetime64[D]").astype("int64") + 3) // 7
    names, place, rides = np.unique(week, return_inverse=True, return_counts=True)
    share = (np.bincount(place, inside) / rides)[rides >= LEAST_RIDES]
    names = names[rides >= LEAST_RIDES]
    good = f"{np.sum((share >= 0.75) & (share <= 0.85))} of {len(share)}"
    low, high = (f"{share[i]:.1%} ({_monday(names[i])})" for i in (share.argmin(), share.argmax()))
    figures = interval_metrics(actual, _answers(quantiles))
    return (
        f"| {way} | {good} | {low} | {high} | {figures['coverage']:.1%} "
        f"| {figures['mean_width']:.2f} | {figures['pinball']:.4f} | {figures['crps']:.4f} |"
    )


LEAST_RIDES = 1000  # of a week: the rest of one at an end of the months says little


def _monday(week: int) -> np.datetime64:
    return np.datetime64(int(week) * 7 - 3, "D")


# --- month by month --------------------------------------------------------------------------

HEADER = (
    "| month | | coverage | " + " | ".join(f"{name} h" for name in HOURS)
    + " | airport | unusable | width | pinball | crps |\n" + "|---" * (len(HOURS) + 8) + "|"
)  # fmt: skip


def _print(month: str, each: Answered, quantiles: np.ndarray) -> None:
    for name, part in zip(("given", "none"), quantiles, strict=True):
        inside = (each.actual >= part[:, 0]) & (each.actual <= part[:, 2])
        figures = interval_metrics(each.actual, _answers(part))
        shares = [_share(inside, rows) for rows in _groups(each)]
        losses = [
            f"{figures['mean_width']:.2f}",
            f"{figures['pinball']:.4f}",
            f"{figures['crps']:.4f}",
        ]
        cells = [month, name, f"{figures['coverage']:.1%}", *shares, *losses]
        print(f"| {' | '.join(cells)} |", flush=True)


def _groups(each: Answered) -> Iterator[np.ndarray]:
    """Which rides are of each group of hours, of airports, and without a usable distance."""
    hour = hours_of_day(each.rides.pickup_at)
    for first, after in HOURS.values():
        yield (hour >= first) & (hour < after)
    group = interval_groups(each.rides, each.support)
    yield group // SUPPORTS == KIND_NAMES.index("airport")
    yield ~each.used


def _share(inside: np.ndarray, rows: np.ndarray) -> str:
    return f"{inside[rows].mean():.1%}" if rows.any() else "–"


def _answers(quantiles: np.ndarray) -> Answers:
    low, middle, high = quantiles.T
    return Answers(middle, low, middle, high, np.zeros(len(low)), np.zeros(len(low), bool))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--months", default="2020-03:2021-06", help="the first is only learned from"
    )
    parser.add_argument("--answers", type=Path, default=PROJECT / "build" / "bench" / "answers")
    parser.add_argument("--told", type=float, default=1.0, help="share of truths that are told")
    parser.add_argument(
        "--false", type=float, default=0.0, help="share of told ones thrice as long"
    )
    parser.add_argument("--fresh", action="store_true", help="a new model's bins are empty")
    return parser.parse_args()


if __name__ == "__main__":
    main()
