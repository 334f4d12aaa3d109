"""A part of the archive: rides with feedback, shadow answers and failures in one Parquet file.

Written and read with arro3, which the service has too; any Parquet reader can read them. A ride
takes less than 40 bytes: the random part of its id (10), four durations to 6 ms (10), the times of
question and feedback (8), and the rest. All but durations and latency is exact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from arro3.core import Array, DataType, Table
from arro3.io import read_parquet, write_parquet

from taxi_duration.live.log_rows import PredictionRow, ShadowRow
from taxi_duration.live.log_tables import BASE, LIVE

# A ride: the columns of `predictions`; `true_duration`, `received_at` and `verdict` of its
# feedback, None without; and for each table of `LISTS` the list of its rows.
Ride = dict[str, Any]
LISTS = ("shadow_answers", "model_failures", "voided_feedback")
RIDE = PredictionRow.__struct_fields__
FEEDBACK = ("true_duration", "received_at", "verdict")
SHADOW = ShadowRow.__struct_fields__[1:]
# Decimal places of answered minutes: 6 ms; riders see two.
DIGITS = 4
GIVEN = ("duration", "p10", "p50", "p90")
MINUTES = (*GIVEN, *BASE)
LATENCY_DIGITS = 3  # significant; it is never shown with more
OUR_ID = re.compile(r"[0-9a-f]{32}")
MOST_ROWS = 1 << 20  # in a row group: a part has one

# What rides have in files from before there was live traffic.
BEFORE: dict[str, Any] = dict.fromkeys(LIVE, 1.0) | dict.fromkeys(BASE)

_TEXT = ("ride_id", "model", "model_sha256", "arm", "traceparent", "verdict", "more")
_KINDS = {"PULocationID": "int16", "DOLocationID": "int16", "support": "int64",
          "used_distance": "bool"}  # fmt: skip
# Numbers that hardly repeat: split by byte they compress best.
_SPLIT = ("asked_at", "received_at", *MINUTES, *(f"shadow_{name}" for name in MINUTES))
_UNLIKE = ("prediction_id", "pickup_at", "traceparent", *_SPLIT)


def write_rides(path: Path, rides: Sequence[Ride]) -> None:
    """Write rides to a file.

    Args:
        rides: at least one.
    Raises:
        OSError: no space, no permission.
    """
    columns: dict[str, Any] = {name: _column(name, v) for name, v in _values(rides).items()}
    content = BytesIO()  # on a full disk arro3 panics, which no `except Exception` catches
    write_parquet(
        Table.from_pydict(columns),
        content,
        compression="zstd(9)",
        max_row_group_size=MOST_ROWS,
        column_dictionary_enabled={name: name not in _UNLIKE for name in columns},
        column_encoding=_encodings(columns),
    )
    path.write_bytes(content.getbuffer())


def read_rides(path: Path) -> list[Ride]:
    """Return the rides of a file, as `kept` rounds them.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged.
    """
    content = path.read_bytes()
    try:
        table = read_parquet(content, batch_size=MOST_ROWS).read_all()
        columns = {name: _read(table.column(name)) for name in table.column_names}
        return [_whole(dict(zip(columns, row, strict=True)))
                for row in zip(*columns.values(), strict=True)]  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the reader's panics are BaseExceptions
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def kept(ride: Ride) -> Ride:
    """Return a ride rounded as the archive keeps it; equal to the one read back."""
    shadows = ride["shadow_answers"]
    if shadows:
        shadows = [_rounded(shadows[0]), *shadows[1:]]
    short = _short(ride["latency_ms"])
    return {**_rounded(ride), "latency_ms": short, "shadow_answers": shadows}


def _rounded(answer: dict[str, Any]) -> dict[str, Any]:
    minutes = {name: answer[name] for name in MINUTES if answer[name] is not None}
    return {**answer, **{name: round(value, DIGITS) for name, value in minutes.items()}}


def _values(rides: Sequence[Ride]) -> dict[str, list[Any]]:
    """Return the columns of the file as lists."""
    found = {name: [ride[name] for ride in rides] for name in (*RIDE, *FEEDBACK)}
    firsts: list[dict[str, Any]] = [next(iter(ride["shadow_answers"]), {}) for ride in rides]
    if any(firsts):
        found |= {f"shadow_{name}": [row.get(name) for row in firsts] for name in SHADOW}
    more = [_more(ride) for ride in rides]
    if any(more):
        found["more"] = more
    found["latency_ms"] = [_short(value) for value in found["latency_ms"]]
    return found


def _more(ride: Ride) -> str | None:
    """Return what few rides have as JSON: all lists but the first shadow answer; None without."""
    lists = {name: ride[name] for name in LISTS}
    lists["shadow_answers"] = lists["shadow_answers"][1:]
    lists = {name: rows for name, rows in lists.items() if rows}
    return msgspec.json.encode(lists).decode() if lists else None


def _short(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else float(f"{milliseconds:.{LATENCY_DIGITS}g}")


def _column(name: str, values: list[Any]) -> Array:
    if name == "prediction_id" and all(map(OUR_ID.fullmatch, values)):
        return Array([bytes.fromhex(value) for value in values], type=DataType.binary(16))
    if name == "pickup_at":
        return _pickups(values)
    if name in _KINDS:
        return Array(values, type=getattr(DataType, _KINDS[name])())
    if name.removeprefix("shadow_") in MINUTES:
        return _minutes(values)
    is_text = name in ("prediction_id", "shadow_model", "shadow_model_sha256", *_TEXT)
    return Array(values, type=DataType.string() if is_text else DataType.float64())


def _pickups(values: list[str]) -> Array:
    """Return timestamps when all have the service's format, else text."""
    try:
        times = np.array(values, "datetime64[s]")
    except ValueError:
        return Array(values, type=DataType.string())
    if np.datetime_as_string(times).tolist() != values:
        return Array(values, type=DataType.string())
    return Array(times.astype("datetime64[ms]").astype("int64").tolist(),
                 type=DataType.int64()).cast(DataType.timestamp("ms"))  # fmt: skip


