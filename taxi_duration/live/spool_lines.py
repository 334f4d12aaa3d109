"""What a line of the spool says: its first byte is the type of its row, or rows; JSON follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from taxi_duration.live.log_rows import (
    FailureRow,
    PredictionColumns,
    PredictionRow,
    ShadowColumns,
    ShadowRow,
)

Columns = Sequence[Sequence[Any]]

# The row of each table, by the tag of a line with one; and of lines with many, as columns.
ROWS = {b"p": PredictionRow, b"s": ShadowRow, b"f": FailureRow}
_MANY = {b"m": (b"p", PredictionColumns), b"c": (b"s", ShadowColumns)}
_DECODERS = {
    tag: msgspec.json.Decoder(type_)
    for tag, type_ in (*ROWS.items(), *((tag, many) for tag, (_, many) in _MANY.items()))
}


def read_lines(lines: Iterable[bytes]) -> tuple[dict[bytes, Columns], list[bytes]]:
    """Return the rows of lines by their tag of ROWS, as columns in the order of the row's fields.

    Returns:
        The columns, none where there is no row, and the lines that are damaged.
    """
    alone: dict[bytes, list[tuple[Any, ...]]] = {tag: [] for tag in ROWS}
    parts: dict[bytes, list[Columns]] = {tag: [] for tag in ROWS}
    damaged = []
    for line in lines:
        tag = line[:1]
        try:
            row = _DECODERS[tag].decode(line[1:])
            if tag in _MANY:
                parts[_MANY[tag][0]].append(row.columns())  # all rows of the line or none
            else:
                alone[tag].append(msgspec.structs.astuple(row))
        except (KeyError, ValueError):  # not ours, not JSON, or columns of several lengths
            if line.strip():
                damaged.append(line)
    for tag, rows in alone.items():
        if rows:
            parts[tag].append(list(zip(*rows, strict=True)))
    return {tag: _together(found) for tag, found in parts.items()}, damaged


def _together(parts: list[Columns]) -> Columns:
    if len(parts) < 2:
        return parts[0] if parts else []
    return [list(chain.from_iterable(of)) for of in zip(*parts, strict=True)]
