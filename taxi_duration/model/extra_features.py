"""What the user knows of an hour beyond the ride: weather, events; from the EXTRA_FEATURES file.

A CSV file (also gzipped) with a column `hour` (ISO, New York local) and columns of numbers, such
as `hour,rain_mm,parade`. Training joins it to each trip's pickup hour, and the model keeps the
names of its columns; answering looks the same names up in the file as it is then (a forecast,
for rides to come). An hour, a column or a file that is not there is a value not known, which
the trees can deal with.
"""

from __future__ import annotations

import csv
import gzip
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np

from taxi_duration import environment
from taxi_duration.errors import SettingError
from taxi_duration.files import sha256_file

logger = logging.getLogger(__name__)

HOUR = "hour"
MAX_COLUMNS = 50


@dataclass(frozen=True)
class Conditions:
    """The file's content.

    Args:
        names: of the columns, without `hour`.
        by_hour: values by hour of New York time, each of length k; NaN where not known.
        sha256: of the file.
        file: its name.
    """

    names: tuple[str, ...]
    by_hour: dict[datetime, tuple[float, ...]]
    sha256: str
    file: str


def load_conditions() -> Conditions | None:
    """Return the conditions that EXTRA_FEATURES names, None when it is not set.

    Raises:
        SettingError: the file is missing or not as described above; names line and column.
    """
    path = environment.extra_features()
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError as error:
        raise SettingError(f"EXTRA_FEATURES {path.name} cannot be read: {error}") from error
    found = _read_once(path, stat.st_mtime_ns, stat.st_size)
    if isinstance(found, SettingError):
        raise found
    return found


def values_of(names: Sequence[str], pickup_at: np.ndarray) -> np.ndarray:
    """Return the named columns for rides, float32 of shape (n, k), NaN where not known.

    Args:
        pickup_at: datetime64, New York local time, shape (n,).
    """
    conditions = _current()
    if conditions is None:
        return np.full((len(pickup_at), len(names)), np.nan, dtype="float32")
    hours, inverse = np.unique(pickup_at.astype("datetime64[h]"), return_inverse=True)
    rows = [_pick(conditions, names, hour) for hour in hours.astype("datetime64[s]").tolist()]
    return np.array(rows, dtype="float32").reshape(len(hours), len(names))[inverse]


def values_at(names: Sequence[str], pickup_at: datetime) -> list[float]:
    """Return the named columns for one ride, NaN where not known."""
    conditions = _current()
    hour = pickup_at.replace(minute=0, second=0, microsecond=0)
    return [math.nan] * len(names) if conditions is None else _pick(conditions, names, hour)


def _current() -> Conditions | None:
    """Return the file as it is now, None while it cannot be read.

    Riders get their answers, whatever happens to a file of the weather.
    """
    try:
        return load_conditions()
    except SettingError as error:
        _warn_once(str(error))
        return None


@lru_cache(maxsize=64)
def _warn_once(message: str) -> None:
    logger.warning("%s; answers do without it", message)


def _pick(conditions: Conditions, names: Sequence[str], hour: datetime) -> list[float]:
    values = dict(zip(conditions.names, conditions.by_hour.get(hour, ()), strict=False))
    return [values.get(name, math.nan) for name in names]


@lru_cache(maxsize=2)
def _read_once(path: Path, mtime_ns: int, size: int) -> Conditions | SettingError:
    """Read the file, or find what is wrong with it, once for each `mtime_ns` and `size`."""
    try:
        return _read(path)
    except SettingError as error:
        return error
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        return SettingError(f"EXTRA_FEATURES {path.name} cannot be read: {error}")


def _read(path: Path) -> Conditions:
    with path.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        names = _check_header(header, path.name)
        at = header.index(HOUR)
        by_hour: dict[datetime, tuple[float, ...]] = {}
        for row in rows:
            where = f"EXTRA_FEATURES {path.name}, line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise SettingError(f"{where}: {len(row)} values for {len(header)} columns")
            hour = _hour(row.pop(at), where)
            if hour in by_hour:
                raise SettingError(f"{where}: the hour {hour:%Y-%m-%dT%H:00} comes twice")
            by_hour[hour] = tuple(map(_number, row, names, [where] * len(row)))
    return Conditions(names, by_hour, sha256_file(path), path.name)


def _check_header(header: list[str], file: str) -> tuple[str, ...]:
    names = tuple(name for name in header if name != HOUR)
    if header.count(HOUR) != 1 or not names or len(set(names)) != len(names) or "" in names:
        raise SettingError(
            f"EXTRA_FEATURES {file}: the first line must name a column {HOUR} and at least one "
            f"other, each once; found {', '.join(header) or 'nothing'}"
        )
    if len(names) > MAX_COLUMNS:
        raise SettingError(
            f"EXTRA_FEATURES {file}: {len(names)} columns; at most {MAX_COLUMNS} are read"
        )
    return names


def _hour(text: str, where: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        at = None
    if at is None or at.tzinfo is not None or (at.minute, at.second, at.microsecond) != (0, 0, 0):
        raise SettingError(
            f"{where}: {HOUR} is {text!r}; it must be a full hour such as 2021-02-15T08:00, "
            "New York local, without an offset"
        )
    return at


def _number(text: str, name: str, where: str) -> float:
    if not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise SettingError(f"{where}: {name} is {text!r}; it must be a number, or empty")
    return value
