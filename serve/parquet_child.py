"""Reads a Parquet file from stdin and writes its ride columns to stdout as .npz, within limits.

Run by `serve.parquet` as a process of its own, by path, so that it imports nothing of the
service: `python serve/parquet_child.py MOST_ROWS`.
"""

from __future__ import annotations

import io
import resource
import sys
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

MEMORY_BYTES = 1_500_000_000  # of addresses; a quarter of it is the reader itself
SECONDS = 20
# Exit codes; the last line on stderr says more. Any other means that a limit ended it.
UNREADABLE, TOO_MANY, BAD_COLUMN = 3, 4, 5

BATCH_ROWS = 4096
ZONES = ("PULocationID", "DOLocationID")
PICKUP_NAMES = ("pickup_datetime", "pickup_at", "lpep_pickup_datetime", "tpep_pickup_datetime")


class ColumnError(Exception):
    """A column is missing or of a type that is not read; the message starts with its name."""


def main() -> int:
    """Return the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import numpy as np

    try:
        columns = read_columns(sys.stdin.buffer.read(), int(sys.argv[1]))
    except TooManyError as error:
        return _say(TOO_MANY, str(error))
    except ColumnError as error:
        return _say(BAD_COLUMN, str(error))
    except BaseException as error:  # the reader's panics are no Exceptions
        return _say(UNREADABLE, (str(error) or repr(error)).splitlines()[0][:200])
    out = io.BytesIO()
    np.savez(out, **columns)
    sys.stdout.buffer.write(out.getbuffer())
    return 0


class TooManyError(Exception):
    """More rows than allowed; the message is how many were met."""


def read_columns(body: bytes, most: int) -> dict[str, Any]:
    """Return float64 zones and miles (NaN for null) and datetime64[s] pickups (NaT for null).

    Raises:
        ColumnError, TooManyError, and whatever the reader raises.
    """
    import numpy as np
    from arro3.io import read_parquet

    reader = read_parquet(io.BytesIO(body), batch_size=BATCH_ROWS)
    wanted = _wanted(reader.schema)
    parts: dict[str, list[Any]] = {name: [] for name in wanted}
    rows = 0
    for batch in reader:  # decoded one by one: a file of too many rows is not unpacked whole
        rows += batch.num_rows
        if rows > most:
            raise TooManyError(str(rows))
        for name, column in wanted.items():
            read = _times if name == "pickup_datetime" else _numbers
            parts[name].append(read(batch.column(column)))
    empty = {"pickup_datetime": np.zeros(0, "datetime64[s]")}
    return {
        name: np.concatenate(part) if part else empty.get(name, np.zeros(0))
        for name, part in parts.items()
    }


def _wanted(schema: Any) -> dict[str, str]:
    """Return the columns to read, the file's names by ours."""
    wanted = {name: name for name in (*ZONES, "trip_distance") if name in schema.names}
    pickup = next((name for name in PICKUP_NAMES if name in schema.names), None)
    if pickup:
        wanted["pickup_datetime"] = pickup
    for name in ZONES:
        if name not in wanted:
            raise ColumnError(f"{name} is missing; the file has {', '.join(schema.names)[:200]}")
    for name, column in wanted.items():
        kind = schema.field(column).type
        known = kind.is_timestamp(kind) if name == "pickup_datetime" else _is_number(kind)
        if not known and not kind.is_null(kind):
            expected = "a timestamp" if name == "pickup_datetime" else "a number"
            found = str(kind).strip().removeprefix("arro3.core.DataType")
            raise ColumnError(f"{name} is of type {found}; it must be {expected}")
    return wanted


def _is_number(kind: Any) -> bool:
    return kind.is_integer(kind) or kind.is_floating(kind)


def _numbers(column: Any) -> Any:
    """A column of numbers as float64."""
    import numpy as np
    from arro3.core import DataType

    if column.null_count or column.type.is_null(column.type):
        values = column.to_pylist()
        return np.array([np.nan if value is None else value for value in values], "float64")
    return column.cast(DataType.float64()).to_numpy()


def _times(column: Any) -> Any:
    """A column of timestamps as New York local time; those of a zone are converted."""
    import numpy as np
    from arro3.core import DataType

    if column.type.is_null(column.type):
        return np.full(len(column), np.datetime64("NaT"), "datetime64[s]")
    zone = column.type.tz
    seconds = column.cast(DataType.timestamp("s", tz=zone)).cast(DataType.int64())
    values = np.array([_NO_TIME if s is None else s for s in seconds.to_pylist()], "int64")
    known = values != _NO_TIME
    if zone:
        new_york = ZoneInfo("America/New_York")
        local = [datetime.fromtimestamp(s, new_york).replace(tzinfo=None) for s in values[known]]
        values[known] = np.array(local, "datetime64[s]").astype("int64")
    return values.astype("datetime64[s]")


_NO_TIME = -(2**63)  # what numpy calls NaT


def _say(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
