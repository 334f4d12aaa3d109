"""A month's columns out of a CSV file, whatever its encoding, delimiter and length of rows."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import BinaryIO, TextIO

import pyarrow as pa
import pyarrow.csv

from taxi_duration.data.cells import first_line
from taxi_duration.data.columns import FIELDS, resolve_columns
from taxi_duration.data.packing import (
    EXPECTED,
    FAULTS,
    Part,
    RawColumns,
    add_keys,
    not_read,
    with_keys,
)
from taxi_duration.errors import TripFileError

HEADER_BYTES = 1 << 16  # within which the header ends: TLC's longest has 500
DELIMITERS = ",;\t|"
BOMS = {  # UTF-32 begins as UTF-16 does
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LINE_END = re.compile(r"\r\n|\n|\r")
EXCELS_HINT = re.compile(r'"?sep=(.)"?')  # a first line that only says which delimiter follows
OTHER_LENGTH = re.compile(r"Expected \d+ columns, got \d+")  # pyarrow's words
# pyarrow's and Python's, of a field that is larger than a block.
STRADDLES = ("straddling object", "field larger than field limit")
OPEN_QUOTE = (
    "a quotation mark is not closed, or a field is longer than a block of the file; expected is a "
    "row of trips on each line"
)
AFTER_ALL = "\x1eafter all rows\x1e"  # a row that no file holds
CHUNK_ROWS = 100_000  # of Python strings held at once


@dataclass(frozen=True)
class Layout:
    """How a CSV file is written.

    Args:
        before: lines before the header, blank or for spreadsheets.
        has_rows: more than the header follows.
        names: of the columns, as written.
        columns: ours -> theirs, also those of the folders' names.
    """

    encoding: str
    delimiter: str
    before: int
    has_rows: bool
    names: list[str]
    columns: dict[str, str]

    def places(self) -> dict[str, int]:
        """Ours -> at which place of a row."""
        there = self.columns.items()
        return {ours: self.names.index(name) for ours, name in there if name in self.names}


def read_csv(part: Part) -> RawColumns:
    """Return the needed columns of a CSV file, as text.

    Raises:
        TripFileError: names the line, what was found and what is expected.
    """
    notes: list[str] = []
    try:
        layout = find_layout(part)
        try:
            table = _parse(part, layout)
        except pa.ArrowInvalid as error:
            if not OTHER_LENGTH.search(str(error)):
                raise
            table, uneven = _parse_uneven(part, layout)
            notes.append(
                f"rows with more or fewer fields than the header: {uneven:,}; the extra ones are "
                "empty, the missing ones are not needed"
            )
    except (*FAULTS, UnicodeError, csv.Error) as error:
        raise _fault(part, error) from error
    return RawColumns(add_keys(table, layout.columns, part), layout.columns, notes)


def find_layout(part: Part, needs_ours: bool = True) -> Layout:
    """Return how a CSV file is written, from its first lines.

    Args:
        needs_ours: find the columns of trips too.
    Raises:
        TripFileError: it is no text, or lacks a column.
    """
    with part.open() as file:
        head = file.read(HEADER_BYTES)
    encoding = text_encoding(head)
    if encoding is None:
        raise TripFileError(
            f"{part.name}: is neither Parquet nor text (first bytes {head[:8]!r}); {EXPECTED}"
        )
    lines = LINE_END.split(head.decode(encoding, "replace"))
    hint = EXCELS_HINT.fullmatch(lines[0])
    before = 1 if hint else 0
    while before < len(lines) - 1 and not lines[before].strip():
        before += 1
    delimiter = hint[1] if hint else max(DELIMITERS, key=lines[before].count)
    names = next(csv.reader([lines[before]], delimiter=delimiter, skipinitialspace=True), [])
    columns = resolve_columns(with_keys(names, part), part.name) if needs_ours else {}
    has_rows = before < len(lines) - 1 or len(head) == HEADER_BYTES
    return Layout(encoding, delimiter, before, has_rows, names, columns)


def text_encoding(head: bytes) -> str | None:
    """Return the encoding of a text by its first bytes, None for what is no text."""
    for mark, encoding in BOMS.items():
        if head.startswith(mark):
            return encoding
    start = head[:64]
    if b"\0" in start:  # ASCII in UTF-16 has a zero in every other byte
        zeros = {len(start[i::2]) == start[i::2].count(0): name
                 for i, name in ((0, "utf-16-be"), (1, "utf-16-le"))}  # fmt: skip
        return zeros.get(True)
    if any(byte < 32 and byte not in b"\t\n\v\f\r" for byte in head[:512]):
        return None
    line = LINE_END.split(head.decode("latin-1"))[0]
    try:
        line.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def text_batches(file: BinaryIO, layout: Layout) -> Iterable[pa.RecordBatch]:
    """Return all columns as bytes, block by block, by their places; odd rows are left out.

    Those that nobody reads may hold text in any encoding.
    """
    if not layout.has_rows:
        return ()
    names = [str(place) for place in range(len(layout.names))]
    return pa.csv.open_csv(
        file, _read_options(layout), _parse_options(layout, lambda row: "skip"),
        _all_as(pa.binary(), names),
    )  # fmt: skip


def _parse(part: Part, layout: Layout) -> pa.Table:
    at = {str(place): ours for ours, place in layout.places().items()}
    if not layout.has_rows:  # nor an end of line, which pyarrow wants to see
        return pa.table({ours: pa.array([], pa.string()) for ours in at.values()})
    with part.open() as file:
        counted = _Counted(file)
        table = pa.csv.read_csv(
            counted, _read_options(layout), _parse_options(layout), _all_as(pa.string(), list(at))
        )
    if counted.quotes and counted.lines > table.num_rows + layout.before + 1:
        # Fields of several lines, or a quotation mark that took all rows behind it: pyarrow does
        # not tell.
        for _ in _picked(part, layout):
            pass
    return table.rename_columns([at[name] for name in table.column_names])


class _Counted:
    """A file that counts the lines and quotation marks that are read."""

    closed = False

    def __init__(self, file: BinaryIO):
        self._file, self.lines, self.quotes = file, 0, 0

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        self.lines += max(found.count(b"\n"), found.count(b"\r"))
        self.quotes += found.count(b'"')
        return found

    def close(self) -> None:
        """Closed by whoever opened it."""


def _read_options(layout: Layout) -> pa.csv.ReadOptions:
    """Columns are named by their places: names may stand twice."""
    return pa.csv.ReadOptions(
        skip_rows=layout.before + 1,
        column_names=[str(place) for place in range(len(layout.names))],
        encoding="utf8" if layout.encoding.startswith("utf-8") else layout.encoding,
    )


def _parse_options(layout: Layout, odd: Callable | None = None) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(
        delimiter=layout.delimiter, invalid_row_handler=odd, newlines_in_values=True
    )


def _all_as(kind: pa.DataType, names: list[str]) -> pa.csv.ConvertOptions:
    """All columns are text here, so that a bad value is named as one of Parquet is."""
    return pa.csv.ConvertOptions(
        include_columns=names, column_types=dict.fromkeys(names, kind), strings_can_be_null=True
    )


# --- rows of another length than the header ----------------------------------------------


def _parse_uneven(part: Part, layout: Layout) -> tuple[pa.Table, int]:
    """As `_parse`, row by row, for a file in which some rows are longer or shorter.

    Extra fields that are empty mean nothing; missing ones, that none of ours is among them.
    """
    places, uneven, chunks = layout.places(), 0, []
    rows = _picked(part, layout)
    while taken := list(islice(rows, CHUNK_ROWS)):
        uneven += sum(len(row) != len(layout.names) for row in taken)
        columns = zip(
            *([row[at] if at < len(row) else None for at in places.values()] for row in taken),
            strict=True,
        )
        chunks.append(pa.table([pa.array(column, pa.string()) for column in columns],
                               names=list(places)))  # fmt: skip
    return pa.concat_tables(chunks), uneven


def _picked(part: Part, layout: Layout) -> Iterator[list[str]]:
    """The rows that are not blank; each holds all that we need."""
    with part.open() as file:
        lines = io.TextIOWrapper(file, encoding=layout.encoding, errors="replace", newline="")
        text = _Lines(lines)
        rows = csv.reader(text, delimiter=layout.delimiter)
        for _ in range(layout.before):
            next(text)
        next(rows)
        for row in rows:
            if row == [AFTER_ALL]:
                return
            if row and AFTER_ALL in row[-1]:
                number = rows.line_num + 1 - row[-1].count("\n") + layout.before
                raise TripFileError(f"{part.name}: line {number}: {OPEN_QUOTE}")
            if row:
                where = f"{part.name}: line {rows.line_num + layout.before}"
                _check_length(row, layout, where, text.ends_without_newline())
                yield row


def _check_length(row: list[str], layout: Layout, where: str, ends_the_file: bool) -> None:
    width = len(layout.names)
    needed = max(at for ours, at in layout.places().items() if ours in FIELDS)
    extra = [cell for cell in row[width:] if cell.strip()]
    if extra or (len(row) < width and ends_the_file) or len(row) <= needed:
        what = f"more, such as {extra[0]!r}" if extra else "fewer, as if it was cut off"
        raise TripFileError(
            f"{where} has {len(row)} fields ({what}); "
            f"expected are {width}, from {layout.names[0]!r} to {layout.names[-1]!r}"
        )


class _Lines:
    """The lines of a text, and then AFTER_ALL; remembers the last one."""

    def __init__(self, text: TextIO):
        self._text, self._last = chain(text, [AFTER_ALL + "\n"]), ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._last = next(self._text)
        return self._last

    def ends_without_newline(self) -> bool:
        return not self._last.endswith(("\n", "\r"))


def _fault(part: Part, error: Exception) -> TripFileError:
    if unread := not_read(part, error):
        return unread
    said = first_line(error)
    if any(words in said for words in STRADDLES):
        return TripFileError(f"{part.name}: {OPEN_QUOTE} ({said})")
    if isinstance(error, (pa.ArrowInvalid, UnicodeError, csv.Error)) and "compress" not in said:
        return TripFileError(f"{part.name}: cannot be read as CSV: {said}; {EXPECTED}")
    return TripFileError(
        f"{part.name}: is not a whole CSV file (truncated or damaged): {said}; {EXPECTED}"
    )
