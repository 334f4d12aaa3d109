"""Makes the atlas: what earlier years say of the city."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month
from taxi_duration.errors import SettingError
from taxi_duration.files import sha256_file, write_json
from taxi_duration.model.atlas import ATLAS_COLUMNS, ATLAS_FILE, SOURCES_FILE
from taxi_duration.model.features import PAIR_TABLE, FeatureTables
from taxi_duration.training.feature_tables import window_tables

MANTISSA = 256  # steps of a stored number: 0.4 %, well below what a route's mean is known to


def write_atlas(
    folder: Path, tables: FeatureTables, known_from: str, months: list[dict[str, Any]]
) -> None:
    """Write the two files of an atlas.

    Args:
        folder: where `atlas.npz` and `atlas.json` go.
        tables: fitted on the months.
        known_from: first day (ISO) that a window may begin on.
        months: what was read (`PreparedMonth.lineage`).
    """
    places = [PAIR_TABLE.index(name) for name in ATLAS_COLUMNS.values()]
    curve = tables.minutes_of_miles
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / ATLAS_FILE,
        pair=_rounded(tables.pair[:, :, places]),
        pickup_hour=_rounded(tables.pickup_hour),
        dropoff_hour=_rounded(tables.dropoff_hour / tables.city_hour),
        knots=curve.x,
        heights=curve.y,
    )
    sources = {"known_from": known_from, "sha256": sha256_file(folder / ATLAS_FILE)}
    write_json(folder / SOURCES_FILE, {**sources, "months": months})


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return float16 with few distinct mantissas: the file is then half as large."""
    mantissa, exponent = np.frexp(np.nan_to_num(values, nan=0.0).astype("float64"))
    return np.ldexp(np.round(mantissa * MANTISSA) / MANTISSA, exponent).astype("float16")


def make_atlas(months: dict[str, list[Month]], folder: Path) -> dict[str, Any]:
    """Make the atlas of months of several services, known from the month after the last.

    Args:
        months: by service, in time order.
        folder: where `atlas.npz` and `atlas.json` go.
    Returns:
        `trips`, `known_from` and the files' `months`.
    Raises:
        SettingError: no month is given.
        TaxiError: a month cannot be had or read.
    """
    prepared = [month for name, some in months.items() for month in prepare_months(name, some)]
    if not prepared:
        raise SettingError("an atlas needs at least one month")
    window = Window.learnable(prepared)
    tables = window_tables(window, math.inf)
    known_from = f"{max(month.raw.month for month in prepared).shift(1)}-01"
    kept = ("service", "month", "file", "sha256", "rows_read", "rows_kept")
    lineage = [{name: month.lineage()[name] for name in kept} for month in prepared]
    write_atlas(folder, tables, known_from, lineage)
    return {"trips": len(window), "known_from": known_from, "months": lineage}
