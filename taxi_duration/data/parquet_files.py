"""A month's columns out of a Parquet file, types as found in it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration.data.cells import first_line
from taxi_duration.data.columns import resolve_columns
from taxi_duration.data.packing import (
    FAULTS,
    Part,
    RawColumns,
    add_keys,
    not_read,
    seekable,
    with_keys,
)
from taxi_duration.errors import TripFileError

# TLC's largest month has 24 million; a small file can claim any number of equal rows.
MAX_ROWS = 250_000_000


def read_parquet(part: Part) -> RawColumns:
    """Return the needed columns of a Parquet file.

    Raises:
        TripFileError: the file is damaged, or lacks a column.
    """
    source = part.path or seekable(part)
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        columns = resolve_columns(with_keys(file.schema_arrow.names, part), part.name)
        if file.metadata.num_rows > MAX_ROWS:
            raise TripFileError(
                f"{part.name}: claims {file.metadata.num_rows:,} rows; expected are at most "
                f"{MAX_ROWS:,} in a month"
            )
        names = {ours: theirs for ours, theirs in columns.items() if theirs not in part.keys}
        table = file.read(list(names.values()), use_threads=True)
    except (*FAULTS, UnicodeDecodeError) as error:
        raise _fault(part, error) from error
    table = table.select(list(names.values())).rename_columns(list(names))
    return RawColumns(add_keys(table, columns, part), columns, _notes(file, list(names.values())))


def _notes(file: pq.ParquetFile, names: list[str]) -> list[str]:
    """Spark's old type of times has no zone, though Spark may have turned them to UTC."""
    schema = file.schema
    kinds = {schema.column(i).path: schema.column(i).physical_type for i in range(len(schema))}
    old = [name for name in names if kinds.get(name) == "INT96"]
    return [f"{' and '.join(old)}: INT96 has no zone, taken as New York time"] if old else []


def _fault(part: Part, error: Exception) -> TripFileError:
    if unread := not_read(part, error):
        return unread
    with seekable(part) as file:
        file.seek(max(0, file.seek(0, 2) - 4))
        end = file.read()
    said = first_line(error)
    if end == b"PARE" or "decrypt" in said:  # the second: whose footer alone is plain
        what = "is an encrypted Parquet file; expected is one that needs no key"
    elif end != b"PAR1":
        what = (
            f"is not a whole Parquet file (truncated or damaged): it ends in {end!r}, not in PAR1"
        )
    elif isinstance(error, pa.ArrowNotImplementedError):
        what = "is a Parquet file of a kind that pyarrow does not read"
    else:
        what = "is a damaged Parquet file"
    return TripFileError(f"{part.name}: {what}: {said}")
