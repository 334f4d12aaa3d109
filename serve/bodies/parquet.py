"""Parquet bodies: decoded in a child process, which may take so much memory and time and no more.

A file of a few kilobytes can claim to unpack to gigabytes, and a crafted one can bring a reader
down. So its claims are checked and it is cut down to the wanted columns first (`parquet_footer`).
Should it still take too much, the child ends, and the worker says so; it does not even load the
reader. One child at a time: the memory of all is a few hundred megabytes however many files come.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from serve.bodies import parquet_child
from serve.bodies.errors import ApiError
from serve.bodies.parquet_child import BAD_COLUMN, NEEDED, TOO_MANY, UNREADABLE, WANTED
from serve.bodies.parquet_footer import ColumnError, FooterError, RowsError, cut_down
from serve.bodies.reading import check_count
from serve.bodies.ride_body import ManyRides
from serve.bodies.schema import ALLOWED, MAX_MILES, YEARS
from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE
from taxi_duration.domain.rides import Rides, local_time

PARQUET_TYPES = ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet")
CHILD_SECONDS = 15  # by the clock, for seconds of the processor (`parquet_child`) on a busy machine
# That a body waits for the child of another: some times as long as one of MAX_RIDES rides takes.
# It holds a thread meanwhile, of which there are few.
WAIT_SECONDS = 2.0
_one_child = threading.Semaphore(1)  # of each worker
_ahead: list[subprocess.Popen[bytes]] = []  # waits for a file; ends when this process does


def read_rides(body: bytes, most: int) -> ManyRides:
    """Return the rides of a Parquet file, checked.

    Args:
        body: the file. `PULocationID`, `DOLocationID` (whole numbers), `trip_distance`
            (number, null or NaN when not known) and the pickup time (a timestamp, under
            `pickup_datetime` or the names that TLC uses) are read, other columns are not.
        most: rides allowed.
    Raises:
        ApiError: 422 when it cannot be read, 413 with too many rows, 400 for a bad value.
    """
    columns = _decode(body, most)
    rides = Rides(
        _checked_zones(columns, "PULocationID"),
        _checked_zones(columns, "DOLocationID"),
        _checked_pickups(columns),
        _checked_miles(columns),
    )
    return ManyRides(rides, [None if m != m else m for m in rides.trip_distance.tolist()])


def _decode(body: bytes, most: int) -> dict[str, np.ndarray]:
    """Cut the file down, run the child and return its columns."""
    try:
        file = cut_down(body, most, WANTED, NEEDED)
    except RowsError as error:
        check_count(int(str(error)), most)
    except ColumnError as error:
        raise _bad_column(str(error)) from None
    except FooterError as error:
        raise _unreadable(str(error)) from None
    if not _one_child.acquire(timeout=WAIT_SECONDS):
        raise ApiError(503, "busy", "other Parquet bodies are being unpacked; try again")
    try:
        child = _run_child(file, most)
    finally:
        _one_child.release()
    message = (child.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
    if child.returncode == TOO_MANY:
        check_count(int(message), most)
    if child.returncode == BAD_COLUMN:
        raise _bad_column(message)
    if child.returncode == UNREADABLE:
        raise _unreadable(message)
    if child.returncode:
        raise _unreadable("it unpacks to more than the service holds, or is damaged")
    header, _, content = child.stdout.partition(b"\n")
    names = header.decode().split()
    values = np.frombuffer(content, "float64").reshape(len(names), -1)
    return dict(zip(names, values, strict=True))


def _run_child(file: bytes, most: int) -> subprocess.CompletedProcess[bytes]:
    """Let a child unpack a file: one that was started ahead, as the next one is now.

    To start and to load the reader takes longer than to unpack 10,000 rides.
    """
    child = _ahead.pop() if _ahead else _start_child()
    if child.poll() is not None:  # somebody ended it while it waited
        child.communicate()
        child = _start_child()
    _ahead.append(_start_child())  # while the other one works, and before the model needs all cores
    try:
        out, errors = child.communicate(b"%d\n%b" % (most, file), CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise _unreadable("it takes too long to unpack") from None
    return subprocess.CompletedProcess(child.args, child.returncode, out, errors)


def _start_child() -> subprocess.Popen[bytes]:
    # Without site and without numpy it starts in a tenth of the time.
    packages = str(Path(getattr(find_spec("arro3.io"), "origin", "")).parents[2])
    command = [sys.executable, "-I", "-S", parquet_child.__file__, packages]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def _bad_column(message: str) -> ApiError:
    return ApiError(422, "bad_column", message, message.split(" ")[0])


def _unreadable(why: str) -> ApiError:
    return ApiError(422, "bad_parquet", f"the Parquet body cannot be read: {why}")


def _checked_zones(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A column of zones as int16."""
    zones = columns[name]
    _refuse_first(~((zones >= FIRST_ZONE) & (zones <= LAST_ZONE) & (zones % 1 == 0)), name, zones)
    return zones.astype("int16")


def _checked_miles(columns: dict[str, np.ndarray]) -> np.ndarray:
    miles = columns.get("trip_distance")
    if miles is None:
        return np.full(len(columns["PULocationID"]), np.nan, "float32")
    _refuse_first((miles < 0) | (miles > MAX_MILES), "trip_distance", miles)
    return miles.astype("float32")


def _checked_pickups(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Pickups in New York local time; now where there is none."""
    now = np.datetime64(local_time(None), "s")
    pickups = columns.get("pickup_datetime")
    if pickups is None:
        return np.full(len(columns["PULocationID"]), now)
    missing = np.isnan(pickups)
    pickups = np.where(missing, 0, pickups).astype("int64").astype("datetime64[s]")
    pickups = np.where(missing, now, pickups)
    first, last = (np.datetime64(f"{year}-01-01") for year in YEARS)
    _refuse_first((pickups < first) | (pickups >= last), "pickup_datetime", pickups)
    return pickups


def _refuse_first(bad: np.ndarray, name: str, values: np.ndarray) -> None:
    """Refuse the first bad row, if any."""
    if bad.any():
        row = int(np.argmax(bad))
        raise ApiError(
            400, "bad_value", f"{name} is {values[row]}; it must be {ALLOWED[name]}", name, row
        )
