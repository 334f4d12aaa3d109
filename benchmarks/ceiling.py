"""How much is left to learn: trees that were shown the target month's own trips, too.

A year's model answers a month after it. Beside it stand answers that nobody could have given: the
same with the month's true level, and those of trees that learned from the year and from three
quarters of the month's own trips, drawn by chance, and answer the other quarter. What those do not
reach, no better trees over these features would. All trees may fall where the distance grows.

    python benchmarks/ceiling.py                       # 2022-02 and 2022-04, some ten minutes
    python benchmarks/ceiling.py --target 2021-12
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from results import Results

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import error_metrics
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.model.trees import TreeEnsemble
from taxi_duration.training.boosting import RowBatch, boost_here
from taxi_duration.training.feature_tables import fit_tables, window_atlas
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.tree_models import THREADS, Lesson, TreeKind
from taxi_duration.training.tree_packing import from_xgboost
from taxi_duration.training.window_sums import window_sums

TARGETS = ("2022-02", "2022-04")
YEAR = 12  # months
ROWS = 400_000  # of the year's, drawn by weight
PARTS = 4  # of the target's trips; each is answered by who learned from the others
# A trip of the target weighs as much as the newest of the year, and half as much again.
WEIGHT = 1.5


class Asked(NamedTuple):
    """Trips of the target: features (n, k), what they took, and the level of their days, (n,)."""

    rows: np.ndarray
    actual: np.ndarray
    level: np.ndarray


def main() -> None:
    """Print and keep the RMSE of each target with and without distance."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", action="append", help="a month; may be given again")
    targets = parser.parse_args().target or TARGETS
    results = Results("ceiling")
    print("| | RMSE | with the month's level | and its other trips |\n| --- | --- | --- | --- |")
    for target in targets:
        for with_distance, learned, asked in _lessons(target):
            of = target if with_distance else f"{target}, no distance"
            usual, levelled, shown = _errors(learned, asked)
            print(f"| {of} | {usual:.3f} | {levelled:.3f} | {shown:.3f} |", flush=True)
            results.add(of, "RMSE", usual, "minutes")
            for what, rmse in (("with the month's level", levelled), ("its other trips", shown)):
                results.add(of, what, 100 * (rmse / usual - 1), "%")
    results.write()


def _lessons(target: str) -> Iterator[tuple[bool, RowBatch, Asked]]:
    """Yield what is learned from and what is asked, with distance and without."""
    [month] = parse_months(target)
    before = [month.shift(-i) for i in range(YEAR, 0, -1)]
    window = Window.learnable(prepare_months("green", before))
    rides, actual = Window.scored(prepare_months("green", [month])).whole()
    lesson = _kind().prepare(window, most=ROWS)
    sums = window_sums(window)
    tables = fit_tables(sums.table_sums(None), sums.curve, window_atlas(window))
    nothing = TreeEnsemble(*np.zeros((2, 0)), base=0.0)
    model = TreeModel(tables, nothing, nothing, lesson.conditions, level=lesson.level.ahead)
    for with_distance in (True, False):
        asked = model.uses_distance(rides) if with_distance else np.full(len(rides), True)
        yield (
            with_distance,
            _all_rows(lesson, with_distance),
            _asked(model, rides.take(asked), actual[asked], with_distance),
        )


def _kind() -> TreeKind:
    kind = KINDS["XGB"]
    assert isinstance(kind, TreeKind)
    return kind


def _all_rows(lesson: Lesson, with_distance: bool) -> RowBatch:
    columns = zip(*lesson.batches(with_distance), strict=True)
    return RowBatch(*(np.concatenate(column) for column in columns))


def _asked(model: TreeModel, rides: Rides, actual: np.ndarray, with_distance: bool) -> Asked:
    level = model.level.of(rides.pickup_at)
    return Asked(model.rows(rides, with_distance), actual, level)


def _errors(learned: RowBatch, asked: Asked) -> tuple[float, float, float]:
    """Return the RMSE of the year's trees, with the true level, and of those shown more."""
    answers = _answers(learned, asked)
    level = float(asked.actual @ answers / (answers @ answers))
    part = np.random.default_rng(0).integers(0, PARTS, len(asked.actual))
    shown = np.empty(len(part))
    for k in range(PARTS):
        some, others = (Asked(*(of[m] for of in asked)) for m in (part == k, part != k))
        shown[part == k] = _answers(_with(learned, others), some)
    given = (answers, answers * level, shown)
    return tuple(error_metrics(asked.actual, minutes)["rmse"] for minutes in given)


def _with(learned: RowBatch, shown: Asked) -> RowBatch:
    weight = np.full(len(shown.actual), WEIGHT * learned.weight.max(), dtype="float32")
    more = RowBatch(shown.rows, (shown.actual / shown.level).astype("float32"), weight)
    return RowBatch(*(np.concatenate(both) for both in zip(learned, more, strict=True)))


def _answers(learned: RowBatch, asked: Asked) -> np.ndarray:
    """Return answers of trees that are the same whatever the number of rows."""
    parameters = _kind().used_parameters(ROWS)
    trees = from_xgboost(boost_here(lambda: iter([learned]), parameters, 0, THREADS))
    return np.clip(trees.predict(asked.rows) * asked.level, *TRIP_MINUTES).astype("float64")


if __name__ == "__main__":
    main()
