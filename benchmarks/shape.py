"""How an answer moves when only the distance or only the time of a question changes.

200 trips of a month stand for their pairs of zones, frequent ones more often. Each is asked for
every tenth of a mile from 0.1 to 50, at its own time; and for every minute of its own day and the
first of the next, with its own distance and without. Prints a Markdown table: by how much answers
fall below one for a shorter distance, among the distances that were used, and how far two
minutes in a row are apart.

    python benchmarks/shape.py models/green-duration/1 [MORE BUNDLES] [--months 2021-02]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from taxi_duration import environment
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.model.bundle import load_bundle
from taxi_duration.model.duration_model import DurationModel

PAIRS, SEED = 200, 20
MILES = np.arange(1, 501, dtype="float32") / 10
DAY_MINUTES = 1440
FALL, JUMP = 1.0, 2.0  # minutes; above these a fall or a jump is counted


class Shape(NamedTuple):
    """What was found, one number for each pair, shape (n,)."""

    fall: np.ndarray  # minutes below the largest answer for a shorter distance
    refused: np.ndarray  # share of the distances that were not used
    jump: np.ndarray  # largest step from one minute of the day to the next, distance given
    jump_without: np.ndarray  # without distance
    midnight: np.ndarray  # from the last minute of the day to the first of the next


def main() -> None:
    """Print a row for each bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, help="folders with model.bin")
    parser.add_argument("--service", default="green")
    parser.add_argument("--months", default="2021-02", help="whose trips are drawn")
    arguments = parser.parse_args()
    months = prepare_months(arguments.service, parse_months(arguments.months))
    rides = draw_rides(Window.learnable(months))
    print_header()
    for folder in arguments.bundles:
        model, _ = load_bundle(folder, environment.signing_key())
        print_row(str(folder), measure(model, rides))


def draw_rides(window: Window) -> Rides:
    """Return a trip of each of PAIRS pairs whose distance can be one, drawn by trips."""
    rides, _ = window.whole()
    rides = rides.take((rides.trip_distance > 0) & (rides.trip_distance <= MILES[-1]))
    order = np.random.default_rng(SEED).permutation(len(rides))
    pair = rides.PULocationID.astype("int32")[order] * 1000 + rides.DOLocationID[order]
    _, first = np.unique(pair, return_index=True)
    return rides.take(order[np.sort(first)[:PAIRS]])


def measure(model: DurationModel, rides: Rides) -> Shape:
    """Ask a model about each ride at every distance, and at every minute."""
    near_day = _at_minutes(rides)
    answers = model.answer(_at_distances(rides))
    minutes = answers.duration.reshape(len(rides), -1)
    used = answers.used_distance.reshape(minutes.shape)
    steps, steps_without = (
        np.abs(np.diff(model.answer(asked).duration.reshape(len(rides), -1), axis=1))
        for asked in (near_day, near_day.without_distance())
    )
    return Shape(
        np.array([_fall(m[u]) for m, u in zip(minutes, used, strict=True)]),
        1 - used.mean(axis=1),
        steps[:, :-1].max(axis=1),
        steps_without[:, :-1].max(axis=1),
        np.maximum(steps[:, -1], steps_without[:, -1]),
    )


def _fall(minutes: np.ndarray) -> float:
    return float((np.maximum.accumulate(minutes) - minutes).max(initial=0.0))


def _at_distances(rides: Rides) -> Rides:
    many = rides.take(np.repeat(np.arange(len(rides)), len(MILES)))
    miles = np.tile(MILES, len(rides))
    return Rides(many.PULocationID, many.DOLocationID, many.pickup_at, miles)


def _at_minutes(rides: Rides) -> Rides:
    minutes = np.arange(DAY_MINUTES + 1).astype("timedelta64[m]")
    many = rides.take(np.repeat(np.arange(len(rides)), len(minutes)))
    midnight = rides.pickup_at.astype("datetime64[D]").astype("datetime64[s]")
    at = (midnight[:, None] + minutes).ravel()
    return Rides(many.PULocationID, many.DOLocationID, at, many.trip_distance)


def print_header() -> None:
    """Print what the columns of `print_row` are called."""
    of = "max", f"pairs above {JUMP:g} min"
    cells = ["model", "largest fall, min", f"pairs falling above {FALL:g} min", "distances refused"]
    for what in ("step of a minute", "step without distance", "step at midnight"):
        cells += [f"{what}, {each}" for each in of]
    _print_cells(cells)
    _print_cells(["---"] * len(cells))


def print_row(name: str, shape: Shape) -> None:
    """Print the worst pair and the counts."""
    cells = [name, f"{shape.fall.max():.2f}", f"{(shape.fall > FALL).sum()} of {len(shape.fall)}"]
    cells += [f"{shape.refused.mean():.0%}"]
    for jump in (shape.jump, shape.jump_without, shape.midnight):
        cells += [f"{jump.max():.2f}", str((jump > JUMP).sum())]
    _print_cells(cells)


def _print_cells(cells: list[str]) -> None:
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
