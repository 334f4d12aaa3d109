"""Faults put into generated or real months of green: what a month's health must find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

PICKUP, DROPOFF = "lpep_pickup_datetime", "lpep_dropoff_datetime"
MINUTE_US = 60_000_000


def clock(table: pa.Table, name: str) -> np.ndarray:
    """A clock's column as int64 microseconds."""
    return table[name].cast(pa.timestamp("us")).to_numpy().astype("M8[us]").view("int64").copy()


def with_values(table: pa.Table, name: str, values: object) -> pa.Table:
    """The table with a column of other values, of the same type where they fit."""
    at = table.column_names.index(name)
    new = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return table.set_column(at, name, new)


def with_clocks(table: pa.Table, pickup: np.ndarray, dropoff: np.ndarray) -> pa.Table:
    """The table with other clocks, int64 microseconds."""
    for name, values in ((PICKUP, pickup), (DROPOFF, dropoff)):
        table = with_values(table, name, values.view("M8[us]"))
    return table


def some_rows(table: pa.Table, vendor: int | None, share: float) -> np.ndarray:
    """So large a share of a vendor's rows, or of all, as bool of shape (rows,)."""
    mask = np.ones(table.num_rows, dtype=bool)
    if vendor is not None:
        mask = table["VendorID"].to_pandas().to_numpy() == vendor
    return mask & (np.random.default_rng(3).random(table.num_rows) < share)


def stuck_minute(
    table: pa.Table, rows: np.ndarray, minute: int, clocks: tuple[str, ...] = (PICKUP, DROPOFF)
) -> pa.Table:
    """Write one minute of the hour into clocks of these rows."""
    return _each_minute(table, rows, clocks, lambda minutes: np.full_like(minutes, minute))


def rounded_minutes(
    table: pa.Table, rows: np.ndarray, to: int, clocks: tuple[str, ...] = (PICKUP, DROPOFF)
) -> pa.Table:
    """Round clocks of these rows down to so many minutes."""
    return _each_minute(table, rows, clocks, lambda minutes: minutes // to * to)


def _each_minute(
    table: pa.Table,
    rows: np.ndarray,
    clocks: tuple[str, ...],
    change: Callable[[np.ndarray], np.ndarray],
) -> pa.Table:
    changed = {name: clock(table, name) for name in (PICKUP, DROPOFF)}
    for name in clocks:
        minutes = changed[name] // MINUTE_US % 60
        changed[name] += np.where(rows, (change(minutes) - minutes) * MINUTE_US, 0)
    return with_clocks(table, changed[PICKUP], changed[DROPOFF])


def one_duration(table: pa.Table, rows: np.ndarray, minutes: float) -> pa.Table:
    """Let these rides take one exact time."""
    pickup, dropoff = clock(table, PICKUP), clock(table, DROPOFF)
    return with_clocks(table, pickup, np.where(rows, pickup + int(minutes * MINUTE_US), dropoff))
