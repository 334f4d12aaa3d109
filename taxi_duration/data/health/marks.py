"""The columns that say who recorded a ride and of which type it is; never learned from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

VENDOR = "vendor"
TYPES = ("rate_code", "trip_type", "payment_type")
NONE = "none"  # the name of a null
TYPE_ROWS = 20_000  # are looked at, evenly spread


@dataclass(frozen=True)
class Mark:
    """One such column: row i has `names[codes[i]]`; `codes` are integers of shape (n,)."""

    codes: np.ndarray
    names: list[str]

    @cached_property
    def counts(self) -> np.ndarray:
        """How many rows have each code, int64 of shape (names,)."""
        return np.bincount(self.codes, minlength=len(self.names))

    def count(self) -> dict[str, int]:
        """Return how many rows have each name."""
        return {name: int(n) for name, n in zip(self.names, self.counts, strict=True) if n}


@dataclass(frozen=True)
class Marks:
    """What a month says of who recorded its rides.

    Args:
        vendor: of every row, None when the month does not say.
        types: by column, how many of the rows looked at have each value.
    """

    vendor: Mark | None
    types: dict[str, dict[str, int]]


def read_marks(raw: pa.Table) -> Marks:
    """Return vendor and types of a raw table, those columns that it has.

    Args:
        raw: columns renamed to ours, any type: numbers and text of one value have one name.
    """
    vendor = _read_mark(raw[VENDOR]) if VENDOR in raw.column_names else None
    some = pa.array(even_rows(raw.num_rows, TYPE_ROWS))
    there = [name for name in TYPES if name in raw.column_names]
    return Marks(vendor, {name: _read_mark(raw[name].take(some)).count() for name in there})


def even_rows(rows: int, most: int) -> np.ndarray:
    """Return the places of at most so many rows, evenly spread, int64."""
    return np.linspace(0, rows - 1, most).astype("int64") if rows > most else np.arange(rows)


def _read_mark(values: pa.ChunkedArray) -> Mark:
    if pa.types.is_null(values.type) or pa.types.is_nested(values.type):
        return Mark(np.zeros(len(values), dtype="int32"), [NONE])
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode(null_encoding="encode")
    found = values.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # of no rows
        found = pa.concat_arrays(found.chunks or [pa.array([], values.type)])
    names = [_name(value) for value in found.dictionary.to_pylist()]
    if NONE not in names:
        names.append(NONE)
    codes = found.indices.fill_null(names.index(NONE)).to_numpy(zero_copy_only=False)
    if len({*names}) == len(names):
        return Mark(codes, names)
    # Several values of the file may be one name: null and NaN, 2 and "2.0".
    known, place = np.unique(names, return_inverse=True)
    return Mark(place[codes].astype("int32"), [str(name) for name in known])


def _name(value: object) -> str:
    if value is None or pd.isna(value):
        return NONE
    text = str(value).strip()
    return text.removesuffix(".0") or NONE
