"""Reads a Parquet file from stdin and writes its ride columns to stdout, within limits.

Run by `serve.bodies.parquet` as a process of its own, by path and without numpy, so that it
starts in milliseconds: `python -I -S serve/bodies/parquet_child.py SITE_PACKAGES`. The input is a
line with the rows allowed, and the file, of the wanted columns alone (see `parquet_footer`); the
reader is loaded before it is waited for, so that one started ahead is ready. The output is a line
of names and then the columns as float64, one after the other.
"""

from __future__ import annotations

import io
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
PICKUP_NAMES = (PICKUP, "pickup_at", "lpep_pickup_datetime", "tpep_pickup_datetime")
WANTED = (("PULocationID",), ("DOLocationID",), ("trip_distance",), PICKUP_NAMES)
NEEDED = 2  # of these, the first


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
        columns = read_columns(read_parquet(io.BytesIO(body), batch_size=BATCH_ROWS), int(most))
    except TooManyError as error:
        return _say(TOO_MANY, str(error))
    except ColumnError as error:
        return _say(BAD_COLUMN, str(error))
    except BaseException as error:  # the reader's panics are no Exceptions
        return _say(UNREADABLE, _in_words(str(error) or repr(error)))
    sys.stdout.buffer.write(" ".join(columns).encode() + b"\n")
    for values in columns.values():
        values.tofile(sys.stdout.buffer)
    return 0


class TooManyError(Exception):
    """More rows than allowed; the message is how many were met."""


def read_columns(reader, most: int) -> dict[str, array]:
    """Return zones, miles and pickups (seconds of New York local time); NaN for null.

    Raises:
        ColumnError, TooManyError, and whatever the reader raises.
    """
    names = {name: PICKUP if name in PICKUP_NAMES else name for name in reader.schema.names}
    for name, ours in names.items():
        _check_type(ours, reader.schema.field(name).type)
    columns = {ours: array("d") for ours in names.values()}
    rows = 0
    for batch in reader:  # decoded one by one: a file of too many rows is not unpacked whole
        rows += batch.num_rows
        if rows > most:
            raise TooManyError(str(rows))
        for name, ours in names.items():
            read = _times if ours == PICKUP else _numbers
            columns[ours].extend(read(batch.column(name)))
    return columns


def _check_type(name: str, kind) -> None:
    known = kind.is_timestamp(kind) if name == PICKUP else _is_number(kind)
    if not known and not kind.is_null(kind):
        expected = "a timestamp" if name == PICKUP else "a number"
        found = str(kind).strip().removeprefix("arro3.core.DataType")
        raise ColumnError(f"{name} is of type {found}; it must be {expected}")


def _is_number(kind) -> bool:
    return kind.is_integer(kind) or kind.is_floating(kind)


def _numbers(column) -> list[float]:
    """A column of numbers."""
    values = column.to_pylist()
    return [NAN if value is None else value for value in values] if column.null_count else values


def _times(column) -> list[float]:
    """A column of timestamps; those of a zone are converted."""
    from arro3.core import DataType

    if column.type.is_null(column.type):
        return [NAN] * len(column)
    zone = column.type.tz
    values = column.cast(DataType.timestamp("s", tz=zone)).cast(DataType.int64()).to_pylist()
    if zone:
        from datetime import UTC, datetime
        from zoneinfo import ZoneInfo

        new_york = ZoneInfo("America/New_York")
        for i, value in enumerate(values):
            if value is not None:
                local = datetime.fromtimestamp(value, new_york)
                values[i] = local.replace(tzinfo=UTC).timestamp()
    return [NAN if value is None else value for value in values]


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
