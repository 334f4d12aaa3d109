"""How long one ride takes inside the process, and a frame of rides, by kind of model.

Prints Markdown tables; timings are of this machine at this moment, to be compared with each
other and not with another day's.

    python benchmarks/predictor.py models/green-duration/1    # a saved bundle, or several
    python benchmarks/predictor.py                            # trains every kind on the sample
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from results import Results

from taxi_duration import environment
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.trips import read_dataframe
from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.model.bundle import load_bundle, save_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.features import RideFeatures, known_distance, transform
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.training.boosting import xgb_settings
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import KINDS

ROUNDS = 5  # of everything; the median round is told, against a noisy machine
NOT_SCORED = {"rmse": 0.0, "mae": 0.0}
CARD = {
    "created": "2021-03-01T00:00:00+00:00", "service": "green", "data_source": "sample",
    "train_data": "2021-01", "val_data": "2021-02", "months": {"train": [], "validation": []},
    "metrics": {"with_distance": NOT_SCORED, "without_distance": NOT_SCORED},
    "parameters": {}, "libraries": {}, "git_commit": "unknown", "run_id": "benchmark",
}  # fmt: skip
RIDES = 4000  # asked one by one in a round
Question = tuple[int, int, datetime, float]

COLD_START = """
import sys, time
marks = [(time.perf_counter(), time.process_time())]
from taxi_duration.model.bundle import load_bundle
from taxi_duration.model.ride_predictor import RidePredictor
marks.append((time.perf_counter(), time.process_time()))
predictor = RidePredictor(load_bundle(sys.argv[1])[0])
marks.append((time.perf_counter(), time.process_time()))
for (wall, cpu), (later, cpu_later) in zip(marks, marks[1:]):
    print(1000 * (later - wall), 1000 * (cpu_later - cpu))
from peak_memory import peak_bytes
print(peak_bytes() / 2**20)
"""


def main() -> None:
    """Time the bundles given, or freshly trained ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path, help="folders with model.bin")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--rows", type=int, default=20_000, help="of the sample month")
    arguments = parser.parse_args()
    results = Results("predictor")
    with tempfile.TemporaryDirectory() as folder:
        month = _sample_month(Path(folder), arguments.rows)
        bundles = arguments.bundles or list(_train(month, arguments.kinds, Path(folder)))
        rides = Rides.from_frame(month)
        _time_rides(bundles, rides, results)
        _time_cold_starts(bundles)
    results.write()


def _sample_month(folder: Path, rows: int):
    path = folder / "green_tripdata_2021-01.parquet"
    pq.write_table(make_sample_month("green", "2021-01", rows), path)
    return read_dataframe(path)


def _train(month, kinds: Iterable[str], folder: Path) -> Iterable[Path]:
    for kind in kinds:
        model = fit_model(kind, Window.from_frame(month))
        save_bundle(folder / kind, model, {**CARD, "model_kind": kind}, key=None)
        yield folder / kind


def _time_rides(bundles: Iterable[Path], rides: Rides, results: Results) -> None:
    questions = _questions(rides.take(np.arange(min(RIDES, len(rides)))))
    without_miles = [(*question[:3], None) for question in questions]
    _print_row(
        "one ride", "median µs", "p99 µs", "without distance", "explained", "frame rows/s",
        "features µs", "their rows/s",
    )  # fmt: skip
    _print_row(*["---"] * 8)
    for folder in bundles:
        model, _ = load_bundle(folder, environment.signing_key())
        predictor = RidePredictor(model)
        median, p99 = _microseconds(predictor.answer, questions)
        without, _ = _microseconds(predictor.answer, without_miles)
        reasons, _ = _microseconds(predictor.explain, questions[:500])
        per_second = len(rides) / _seconds(model.answer, rides)
        results.add(model.kind, "one ride", [median, p99], "median / p99, µs")
        results.add(model.kind, "rows/s of a frame", per_second, "rows/s")
        _print_row(
            f"{model.kind} {_size(model)}", f"{median:.1f}", f"{p99:.1f}", f"{without:.1f}",
            f"{reasons:.0f}", f"{per_second:,.0f}", *_time_features(model, rides, questions),
        )  # fmt: skip
        if model.kind == "XGB":
            _time_booster(model, rides, questions)
    print()


def _time_booster(model: DurationModel, rides: Rides, questions: list[Question]) -> None:
    """XGBoost's own ways to answer one row, and many, with trees of the same settings."""
    import xgboost

    settings = xgb_settings()
    rows = transform(rides, model.point.tables, with_distance=True)
    minutes = model.answer(rides).duration
    parameters = {**settings["parameters"], "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, minutes), settings["rounds"])
    features = RideFeatures(model.point.tables)
    asked = [(features.row(*question)[None],) for question in questions[:500]]
    median, p99 = _microseconds(booster.inplace_predict, asked)
    per_second = len(rows) / _seconds(booster.inplace_predict, rows)
    _print_row(
        "Booster.inplace_predict, trees alone, 1 thread", f"{median:.1f}", f"{p99:.1f}", "", "",
        f"{per_second:,.0f}", "", "",
    )  # fmt: skip


def _time_features(
    model: DurationModel, rides: Rides, questions: list[Question]
) -> tuple[str, str]:
    """Time one row of features, µs, and the rows a second of a frame; linear models have none."""
    if not isinstance(model.point, TreeModel):
        return "", ""
    median, _ = _microseconds(RideFeatures(model.point.tables).row, questions)
    seconds = _seconds(transform, rides, model.point.tables, True)
    return f"{median:.1f}", f"{len(rides) / seconds:,.0f}"


def _time_cold_starts(bundles: Iterable[Path]) -> None:
    _print_row("cold start", "import ms", "CPU", "load ms", "CPU", "peak MB")
    _print_row(*["---"] * 6)
    for folder in bundles:
        figures = np.median([_cold_start(folder) for _ in range(ROUNDS)], axis=0)
        _print_row(folder.name, *(f"{figure:.0f}" for figure in figures))


def _cold_start(folder: Path) -> list[float]:
    command = [sys.executable, "-c", COLD_START, str(folder)]
    ours = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ours)
    return [float(figure) for figure in done.stdout.split()]


def _questions(rides: Rides) -> list[Question]:
    miles = known_distance(rides.trip_distance)
    columns = (rides.PULocationID, rides.DOLocationID, rides.pickup_at, miles)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _microseconds(call: Callable, arguments: list[tuple]) -> tuple[float, float]:
    """Return median and 99th percentile of single calls, µs: the median round's."""
    rounds = []
    for _ in range(ROUNDS):
        times = []
        for argument in arguments:
            started = time.perf_counter_ns()
            call(*argument)
            times.append(time.perf_counter_ns() - started)
        rounds.append(np.percentile(times, [50, 99]) / 1000)
    median, p99 = np.median(rounds, axis=0)
    return float(median), float(p99)


def _seconds(call: Callable, *arguments: object) -> float:
    """Return the seconds of the median call."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call(*arguments)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _size(model: DurationModel) -> str:
    if not isinstance(model.point, TreeModel):
        return ""
    trees = model.point.with_distance
    return f"({len(trees.roots)} trees, {len(trees.nodes):,} nodes)"


def _print_row(*cells: str) -> None:
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
