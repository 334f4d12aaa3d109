"""Cells of a month's columns as plain numbers, whatever type their writer gave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE, UNKNOWN_ZONE, ZONE_RANGE
from taxi_duration.domain.ride_columns import NULL_WORDS
from taxi_duration.errors import TripFileError

ZONES = f"whole numbers {ZONE_RANGE}"
MILES = "numbers (miles)"
SPACES = " \t\r\n\xa0"


@dataclass(frozen=True)
class Column:
    """A column of a file, named in errors."""

    file: str
    name: str

    def wrong(self, found: str, expected: str) -> TripFileError:
        """Return the error for cells that cannot be read."""
        return TripFileError(f"{self.file}: column {self.name} must hold {expected}, found {found}")

    def wrong_type(self, values: pa.ChunkedArray, expected: str, hint: str = "") -> TripFileError:
        """Return the error for a type that cannot be read; with the first value."""
        example = next((value.as_py() for value in values if value.is_valid), None)
        return self.wrong(f"{values.type} (such as {example!r}){hint}", expected)


def plain(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Return a column without wrappings: no categories, runs, extensions; text trimmed.

    Words for null, NaN apart, are null then, and a column without any value has no type.
    """
    kind = values.type
    if values.null_count == len(values):  # pandas gives a column without values any type
        return pa.chunked_array([pa.nulls(len(values))])
    if isinstance(kind, pa.BaseExtensionType):
        values = pa.chunked_array([c.storage for c in values.chunks], kind.storage_type)
        return plain(values, column)
    if pa.types.is_dictionary(kind):
        return plain(values.cast(kind.value_type), column)
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values), column)
    if _is_bytes(kind):
        values = _cast(values, pa.string(), column, "text in UTF-8")
    elif pa.types.is_string_view(kind):
        values = values.cast(pa.string())
    return _trim(values) if is_text(values.type) else values


def is_text(kind: pa.DataType) -> bool:
    """True for text of either length."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def combine(values: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def first_line(error: BaseException | None) -> str:
    """Return the first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_zones(values: pa.ChunkedArray, column: Column) -> np.ndarray:
    """Return zones as int16, shape (n,); a null or an id that is no zone is UNKNOWN_ZONE.

    Raises:
        TripFileError: names the file, the column, what was found and what is expected.
    """
    values = plain(values, column)
    if pa.types.is_null(values.type):
        return np.full(len(values), UNKNOWN_ZONE, dtype="int16")
    if not (is_text(values.type) or is_number(values.type)):
        raise column.wrong_type(values, ZONES)
    if not pa.types.is_integer(values.type):
        if is_text(values.type):  # "74" and "74.0" are both seen
            values = _cast(values, pa.float64(), column, ZONES)
        values = _cast(_without_nan(values), pa.int64(), column, ZONES)
    ids = combine(values)
    if ids.null_count:
        ids = ids.fill_null(0)
    ids = ids.to_numpy(zero_copy_only=False)
    known = (ids >= FIRST_ZONE) & (ids <= LAST_ZONE)
    return (
        ids.astype("int16") if known.all() else np.where(known, ids, UNKNOWN_ZONE).astype("int16")
    )


def read_miles(values: pa.ChunkedArray, column: Column) -> np.ndarray:
    """Return distances as float32 miles, shape (n,); NaN where the file has none.

    Raises:
        TripFileError: as `read_zones`.
    """
    values = plain(values, column)
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan, dtype="float32")
    if not (is_text(values.type) or is_number(values.type)):
        raise column.wrong_type(values, MILES)
    values = _cast(values, pa.float64(), column, MILES)
    with np.errstate(over="ignore"):  # infinite then, and as bad a distance
        return combine(values).to_numpy(zero_copy_only=False).astype("float32")


def is_number(kind: pa.DataType) -> bool:
    """True for numbers of any type."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    """Text of writers that do not mark it as such: Impala, Hive, old Spark."""
    return (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )  # fmt: skip


def _trim(values: pa.ChunkedArray) -> pa.ChunkedArray:
    values = pc.utf8_trim(values, characters=SPACES)
    empty = pc.is_in(values, value_set=pa.array(sorted(NULL_WORDS), values.type))
    return pc.if_else(empty, pa.scalar(None, values.type), values)


def _without_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _cast(
    values: pa.ChunkedArray, to: pa.DataType, column: Column, expected: str
) -> pa.ChunkedArray:
    try:
        return values.cast(to)
    except pa.ArrowException as error:
        raise column.wrong(f"{values.type} with {first_line(error)}", expected) from error
