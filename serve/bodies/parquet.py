"""Parquet bodies: decoded in a child process, which may take so much memory and time and no more.

A file of a few kilobytes can claim to unpack to gigabytes, and a crafted one can bring a reader
down. So its claims are checked and it is cut down to the wanted columns first (`parquet_footer`).
Should it still take too much, the child ends, and the worker says so; it does not even load the
reader. One child at a time: the memory of all is a few hundred megabytes however many files come.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import datetime

import numpy as np

from serve.bodies.errors import ApiError
from serve.bodies.parquet_child import BAD_COLUMN, TOO_MANY, UNREADABLE
from serve.bodies.parquet_footer import CutFile, FooterError, NestedError, RowsError, cut_down
from serve.bodies.reading import check_count
from serve.bodies.unpacker import SlowError, Unpacked, Unpacker
from taxi_duration.domain.asked_rides import NEEDED, ManyRides, read_pickups
from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE
from taxi_duration.domain.refused_values import MAX_MILES, YEARS, RefusedError, refused
from taxi_duration.domain.rides import Rides, local_time

logger = logging.getLogger(__name__)

PARQUET_TYPES = ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet")
CHILD_SECONDS = 15  # by the clock, for seconds of the processor (`parquet_child`) on a busy machine
# That a body waits for the child of another: some times as long as one of MAX_RIDES rides takes.
# It holds a thread meanwhile, of which there are few.
WAIT_SECONDS = 2.0
_one_child = threading.Semaphore(1)  # of each worker
_unpacker = Unpacker()


def read_rides(body: bytes, most: int) -> ManyRides:
    """Return the rides of a Parquet file, checked.

    Args:
        body: the file. `PULocationID`, `DOLocationID` (whole numbers), `trip_distance`
            (number, null or NaN when not known) and the pickup time (a timestamp, a day or ISO
            text) are read, under these names or those that TLC uses; other columns are named in
            `ignored`.
        most: rides allowed.
    Raises:
        ApiError: 422 when it cannot be read, 413 with too many rows.
        RefusedError: a bad value.
    """
    file = _cut(body, most)
    rows, columns, texts = _decode(file.content, most)
    pickups = _checked_pickups(rows, columns) if texts is None else read_pickups(texts)[0]
    rides = Rides(
        _checked_zones(columns, "PULocationID"),
        _checked_zones(columns, "DOLocationID"),
        pickups,
        _checked_miles(rows, columns),
    )
    miles = [None if m != m else m for m in rides.trip_distance.tolist()]
    return ManyRides(rides, miles, ignored={0: file.ignored})


def _cut(body: bytes, most: int) -> CutFile:
    """Cut the file down to a ride's columns, or say why not."""
    try:
        return cut_down(body, most)
    except RowsError as error:
        check_count(int(str(error)), most)
        raise
    except RefusedError as error:
        raise _bad_column(error.message, error.field) from None
    except NestedError as error:
        field = str(error)
        message = f"{field} is nested; a column of plain values is expected"
        raise _bad_column(message, field) from None
    except FooterError as error:
        raise _unreadable(str(error)) from None


def _decode(file: bytes, most: int) -> tuple[int, dict[str, np.ndarray], list[str | None] | None]:
    """Unpack the file; return the rows, their columns, and the pickups where they are texts."""
    done = _unpack(file, most)
    message = (done.errors.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
    if done.code == BAD_COLUMN:
        raise _bad_column(message, message.split(" ")[0])
    if done.code == UNREADABLE:
        raise _unreadable(message)
    try:
        if done.code == TOO_MANY:
            check_count(int(message), most)
        if done.code == 0:
            return _parse(done.content, most)
    except ValueError:  # whatever a damaged file made of its reader
        logger.exception("a reader of Parquet left what it never leaves")
    raise _unreadable("it unpacks to more than the service holds, or is damaged")


def _unpack(file: bytes, most: int) -> Unpacked:
    """Let the file be unpacked when it is its turn."""
    if not _one_child.acquire(timeout=WAIT_SECONDS):
        raise ApiError(503, "busy", "other Parquet bodies are being unpacked; try again")
    try:
        return _unpacker.unpack(file, most, CHILD_SECONDS)
    except SlowError:
        raise _unreadable("it takes too long to unpack") from None
    except OSError:
        logger.exception("a Parquet body was not unpacked")
        raise ApiError(503, "busy", "the body cannot be unpacked just now; try again") from None
    finally:
        _one_child.release()


def _parse(content: bytes, most: int) -> tuple[int, dict[str, np.ndarray], list[str | None] | None]:
    """Split what the child has written.

    Raises:
        ValueError: it is no such thing.
    """
    header, _, content = content.partition(b"\n")
    rows, *names = header.decode().split()
    n = int(rows)
    if not (0 <= n <= most and {"PULocationID", "DOLocationID"} <= set(names)):
        raise ValueError(f"{header!r} is no ride's columns")
    values = np.frombuffer(content, "float64", n * len(names)).reshape(len(names), n)
    texts = content[values.nbytes :]
    return n, dict(zip(names, values, strict=True)), json.loads(texts) if texts else None


def _bad_column(message: str, field: str | None) -> ApiError:
    return ApiError(422, "bad_column", message, field)


def _unreadable(why: str) -> ApiError:
    return ApiError(422, "bad_parquet", f"the Parquet body cannot be read: {why}")


def _checked_zones(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A column of zones as int16."""
    zones = columns[name]
    _refuse_first(~((zones >= FIRST_ZONE) & (zones <= LAST_ZONE) & (zones % 1 == 0)), name, zones)
    return zones.astype("int16")


def _checked_miles(rows: int, columns: dict[str, np.ndarray]) -> np.ndarray:
    miles = columns.get("trip_distance")
    if miles is None:
        return np.full(rows, np.nan, "float32")
    _refuse_first((miles < 0) | (miles > MAX_MILES), "trip_distance", miles)
    return miles.astype("float32")


def _checked_pickups(rows: int, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Pickups in New York local time; now where there is none."""
    now = np.datetime64(local_time(None), "s")
    pickups = columns.get("pickup_datetime")
    if pickups is None:
        return np.full(rows, now)
    missing = np.isnan(pickups)
    pickups = np.where(missing, 0, pickups).astype("int64").astype("datetime64[s]")
    pickups = np.where(missing, now, pickups)
    first, last = (np.datetime64(f"{year}-01-01") for year in YEARS)
    _refuse_first((pickups < first) | (pickups >= last), "pickup_datetime", pickups)
    return pickups


def _refuse_first(bad: np.ndarray, name: str, values: np.ndarray) -> None:
    """Refuse the first bad row, if any, in the words of JSON."""
    if bad.any():
        row = int(np.argmax(bad))
        value = values[row].item()
        if isinstance(value, datetime):
            value = value.isoformat()
        elif value != value:
            value = None
        elif name in NEEDED and value.is_integer():
            value = int(value)
        raise refused(name, value, row)
