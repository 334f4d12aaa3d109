"""A window of past trips, read part by part and batch by batch: it is never held whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_duration.data.health.look import SUSPECT
from taxi_duration.data.prepared import GROUP_ROWS, PreparedMonth, file_here
from taxi_duration.data.sources import RawMonth
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import BadMonthError

BATCH_ROWS = GROUP_ROWS  # of a prepared month's file, so that no batch is put together of two
RIDE_COLUMNS = ("PULocationID", "DOLocationID", "pickup_at", "trip_distance")


class TripBatch(NamedTuple):
    """Some trips: rides of shape (n,), and their minutes, float32 of shape (n,)."""

    rides: Rides
    minutes: np.ndarray


class Part(Protocol):
    """Trips that are read together, such as a month; small enough to be sent to another process."""

    @property
    def key(self) -> str:
        """Identifies this part's trips; empty when nothing does."""
        ...

    def __len__(self) -> int: ...

    def number(self) -> int | None:
        """Which month it is, see `Month.ordinal`; None for trips that lie in this process."""
        ...

    def batches(self) -> Iterator[TripBatch]:
        """Yield the trips in their order, at most BATCH_ROWS at once."""
        ...


@dataclass(frozen=True)
class MemoryPart:
    """Trips that lie in memory: `rides` of shape (n,), minutes of shape (n,)."""

    rides: Rides
    minutes: np.ndarray
    key: str = ""

    def __len__(self) -> int:
        return len(self.rides)

    def number(self) -> None:
        """As `Part`."""

    def batches(self) -> Iterator[TripBatch]:
        """As `Part`."""
        for start in range(0, len(self), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            yield TripBatch(self.rides.take(rows), self.minutes[rows])


@dataclass(frozen=True)
class MonthPart:
    """The kept trips of a prepared month; those with a proven fault only where they are wanted.

    Args:
        raw: the month, for a machine that has not prepared it: it is then prepared there.
        rows: how many they are, None where it is not known before they are read.
        group: the only row group of the file to be read; all when None.
    """

    path: Path
    with_suspects: bool
    raw: RawMonth | None = None
    rows: int | None = None
    group: int | None = None

    @classmethod
    def of(cls, month: PreparedMonth, with_suspects: bool) -> MonthPart:
        """Return the trips of a month."""
        rows = month.accounting.rows_kept if with_suspects else None
        return cls(month.trips_path, with_suspects, month.raw, rows)

    @property
    def key(self) -> str:
        """As `Part`; a prepared month's name holds the digest of its source and its rules."""
        group = "" if self.group is None else f"#{self.group}"
        return f"{self.path.stem}{group}{'+' if self.with_suspects else ''}"

    def groups(self) -> list[MonthPart]:
        """Return the trips by the row groups of the month's file, those with a fault too."""
        whole = pq.read_metadata(self._file())
        rows = [whole.row_group(group).num_rows for group in range(whole.num_row_groups)]
        return [
            replace(self, with_suspects=True, rows=n, group=group) for group, n in enumerate(rows)
        ]

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of all kept trips, those with a fault too: for a row group."""
        with pq.ParquetFile(self._file()) as file:
            return file.read_row_groups(self._groups(file), list(columns)).select(list(columns))

    def schema(self, columns: Sequence[str]) -> pa.Schema:
        """Return the types of columns, without reading any."""
        return pq.read_schema(self._file()).empty_table().select(list(columns)).schema

    def suspects(self) -> np.ndarray:
        """Return which of all kept trips have a proven fault, bool of shape (n,)."""
        return self.table([SUSPECT])[SUSPECT].to_numpy()

    def _groups(self, file: pq.ParquetFile) -> Sequence[int]:
        return range(file.num_row_groups) if self.group is None else [self.group]

    def number(self) -> int:
        """As `Part`."""
        return self.raw.month.ordinal() if self.raw else 0

    def _file(self) -> Path:
        return file_here(self.raw, self.path) if self.raw else self.path

    @cached_property
    def _rows(self) -> int:
        if self.rows is not None:
            return self.rows
        if self.with_suspects:
            return int(pq.read_metadata(self._file()).num_rows)
        suspect = pq.read_table(self._file(), columns=[SUSPECT])[SUSPECT]
        return len(suspect) - int(pc.sum(suspect).as_py() or 0)

    def __len__(self) -> int:
        return self._rows

    def batches(self) -> Iterator[TripBatch]:
        """As `Part`."""
        yield from map(_trips, self.columns([*RIDE_COLUMNS, "duration"]))

    def columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of the same trips, which batches of rides do not have all of."""
        with pq.ParquetFile(self._file()) as file:
            for batch in file.iter_batches(BATCH_ROWS, self._groups(file), [*names, SUSPECT]):
                if not self.with_suspects:
                    batch = batch.filter(pc.invert(batch[SUSPECT]))
                yield batch.select(list(names))


class SomeTrips(ABC):
    """A selection of a part's trips: those that `picker` picks from `part`."""

    part: Part
    key = ""  # as `Part`: nothing made of them is kept

    @abstractmethod
    def picker(self) -> Callable[[Rides], np.ndarray]:
        """Return what picks rides in one reading: it is called with each batch, in order.

        It returns bool of shape (n,).
        """

    def __len__(self) -> int:
        return sum(len(batch.minutes) for batch in self.batches())

    def number(self) -> int | None:
        """As `Part`."""
        return self.part.number()

    def batches(self) -> Iterator[TripBatch]:
        """As `Part`."""
        picks = self.picker()
        for rides, minutes in self.part.batches():
            rows = picks(rides)
            yield TripBatch(rides.take(rows), minutes[rows])


@dataclass(frozen=True, eq=False)
class Window:
    """Parts in time order. It may be read any number of times, and gives the same each time.

    A window is equal to itself alone: what is made of it can be kept as long as it is held.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, rides: Rides, minutes: np.ndarray) -> Window:
        """Return a window of trips that lie in memory; minutes of shape (n,)."""
        return cls((MemoryPart(rides, minutes),))

    @classmethod
    def from_frame(cls, trips: pd.DataFrame) -> Window:
        """Return a window of a frame of trips (see `read_dataframe`)."""
        return cls.of(Rides.from_frame(trips), trips["duration"].to_numpy())

    @classmethod
    def scored(cls, months: Sequence[PreparedMonth]) -> Window:
        """Return all kept trips of some months: what public scores count."""
        return cls(tuple(MonthPart.of(month, True) for month in months))

    @classmethod
    def learnable(cls, months: Sequence[PreparedMonth]) -> Window:
        """Return what may be learned from: the kept trips without proven faults.

        Raises:
            BadMonthError: nothing is left.
        """
        window = cls(tuple(MonthPart.of(m, not m.suspects) for m in months))
        if not len(window) and any(month.suspects for month in months):
            names = ", ".join(month.raw.path.name for month in months)
            raise BadMonthError(
                f"{names}: every row has a proven fault of its clocks; `python pipeline.py data "
                "--months` names them, and other months can be learned from"
            )
        return window

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def batches(self) -> Iterator[TripBatch]:
        """Yield all trips in order, at most BATCH_ROWS at once."""
        for part in self.parts:
            yield from part.batches()

    def evenly(self, most: int) -> TripBatch:
        """Return every k-th trip, from `most` to nearly twice as many; all where they are fewer."""
        every, at, kept = max(len(self) // most, 1), 0, []
        for rides, minutes in self.batches():
            rows = every_kth(every, at, len(minutes))  # a copy: the batch itself may go
            kept.append(MemoryPart(rides.take(rows), minutes[rows]))
            at += len(minutes)
        return Window(tuple(kept)).whole()

    def whole(self) -> TripBatch:
        """Return all trips at once: for what was drawn from a window, or is small."""
        some = list(self.batches()) or [TripBatch(Rides.from_dicts([]), np.empty(0, "float32"))]
        columns = (
            np.concatenate([getattr(batch.rides, field.name) for batch in some])
            for field in fields(Rides)
        )
        return TripBatch(Rides(*columns), np.concatenate([batch.minutes for batch in some]))


def in_memory(part: Part) -> MemoryPart:
    """Return the trips of a small part, or of one that few are drawn of."""
    return part if isinstance(part, MemoryPart) else MemoryPart(*Window((part,)).whole())


def every_kth(every: int, before: int, number: int) -> np.ndarray:
    """Return the places of every k-th of some trips, of which so many come before."""
    return np.arange(-before % every, number, every)


def _trips(batch: pa.RecordBatch) -> TripBatch:
    columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in RIDE_COLUMNS}
    columns["pickup_at"] = columns["pickup_at"].astype("datetime64[s]")
    return TripBatch(Rides(**columns), batch["duration"].to_numpy(zero_copy_only=False))
