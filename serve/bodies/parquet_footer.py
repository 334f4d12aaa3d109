"""What a Parquet file claims of itself, checked before anything is decoded, and cut down.

A file ends in a footer: its columns, its row groups, and where the bytes of each column lie. The
reader we have decodes every column. So it is given a new file, made of the wanted columns' bytes
and a footer of nothing but what was understood here.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from serve.bodies.thrift import BINARY, I32, I64, LIST, STRUCT, Reader, Struct, ThriftError, encode

MAGIC, ENCRYPTED = b"PAR1", b"PARE"
TAIL_BYTES = 8  # the footer's length, and MAGIC
# A month's footer has 10 kB. Reading one takes about as long as JSON ten times its size.
FOOTER_BYTES = 250_000
MAX_COLUMNS = 1_000  # a month has 20
MAX_ROW_GROUPS = 1_000  # as few as a hundred rows each, then
DECODED_BYTES = 50_000_000  # ten times what MAX_RIDES rides take


class FooterError(Exception):
    """The footer cannot be read, claims too much, or claims what cannot be."""


class ColumnError(Exception):
    """A column is missing or of a kind that is not read; the message starts with its name."""


class RowsError(Exception):
    """More rows than allowed; the message is how many."""


class _Column(NamedTuple):
    """A column at the top of the schema: its name, description, and the leaves below it."""

    name: str
    element: Struct
    is_nested: bool


def cut_down(body: bytes, most: int, wanted: Sequence[Sequence[str]], needed: int) -> bytes:
    """Return a Parquet file of the wanted columns alone.

    Args:
        body: the file.
        most: rows allowed.
        wanted: names of each column, the first that is there is taken; by the first, it is named.
        needed: how many of them, from the first, must be there.
    Raises:
        FooterError, ColumnError, RowsError: before a value is decoded.
    """
    meta, end = _read_footer(body)
    rows = _get(meta, 3, I64)
    if rows > most:
        raise RowsError(str(rows))
    root, *elements = _structs(meta, 2) or [{}]
    columns = list(_columns(root, elements))
    chosen = [_choose(columns, names, i < needed) for i, names in enumerate(wanted)]
    taken = [column for column in chosen if column is not None]
    groups = _structs(meta, 4)
    if len(groups) > MAX_ROW_GROUPS:
        raise FooterError(f"it has {len(groups)} row groups; at most {MAX_ROW_GROUPS} are read")
    found = sum(_get(group, 3, I64) for group in groups)
    if found != rows or any(_get(group, 3, I64) < 0 for group in groups):
        raise FooterError(f"its row groups have {found} rows, it claims {rows}")
    file = _File(body, end)
    names = [column.name for column in taken]
    parts = [file.add_group(group, names) for group in groups if _get(group, 3, I64)]
    schema = [{4: (BINARY, b"schema"), 5: (I32, len(taken))}, *(_leaf(column) for column in taken)]
    footer = encode(
        {
            1: (I32, _get(meta, 1, I32)),
            2: (LIST, (STRUCT, schema)),
            3: (I64, rows),
            4: (LIST, (STRUCT, parts)),
        }
    )
    return file.whole(footer)


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


def _choose(columns: list[_Column], names: Sequence[str], is_needed: bool) -> _Column | None:
    """The column of the first of these names that there is."""
    for name in names:
        found = [column for column in columns if column.name == name]
        if len(found) > 1:
            raise ColumnError(f"{names[0]} comes {len(found)} times, as {name}")
        if found and found[0].is_nested:
            raise ColumnError(f"{names[0]} is nested; a column of plain values is expected")
        if found:
            return found[0]
    if is_needed:
        there = ", ".join(column.name for column in columns[:20])
        raise ColumnError(f"{names[0]} is missing; the file has {there[:200]}")
    return None


def _leaf(column: _Column) -> Struct:
    """Its description: type, repetition, name, and the logical types; no field id."""
    return {number: column.element[number] for number in (1, 2, 3, 4, 6, 7, 8, 10)
            if number in column.element}  # fmt: skip


class _File:
    """The new file while it grows, and how much of the old one is still to be claimed.

    Args:
        body: the old file.
        end: of its columns' bytes.
    """

    def __init__(self, body: bytes, end: int) -> None:
        self._body, self._end = body, end
        self._parts, self._size, self._decoded = [MAGIC], len(MAGIC), 0

    def add_group(self, group: Struct, names: list[str]) -> Struct:
        """Take the named columns of a row group over; return their new description."""
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
        chunks = [self._add_chunk(metas[name], rows) for name in names]
        size = sum(_get(metas[name], 6, I64) for name in names)
        return {1: (LIST, (STRUCT, chunks)), 2: (I64, size), 3: (I64, rows)}

    def _add_chunk(self, meta: Struct, rows: int) -> Struct:
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
        kept = {number: meta[number] for number in (1, 2, 3, 4, 5, 6, 7)}
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