def _minutes(values: Sequence[float | None]) -> Array:
    """Return decimals, four bytes each before compression; floats when a value is too large."""
    short = [None if value is None else round(value, DIGITS) for value in values]
    column = Array(short, type=DataType.float64())
    if all(value is None or abs(value) < 10**DIGITS for value in short):
        return column.cast(DataType.decimal128(2 * DIGITS, DIGITS))
    return column


def _encodings(columns: dict[str, Any]) -> dict[Any, Any]:
    """Return each column's encoding, used where it has no dictionary or that is full."""
    encodings = dict.fromkeys((*_SPLIT, "trip_distance"), "byte_stream_split")
    if DataType.is_timestamp(columns["pickup_at"].type):
        encodings["pickup_at"] = "delta_binary_packed"
    if DataType.is_fixed_size_binary(columns["prediction_id"].type):
        encodings["prediction_id"] = "byte_stream_split"
    return {name: encoding for name, encoding in encodings.items() if name in columns}


def _read(column: Any) -> list[Any]:
    kind = column.type
    if DataType.is_timestamp(kind):
        milliseconds = np.array(column.cast(DataType.int64()).to_pylist(), "datetime64[ms]")
        texts: list[Any] = np.datetime_as_string(milliseconds.astype("datetime64[s]")).tolist()
        return texts
    if DataType.is_decimal(kind):
        column = column.cast(DataType.float64())
    values: list[Any] = column.to_pylist()
    return [value.hex() for value in values] if DataType.is_fixed_size_binary(kind) else values


def _whole(row: dict[str, Any]) -> Ride:
    """Return the ride of a row of the file; columns that are younger than it are as `BEFORE`."""
    row = {**dict.fromkeys(RIDE), **BEFORE, **row}
    more = msgspec.json.decode(row.pop("more", None) or "{}")
    shadow = {name: row.pop(f"shadow_{name}", BEFORE.get(name)) for name in SHADOW}
    firsts = [{"prediction_id": row["prediction_id"], **shadow}] if shadow["model"] else []
    lists = {name: more.get(name, []) for name in LISTS}
    return {**row, **lists, "shadow_answers": firsts + lists["shadow_answers"]}
