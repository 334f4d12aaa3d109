"""Reads a Parquet file from stdin and writes its ride columns to stdout, within limits.

Run by `serve.bodies.parquet` as a process of its own, by path and without numpy, so that it
starts in milliseconds: `python -I -S serve/bodies/parquet_child.py SITE_PACKAGES`. The input is a
line with the rows allowed, and the file, of the wanted columns alone (see `parquet_footer`); the
reader is loaded before it is waited for, so that one started ahead is ready. The output is a line
with the number of rows and the names of columns, these columns as float64, one after the other, and
then, where the pickup is text, the texts as JSON.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from array import array

MEMORY_BYTES = 300_000_000  # of addresses, of which Python and the reader take 40 MB
SECONDS = 3  # of the processor; MAX_RIDES rides take a tenth of one
# Exit codes; the last line on stderr says more. Any other means that a limit ended it.
UNREADABLE, TOO_MANY, BAD_COLUMN = 3, 4, 5

BATCH_ROWS = 4096
NAN = float("nan")
PICKUP = "pickup_datetime"
MAX_TEXT = 60  # letters of a time; no time has 40, and a refusal shows so many


class ColumnError(Exception):
    """A column is of a type that is not read; the message starts with its name."""


def main() -> int:
    """Return the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.append(sys.argv[1])
    try:
        from arro3.io import read_parquet

        most, _, body = sys.stdin.buffer.read().partition(b"\n")
        if not body:  # it was started ahead, and the service has ended
            return 0
        found = read_columns(read_parquet(io.BytesIO(body), batch_size=BATCH_ROWS), int(most))
    except TooManyError as error:
        return _say(TOO_MANY, str(error))
    except ColumnError as error:
        return _say(BAD_COLUMN, str(error))
    except BaseException as error:  # the reader's panics are no Exceptions
        return _say(UNREADABLE, _in_words(str(error) or repr(error)))
    rows, columns, texts = found
    sys.stdout.buffer.write(f"{rows} {' '.join(columns)}\n".encode())
    for values in columns.values():
        values.tofile(sys.stdout.buffer)
    if texts is not None:
        sys.stdout.buffer.write(json.dumps(texts).encode())
    return 0


class TooManyError(Exception):
    """More rows than allowed; the message is how many were met."""


def read_columns(reader, most: int) -> tuple[int, dict[str, array], list[str | None] | None]:
    """Return the rows, and their zones, miles and pickups.

    Pickups are seconds of New York local time, or where they are texts, a list of these; null is
    NaN or None.

    Raises:
        ColumnError, TooManyError, and whatever the reader raises.
    """
    kinds = {name: reader.schema.field(name).type for name in reader.schema.names}
    for name, kind in kinds.items():
        _check_type(name, kind)
    is_text = PICKUP in kinds and kinds[PICKUP].is_string(kinds[PICKUP])
    texts: list[str | None] | None = [] if is_text else None
    columns = {name: array("d") for name in kinds if name != PICKUP or not is_text}
    rows = 0
    for batch in reader:  # decoded one by one: a file of too many rows is not unpacked whole
        rows += batch.num_rows
        if rows > most:
            raise TooManyError(str(rows))
        for name, values in columns.items():
            read = _times if name == PICKUP else _numbers
            values.extend(read(batch.column(name)))
        if texts is not None:
            texts.extend(map(_shortened, batch.column(PICKUP).to_pylist()))
    return rows, columns, texts


def _check_type(name: str, kind) -> None:
    if name == PICKUP:
        known = kind.is_timestamp(kind) or kind.is_date(kind) or kind.is_string(kind)
    else:
        known = kind.is_integer(kind) or kind.is_floating(kind) or kind.is_decimal(kind)
    if not known and not kind.is_null(kind):
        expected = "a timestamp, a date or ISO text" if name == PICKUP else "a number"
        found = str(kind).strip().removeprefix("arro3.core.DataType")
        raise ColumnError(f"{name} is of type {found}; it must be {expected}")


def _numbers(column) -> list[float]:
    """A column of numbers. (One of type null does not count its nulls.)"""
    if column.type.is_null(column.type):
        return [NAN] * len(column)
    if column.type.is_decimal(column.type):
        from arro3.core import DataType

        column = column.cast(DataType.float64())
    values = column.to_pylist()
    return [NAN if value is None else value for value in values] if column.null_count else values


def _times(column) -> list[float]:
    """A column of timestamps or days; the instants of a zone are converted."""
    from arro3.core import DataType

    if column.type.is_null(column.type):
        return [NAN] * len(column)
    zone = column.type.tz
    values = column.cast(DataType.timestamp("s", tz=zone)).cast(DataType.int64()).to_pylist()
    if zone:
        values = [None if value is None else _local_seconds(value) for value in values]
    return [NAN if value is None else value for value in values]


def _local_seconds(instant: int) -> float:
    """Seconds that a clock of New York has counted at this instant."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    try:
        local = datetime.fromtimestamp(instant, ZoneInfo("America/New_York"))
    except (ValueError, OverflowError, OSError):  # beyond datetime's years: refused later
        return instant
    return local.replace(tzinfo=UTC).timestamp()


def _shortened(text: str | None) -> str | None:
    return text and text[:MAX_TEXT]


def _in_words(message: str) -> str:
    """What the reader says without its Rust: `… value: General("Corrupt footer")`."""
    import re  # here: a file that can be read is not to wait for it

    quoted = re.search(r'\w\("([^"]+)"\)', message)
    said = quoted[1] if quoted else message.splitlines()[0].rpartition("rror: ")[2]
    return "it is damaged" if "{" in said else said[:200]


def _say(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the service waits, and there is nothing to tidy up
