"""Trees over the ride's features: one ensemble that knows the distance, one that does not.

scikit-learn is imported where it fits: serving walks packed trees without them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from taxi_duration import environment
from taxi_duration.data import window as windows
from taxi_duration.data.engine import call_all
from taxi_duration.data.window import Window
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.features import DISTANCE_FEATURES, RISING
from taxi_duration.model.tree_model import TreeModel, with_conditions
from taxi_duration.model.trees import TreeEnsemble
from taxi_duration.training.boosting import Batches, LongSettings, RowBatch, WindowRows
from taxi_duration.training.day_groups import other_blocks
from taxi_duration.training.day_levels import day_level
from taxi_duration.training.feature_tables import (
    FeatureBatch,
    FoldTables,
    fit_tables,
    fold_tables,
    window_atlas,
)
from taxi_duration.training.sampling import Sample, draw_sample
from taxi_duration.training.tree_packing import without_missing
from taxi_duration.training.window_sums import HALF_LIFE_DAYS, window_sums
from taxi_duration.training.window_trend import DriftingLevel, drifting_level

THREADS = 2
# A forest sorts its rows at every node, and holds them twice; chosen: six green months.
FOREST_ROWS = 500_000
# Rehearsals only calibrate intervals, whose coverage is the same from many fewer rows.
REHEARSAL_ROWS = 1_000_000
# Rehearsals that run together make their tables in turn, each while the one before is boosted.
_preparing = threading.Lock()


@dataclass(frozen=True)
class TreeKind:
    """Trees over the ride's features.

    Args:
        learn: fits a library's object on rows (n, k), minutes (n,) and weights (n,), with
            parameters, a seed and as many threads; or as `boost` does.
        pack: turns that object into our nodes.
        parameters: given to `learn`.
        quicker: those that differ in a rehearsal.
        rising: how the library calls a list of 1 for each feature with which answers may only
            grow, 0 for others.
        by_batch: it learns as `boost` does, from batches, and from BOOST_ROWS of them.
        long: parameters that differ where the rows are many, but in a rehearsal.
    """

    learn: Callable[..., Any]
    pack: Callable[[Any], TreeEnsemble]
    parameters: Mapping[str, Any]
    quicker: Mapping[str, Any]
    rising: str
    by_batch: bool = False
    long: LongSettings | None = None
    threads = THREADS  # that a fit keeps busy

    def most_rows(self, rehearsal: bool = False) -> int | None:
        """Return how many rows are learned from at most, None for all.

        Raises:
            SettingError: `BOOST_ROWS` is no number of rows.
        """
        most = environment.boost_rows() if self.by_batch else FOREST_ROWS
        return min(most or REHEARSAL_ROWS, REHEARSAL_ROWS) if rehearsal else most

    def used_parameters(self, rows: int) -> dict[str, Any]:
        """Return the parameters with which this number of rows is learned from."""
        return {**self.parameters, **(self.long.of(rows) if self.long else {})}

    def fit(
        self,
        window: Window,
        seed: int = 0,
        rehearsal: bool = False,
        left_out: int | None = None,
        most: int | None = None,
    ) -> TreeModel:
        """Fit tables on all trips and both ensembles on a sample, for days as the past shows them.

        Args:
            window: past trips of 1 to 60 minutes.
            rehearsal: a quicker fit, for trips of the window itself: to calibrate intervals.
            left_out: a block of days that is not learned from.
            most: trips that trees learn from, where they are to be fewer than usual.
        """
        sums, atlas = window_sums(window), window_atlas(window)
        with _preparing:
            lesson = self.prepare(window, seed, rehearsal, left_out, most)
            tables = fit_tables(sums.table_sums(left_out), sums.curve, atlas)
        learn = partial(self.learn_from, lesson, seed=seed, rehearsal=rehearsal)
        aided, unaided = call_all([partial(learn, True), partial(learn, False)])
        # A rehearsal answers for days of the window, too.
        level = lesson.level if rehearsal else lesson.level.ahead
        return TreeModel(tables, aided, unaided, lesson.conditions, level=level)

    def prepare(
        self,
        window: Window,
        seed: int = 0,
        rehearsal: bool = False,
        left_out: int | None = None,
        most: int | None = None,
    ) -> Lesson:
        """Return the rows that trees learn from; arguments as `fit`."""
        sums, conditions = window_sums(window), load_conditions()
        learned = window if left_out is None else other_blocks(window, sums.groups, left_out)
        pair_trips = sums.pair_trips(left_out)
        bounds = (self.most_rows(rehearsal), most, int(pair_trips.sum()))
        most = max(min(bound for bound in bounds if bound is not None), 1)
        folds = fold_tables(sums, left_out, window_atlas(window))
        sample = draw_sample(learned, most, seed, HALF_LIFE_DAYS, pair_trips)
        level = drifting_level(folds, sample.window, day_level(sums.days.last))
        names = () if conditions is None else conditions.names
        return Lesson(folds, sample, names, level, sums.curve.is_known)

    def learn_from(
        self, lesson: Lesson, with_distance: bool, seed: int = 0, rehearsal: bool = False
    ) -> TreeEnsemble:
        """Fit one ensemble; arguments as `fit`."""
        usual = {**self.parameters, **self.quicker}
        parameters = usual if rehearsal else self.used_parameters(len(lesson.sample.window))
        if with_distance:
            parameters[self.rising] = tuple(lesson.rising())
        batches: Batches = partial(lesson.batches, with_distance)
        if not self.by_batch:
            rows = (np.concatenate(column) for column in zip(*batches(), strict=True))
            return self.pack(self.learn(*rows, parameters, seed, THREADS))
        if environment.engine() == "dask" and not lesson.conditions:  # a file of this machine
            batches = lesson.where_trips_are(with_distance)
        is_all = self.most_rows(rehearsal) is None
        on_disk = is_all and len(lesson.sample.window) > environment.BOOST_ROWS
        return self.pack(self.learn(batches, parameters, seed, THREADS, on_disk))


@dataclass(frozen=True)
class Lesson:
    """What trees learn from.

    Args:
        folds: what features are looked up in.
        sample: the trips.
        conditions: names of the hour's conditions, the last columns.
        level: of days; minutes are learned as they would be on a usual day at the window's end.
        has_distances: some trips of the window have one; those of FHV have none.
    """

    folds: FoldTables
    sample: Sample
    conditions: tuple[str, ...]
    level: DriftingLevel
    has_distances: bool = True

    def batches(self, with_distance: bool) -> Iterator[RowBatch]:
        """Yield rows that know the distance, of trips that have one, or rows that do not."""
        for rides, minutes, rows, weight in self._features():
            weight = weight * self.sample.factor_of(rides.pickup_at)
            minutes = minutes / self.level.of(rides.pickup_at)
            whole, first = with_conditions(rows, self.conditions, rides.pickup_at)
            if with_distance and self.has_distances:
                used = TreeModel.has_usable_distance(rides)
                yield RowBatch(whole[used], minutes[used], weight[used])
            elif with_distance:  # nobody asks these trees, and no library learns from no rows
                yield RowBatch(whole, minutes, weight)
            else:
                yield RowBatch(np.ascontiguousarray(first), minutes, weight)

    def rising(self) -> list[int]:
        """Return 1 for each column of rows with distance that grows with it, 0 for others."""
        return [int(name in RISING) for name in (*DISTANCE_FEATURES, *self.conditions)]

    def where_trips_are(self, with_distance: bool) -> WindowRows:
        """Return the same rows, to be made on the workers that learn from them."""
        without = replace(self, sample=replace(self.sample, window=Window(())))
        return WindowRows(partial(_rows_of, without, with_distance), self.sample.window)

    def _features(self) -> Iterable[FeatureBatch]:
        """Features of the trips: those of one batch are kept, more are made anew each time."""
        is_one = len(self.sample.window) <= windows.BATCH_ROWS
        return self._kept if is_one else self.folds.batches(self.sample.window)

    @cached_property
    def _kept(self) -> list[FeatureBatch]:
        return list(self.folds.batches(self.sample.window))


def _rows_of(lesson: Lesson, with_distance: bool, window: Window) -> Iterator[RowBatch]:
    return replace(lesson, sample=replace(lesson.sample, window=window)).batches(with_distance)


def learn_forest(
    rows: np.ndarray,
    duration: np.ndarray,
    weight: np.ndarray,
    parameters: dict[str, Any],
    seed: int,
    threads: int,
) -> Any:
    """Return a fitted scikit-learn forest; arguments as in `TreeKind`."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(**parameters, random_state=seed, n_jobs=threads)
    return forest.fit(without_missing(rows), duration, weight)
