"""Sums over a window's trips: of all, without a block of days, without a fold of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from taxi_duration.data.engine import map_parts
from taxi_duration.data.window import Part, Window
from taxi_duration.domain.geometry import ZONES
from taxi_duration.model.curves import Curve
from taxi_duration.training import day_groups
from taxi_duration.training.curve_fitting import fit_curve
from taxi_duration.training.day_groups import BLOCKS, BY_ROW, DayCounts, DayGroups
from taxi_duration.training.history import history_settings
from taxi_duration.training.kept_sums import kept_days, kept_first, kept_second
from taxi_duration.training.keyed_sums import KeyedSums, all_keys
from taxi_duration.training.part_sums import (
    CELL_SUMS,
    PAIR_SUMS,
    PAIRS,
    PLAIN,
    USUAL_SUMS,
    USUAL_WEIGHTED,
    PartSums,
    add_groups,
    in_blocks,
    recency,
)

HALF_LIFE_DAYS = history_settings().half_life_days

# Bins of a curve; chosen: a month gives each over a thousand trips, and more bins bend no more.
MILES_CURVE_BINS = 60
CELL_COLUMNS = (*CELL_SUMS, *(f"known_{name}" for name in USUAL_SUMS))
CELL_WEIGHTED = len(CELL_SUMS) + USUAL_WEIGHTED  # the first of them; the others are plain


@dataclass(frozen=True)
class TableSums:
    """What tables are fitted from; trips weigh 1 on average.

    Args:
        seen: pairs (pickup * ZONES + drop-off) with trips in the window, rising, shape (p,).
        pairs: PAIR_SUMS of these, shape (p, k).
        keys: pair * CELLS + cell, rising, shape (m,).
        cells: CELL_COLUMNS of these, shape (m, k).
    """

    seen: np.ndarray
    pairs: np.ndarray
    keys: np.ndarray
    cells: np.ndarray

    def pair(self, name: str) -> np.ndarray:
        """Return one sum of every pair, shape (PAIRS,)."""
        values = np.zeros(PAIRS)
        values[self.seen] = self.pairs[:, PAIR_SUMS.index(name)]
        return values

    def cell(self, name: str) -> np.ndarray:
        """Return one sum of every key, shape (m,)."""
        return self.cells[:, CELL_COLUMNS.index(name)]


class WindowSums:
    """The sums of a window.

    Args:
        parts: of the window, some of them with trips.
        half_life: days; infinite for trips that count alike.
    """

    def __init__(self, parts: tuple[Part, ...], half_life: float) -> None:
        days = list(map_parts(kept_days, parts))
        held = [number for number, each in enumerate(days) if len(each)]  # a month may have none
        parts, days = tuple(parts[k] for k in held), [days[k] for k in held]
        self._parts, self.half_life = parts, half_life
        self.days = reduce(add, days)
        groups = [DayGroups.of(each) for each in days]
        self._blocks = blocks_of_parts(groups)
        placed = [g.mapped(b) for g, b in zip(groups, self._blocks, strict=True)]
        self.groups = _joined_groups(self.days, list(zip(days, placed, strict=True)))
        last = self.days.last
        self._weights = [recency(np.array([d.last]), last, half_life).item() for d in days]
        task = partial(kept_first, half_life=half_life)
        first: PartSums = reduce(add, (
            sums.placed(blocks, weight) for sums, blocks, weight in
            zip(map_parts(task, parts), self._blocks, self._weights, strict=True)
        ))  # fmt: skip
        self.seen = all_keys(first.pairs)
        self._pairs = np.zeros((len(first.pairs), len(self.seen), len(PAIR_SUMS)))
        for own, sums in zip(self._pairs, first.pairs, strict=True):
            own[np.searchsorted(self.seen, sums.keys)] = sums.values
        self._cells = first.cells
        # One for all folds and blocks: 60 knots through all trips reveal nothing of a single one.
        self.curve = _minutes_of_miles(first.miles)
        self._lock = threading.Lock()
        self._second: _Cells | None = None
        self._scales = {k: self._scale_without(k) for k in {None, *self.blocks}}

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to weigh trips and find their folds: no sums at all."""
        left = ("_parts", "_pairs", "_cells", "_second", "_lock", "seen")
        return {name: value for name, value in vars(self).items() if name not in left}

    @property
    def blocks(self) -> Sequence[int | None]:
        """The blocks that can be left out; None alone when all trips are in one of them."""
        held = [k for k in range(BLOCKS) if self._pairs[self._of(k)].any()]
        return held if len(held) > 1 else [None]

    def pairs(self, left_out: int | None = None) -> np.ndarray:
        """Return PAIR_SUMS of the seen pairs, without a block, shape (p, k).

        The weighted ones are of trips that weigh 1 on average.
        """
        return self._scaled_pairs(self._kept(left_out), self._scale(left_out))

    def pair_trips(self, left_out: int | None = None) -> np.ndarray:
        """Return how many trips go from zone to zone, without a block, int32, (266, 266)."""
        trips = np.zeros(PAIRS, dtype="int32")
        trips[self.seen] = self.pairs(left_out)[:, PAIR_SUMS.index("trips")]
        return trips.reshape(ZONES, ZONES)

    def weight_of(self, pickup_at: np.ndarray, left_out: int | None = None) -> np.ndarray:
        """Return how much each trip counts, 1 on average over all but a block, shape (n,)."""
        weight = recency(self.groups.days, self.days.last, self.half_life)
        return weight[self.groups.places(pickup_at)] * self._scale(left_out)

    def table_sums(self, left_out: int | None = None) -> TableSums:
        """Return the sums of all trips, without a block."""
        return self._table_sums(self._kept(left_out), self._scale(left_out))

    def fold_sums(self, left_out: int | None = None) -> Iterator[tuple[int, TableSums]]:
        """Yield each fold that holds trips with the sums of all others, without a block.

        Where all trips are in one fold (they are all alike), it gets the sums of itself.
        """
        kept, scale = self._kept(left_out), self._scale(left_out)
        whole = self._table_sums(kept, scale)
        for fold in range(day_groups.FOLDS):
            own = [group for group in kept if group % day_groups.FOLDS == fold]
            if not self._pairs[own].any():
                continue
            others = [group for group in kept if group not in own]
            if not self._pairs[others].any():
                yield fold, whole
                continue
            cells = whole.cells - self._table_sums(own, scale).cells
            yield fold, replace(whole, pairs=self._scaled_pairs(others, scale), cells=cells)

    def _of(self, block: int) -> range:
        return range(block * day_groups.FOLDS, (block + 1) * day_groups.FOLDS)

    def _kept(self, left_out: int | None) -> list[int]:
        groups = range(BLOCKS * day_groups.FOLDS)
        return [g for g in groups if left_out is None or g not in self._of(left_out)]

    def _scale(self, left_out: int | None) -> float:
        """What makes the weights of all trips but a block's 1 on average."""
        return self._scales.get(left_out, self._scales[None])  # some blocks have no trips

    def _scale_without(self, left_out: int | None) -> float:
        trips, weight = (
            self._pairs[self._kept(left_out), :, PAIR_SUMS.index(name)].sum()
            for name in ("trips", "weight")
        )
        return float(trips / weight)

    def _scaled_pairs(self, groups: list[int], scale: float) -> np.ndarray:
        pairs: np.ndarray = self._pairs[groups].sum(axis=0)
        pairs[:, len(PLAIN) :] *= scale
        return pairs

    def _table_sums(self, groups: list[int], scale: float) -> TableSums:
        second = self._made_second()
        cells = np.zeros((len(second.keys), len(CELL_COLUMNS)))
        for g in groups:
            cells[second.places[g], : len(CELL_SUMS)] += self._cells[g].values
            cells[second.usual_places[g], len(CELL_SUMS) :] += second.usual[g].values
        cells[:, :CELL_WEIGHTED] *= scale
        return TableSums(self.seen, self._scaled_pairs(groups, scale), second.keys, cells)

    def _made_second(self) -> _Cells:
        """Make the second pass when it is first asked for; several threads may ask."""
        with self._lock:
            if self._second is None:
                self._second = self._second_pass()
            return self._second

    def _second_pass(self) -> _Cells:
        task = partial(kept_second, half_life=self.half_life, curve=self.curve)
        plain = len(USUAL_SUMS) - USUAL_WEIGHTED
        usual = reduce(add_groups, (
            in_blocks(sums, blocks, np.repeat([weight, 1.0], [USUAL_WEIGHTED, plain]))
            for sums, blocks, weight in
            zip(map_parts(task, self._parts), self._blocks, self._weights, strict=True)
        ))  # fmt: skip
        keys = all_keys(self._cells)
        places, usual_places = (
            [np.searchsorted(keys, sums.keys).astype("int32") for sums in some]
            for some in (self._cells, usual)
        )
        return _Cells(keys, usual, places, usual_places)


