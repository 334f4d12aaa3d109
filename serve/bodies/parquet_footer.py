"""What a Parquet file claims of itself, checked before anything is decoded, and cut down.

A file ends in a footer: its columns, its row groups, and where the bytes of each column lie. The
reader we have decodes every column. So it is given a new file, made of the wanted columns' bytes
and a footer of nothing but what was understood here.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from serve.bodies.thrift import BINARY, I32, I64, LIST, STRUCT, Reader, Struct, ThriftError, encode
from taxi_duration.domain.asked_rides import FIELDS, find_ride_columns

MAGIC, ENCRYPTED = b"PAR1", b"PARE"
TAIL_BYTES = 8  # the footer's length, and MAGIC
# A month's footer has 10 kB. Reading one takes about as long as JSON ten times its size.
FOOTER_BYTES = 250_000
MAX_COLUMNS = 1_000  # a month has 20
MAX_ROW_GROUPS = 1_000  # as few as a hundred rows each, then
DECODED_BYTES = 50_000_000  # ten times what MAX_RIDES rides take
READ = tuple(field for field in FIELDS if field != "ride_id")


class FooterError(Exception):
    """The footer cannot be read, claims too much, or claims what cannot be."""


class NestedError(Exception):
    """A column holds no plain values; the message is its field."""


class RowsError(Exception):
    """More rows than allowed; the message is how many."""


class _Column(NamedTuple):
    """A column at the top of the schema: its name, description, and the leaves below it."""

    name: str
    element: Struct
    is_nested: bool


class CutFile(NamedTuple):
    """A Parquet file of a ride's fields alone, under our names; and the columns left out."""

    content: bytes
    ignored: list[str]


def cut_down(body: bytes, most: int) -> CutFile:
    """Return a Parquet file of a ride's columns alone.

    Args:
        body: the file.
        most: rows allowed.
    Raises:
        FooterError, NestedError, RowsError, RefusedError (of a column): before a value is decoded.
    """
    meta, end = _read_footer(body)
    rows = _get(meta, 3, I64)
    if rows > most:
        raise RowsError(str(rows))
    root, *elements = _structs(meta, 2) or [{}]
    columns = list(_columns(root, elements))
    found = find_ride_columns([column.name for column in columns], fields=READ)
    taken = {field: columns[i] for field, i in found.positions.items()}
    for field, column in taken.items():
        if column.is_nested:
            raise NestedError(field)
    groups = _structs(meta, 4)
    if len(groups) > MAX_ROW_GROUPS:
        raise FooterError(f"it has {len(groups)} row groups; at most {MAX_ROW_GROUPS} are read")
    rows_of_groups = sum(_get(group, 3, I64) for group in groups)
    if rows_of_groups != rows or any(_get(group, 3, I64) < 0 for group in groups):
        raise FooterError(f"its row groups have {rows_of_groups} rows, it claims {rows}")
    file = _File(body, end)
    names = {column.name: field for field, column in taken.items()}
    parts = [file.add_group(group, names) for group in groups if _get(group, 3, I64)]
    leaves = [_leaf(column, field) for field, column in taken.items()]
    schema = [{4: (BINARY, b"schema"), 5: (I32, len(taken))}, *leaves]
    footer = encode(
        {
            1: (I32, _get(meta, 1, I32)),
            2: (LIST, (STRUCT, schema)),
            3: (I64, rows),
            4: (LIST, (STRUCT, parts)),
        }
    )
    return CutFile(file.whole(footer), found.ignored)


def _read_footer(body: bytes) -> tuple[Struct, int]:
    """The footer, and where it begins."""
    if body[-4:] == ENCRYPTED:
        raise FooterError("it is encrypted")
    if len(body) < len(MAGIC) + TAIL_BYTES or body[:4] != MAGIC or body[-4:] != MAGIC:
        raise FooterError("it is cut off, or is no Parquet")
    size = int.from_bytes(body[-TAIL_BYTES:-4], "little")
    end = len(body) - TAIL_BYTES - size
    if end < len(MAGIC):
        raise FooterError(f"its footer has {size} bytes, the file {len(body)}")
    if size > FOOTER_BYTES:
        raise FooterError(f"its footer has {size} bytes; at most {FOOTER_BYTES} are read")
    try:
        return Reader(body[end:-TAIL_BYTES]).struct(), end
    except ThriftError as error:
        raise FooterError(f"its footer is damaged: {error}") from None