@dataclass(frozen=True)
class _Cells:
    """The second sums by group, all keys, and the place of each group's keys among them."""

    keys: np.ndarray
    usual: tuple[KeyedSums, ...]
    places: list[np.ndarray]
    usual_places: list[np.ndarray]


_made: WeakKeyDictionary[Window, dict[float, WindowSums]] = WeakKeyDictionary()
_making = threading.Lock()


def window_sums(window: Window, half_life: float = HALF_LIFE_DAYS) -> WindowSums:
    """Return the sums of a window, made once as long as the window is held."""
    with _making:
        made = _made.setdefault(window, {})
        if half_life not in made:
            made[half_life] = WindowSums(window.parts, half_life)
        return made[half_life]


def blocks_of_parts(groups: list[DayGroups]) -> list[np.ndarray]:
    """Return for each part which of the window's blocks each of its own becomes.

    Blocks are equally many days in a row, as near as the thirds of parts allow: so a month's
    sums serve every window that it is in.
    """
    days = np.array([
        [np.count_nonzero(each.block == k) + np.count_nonzero(each.block == BY_ROW) / BLOCKS
         for k in range(BLOCKS)]
        for each in groups
    ])  # fmt: skip
    middle = (days.cumsum() - days.ravel() / 2) / max(days.sum(), 1)
    return list((middle * BLOCKS).astype("int64").clip(0, BLOCKS - 1).reshape(-1, BLOCKS))


def _joined_groups(days: DayCounts, parts: list[tuple[DayCounts, DayGroups]]) -> DayGroups:
    """Return the groups of all days; of a day in several parts, where most of its trips are."""
    most = np.zeros(len(days.days), "int64")
    block, fold = np.zeros_like(most), np.zeros_like(most)
    for counts, groups in parts:
        place = np.searchsorted(days.days, counts.days)
        more = counts.trips > most[place]
        most[place[more]] = counts.trips[more]
        block[place[more]], fold[place[more]] = groups.block[more], groups.fold[more]
    return DayGroups(days.days, block, fold)


def _minutes_of_miles(miles_sums: np.ndarray) -> Curve:
    """Return the usual minutes of a distance, from sums by distance as in `PartSums`."""
    held = miles_sums[:, 0] > 0
    count, miles, minutes = miles_sums[held].T
    return fit_curve(miles / count, count, minutes, MILES_CURVE_BINS)