def _columns(root: Struct, elements: list[Struct]) -> Iterator[_Column]:
    """The columns at the top; the elements are a tree, each before its children."""
    if len(elements) > MAX_COLUMNS:
        raise FooterError(f"it has {len(elements)} columns; at most {MAX_COLUMNS} are read")
    at = 0
    for _ in range(_get(root, 5, I32)):
        start, left = at, 1
        while left > 0:
            if at >= len(elements):
                raise FooterError("its schema is cut off")
            left += _get(elements[at], 5, I32, 0) - 1
            at += 1
        name = _get(elements[start], 4, BINARY).decode("utf-8", "replace")
        yield _Column(name, elements[start], at > start + 1)


def _leaf(column: _Column, field: str) -> Struct:
    """Its description: type, repetition, our name, and the logical types; no field id."""
    taken = (1, 2, 3, 6, 7, 8, 10)
    kept: Struct = {number: column.element[number] for number in taken if number in column.element}
    return {**kept, 4: (BINARY, field.encode())}


class _File:
    """The new file while it grows, and how much of the old one is still to be claimed.

    Args:
        body: the old file.
        end: of its columns' bytes.
    """

    def __init__(self, body: bytes, end: int) -> None:
        self._body, self._end = body, end
        self._parts, self._size, self._decoded = [MAGIC], len(MAGIC), 0

    def add_group(self, group: Struct, names: dict[str, str]) -> Struct:
        """Take the named columns of a row group over, under their new names; return the group's
        new description."""
        rows = _get(group, 3, I64)
        metas: dict[str, Struct] = {}
        for chunk in _structs(group, 1):
            path = [part.decode("utf-8", "replace") for part in _elements(chunk, 3, 3, BINARY)]
            if path and path[0] in names:
                if path[0] in metas or 1 in chunk:
                    raise FooterError(f"{path[0]} lies in several places, or in another file")
                metas[path[0]] = _get(chunk, 3, STRUCT)
        if len(metas) != len(names):
            raise FooterError("a row group lacks a column")
        chunks = [self._add_chunk(metas[name], rows, names[name]) for name in names]
        size = sum(_get(metas[name], 6, I64) for name in names)
        return {1: (LIST, (STRUCT, chunks)), 2: (I64, size), 3: (I64, rows)}

    def _add_chunk(self, meta: Struct, rows: int, name: str) -> Struct:
        if _get(meta, 5, I64) != rows:
            raise FooterError("a column has more or fewer values than its row group has rows")
        pages, dictionary = _get(meta, 9, I64), _get(meta, 11, I64, 0)
        size = _get(meta, 7, I64)
        start = min(pages, dictionary) if dictionary > 0 else pages
        if start < len(MAGIC) or size < 0 or start + size > self._end or pages >= start + size:
            raise FooterError("a column lies outside the file")
        self._decoded += max(_get(meta, 6, I64), 0)
        if self._decoded > DECODED_BYTES:
            raise FooterError(
                f"its columns unpack to {self._decoded} bytes and more; "
                f"at most {DECODED_BYTES} are read"
            )
        moved = self._size - start
        self._parts.append(self._body[start : start + size])
        self._size += size
        if self._size > len(self._body):
            raise FooterError("its columns lie over each other")
        kept = {number: meta[number] for number in (1, 2, 4, 5, 6, 7)}
        kept[3] = (LIST, (BINARY, [name.encode()]))
        kept[9] = (I64, pages + moved)
        if dictionary > 0:
            kept[11] = (I64, dictionary + moved)
        return {2: (I64, self._size), 3: (STRUCT, kept)}

    def whole(self, footer: bytes) -> bytes:
        """Return the new file."""
        return b"".join([*self._parts, footer, len(footer).to_bytes(4, "little"), MAGIC])


def _get(fields: Struct, number: int, kind: int, default: Any = None) -> Any:
    """The value of a field.

    Raises:
        FooterError: it is not there and has no default, or is of another type.
    """
    found = fields.get(number)
    if found is None and default is not None:
        return default
    if found is None or found[0] != kind:
        raise FooterError("its footer lacks a field, or has one of a wrong type")
    return found[1]


def _structs(fields: Struct, number: int) -> list[Struct]:
    """The elements of a list of structs."""
    of, elements = _get(fields, number, LIST)
    if elements and of != STRUCT:
        raise FooterError("its footer has a list of a wrong type")
    return elements


def _elements(chunk: Struct, meta: int, number: int, kind: int) -> list[Any]:
    """A list of plain values in a struct of a struct."""
    of, elements = _get(_get(chunk, meta, STRUCT), number, LIST)
    if elements and of != kind:
        raise FooterError("its footer has a list of a wrong type")
    return elements
