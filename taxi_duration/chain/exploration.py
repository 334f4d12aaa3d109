"""Tables that an explorer asks of raw and prepared months: nulls, days, hours, speed, zones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration.data.csv_files import find_layout, text_batches
from taxi_duration.data.engine import map_parts
from taxi_duration.data.packing import Part, is_parquet, month_parts, seekable
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.data.sources import raw_here
from taxi_duration.data.trips import COLUMNS
from taxi_duration.data.window import MonthPart, Window, every_kth
from taxi_duration.data.window import Part as TripPart
from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.months import Month
from taxi_duration.domain.pickup_calendar import calendar_days, hours_of_day, weekdays
from taxi_duration.domain.special_days import is_federal_holiday
from taxi_duration.model.duration_model import count_pairs
from taxi_duration.model.features import known_distance

# A plot or a quantile of so many trips is that of all; as a frame they take some 100 MB.
SHOWN_TRIPS = 1_000_000
MILES_EDGES = (0, 1, 2, 3, 5, 8, 12, 20)
# A day is far off when it leaves its weekday's usual by more than this share, and by more than
# FAR_OFF_SPREADS of the window's ordinary scatter (a small sample has more of that).
FAR_OFF_TRIPS, FAR_OFF_SPEED = 0.20, 0.10
FAR_OFF_SPREADS = 4.0
USUAL_WEEKS = 9  # around a day: its weekday's usual follows the season
NORMAL_SPREAD = 1.4826  # standard deviation of a normal law, in median absolute deviations


def count_nulls(months: Sequence[PreparedMonth]) -> pd.DataFrame:
    """Return the raw columns as published: type in the first month, share of nulls by month.

    Returns:
        A row per column of any month: `type`, then a column per month with shares 0-1, NaN
        where that month has no such column.
    """
    found = {str(month.raw.month): _nulls(raw_here(month.raw).path) for month in months}
    shares = pd.DataFrame({month: table["share"] for month, table in found.items()}, dtype=float)
    names = dict.fromkeys(name for table in found.values() for name in table.index)
    types = pd.concat([table["type"] for table in found.values()])
    types = types[~types.index.duplicated()]
    return shares.reindex(list(names)).assign(type=types)[["type", *found]].rename_axis("column")


def _nulls(path: Path) -> pd.DataFrame:
    """Type and share of nulls of every column of a month's file, or of its part files together."""
    tables, rows = zip(
        *((_parquet_nulls if is_parquet(part) else _csv_nulls)(part) for part in month_parts(path)),
        strict=True,
    )
    names = list(dict.fromkeys(name for table in tables for name in table.index))
    nulls = sum(
        table["nulls"].reindex(names).fillna(n) for table, n in zip(tables, rows, strict=True)
    )
    types = pd.concat([table["type"] for table in tables])
    types = types[~types.index.duplicated()]
    return pd.DataFrame({"type": types, "share": nulls / max(sum(rows), 1)}, index=types.index)


def _parquet_nulls(part: Part) -> tuple[pd.DataFrame, int]:
    """From the statistics in the file's own footer; a column without them is read."""
    file = pq.ParquetFile(part.path or seekable(part))
    groups = range(file.num_row_groups)
    places = {file.schema.column(at).path: at for at in range(len(file.schema))}
    table = {}
    for field in file.schema_arrow:
        # A nested column has other ones below it, with nulls of their own.
        at = None if pa.types.is_nested(field.type) else places.get(field.name)
        kept: list[Any] = [
            at if at is None else file.metadata.row_group(g).column(at).statistics for g in groups
        ]
        if all(s is not None and s.has_null_count for s in kept):
            nulls = sum(s.null_count for s in kept)
        else:
            nulls = file.read([field.name]).column(0).null_count
        table[field.name] = {"type": str(field.type), "nulls": nulls}
    return pd.DataFrame.from_dict(table, orient="index"), file.metadata.num_rows


def _csv_nulls(part: Part) -> tuple[pd.DataFrame, int]:
    """Read as text, block by block: a CSV has no types, and may be larger than memory."""
    layout = find_layout(part, needs_ours=False)
    nulls, rows = np.zeros(len(layout.names)), 0
    with part.open() as file:
        for batch in text_batches(file, layout):
            rows += batch.num_rows
            nulls += [column.null_count for column in batch.columns]
    names = [name.strip() for name in layout.names]
    table = pd.DataFrame({"type": "text (CSV)", "nulls": nulls}, index=names)
    return table[~table.index.duplicated()], rows  # empty names at the end of a line, say


# --- trips to look at ------------------------------------------------------------------------


def sample_trips(months: Sequence[PreparedMonth]) -> pd.DataFrame:
    """Return the kept trips of some months, columns as `read_dataframe`, in time order of months.

    Of more than SHOWN_TRIPS every k-th one: from SHOWN_TRIPS to nearly twice as many.
    """
    every, at, kept = max(count_kept(months) // SHOWN_TRIPS, 1), 0, []
    for part in (MonthPart.of(month, with_suspects=True) for month in months):
        kept.append(part.schema(COLUMNS).empty_table())  # a month may have no trips
        for batch in part.columns(COLUMNS):
            kept.append(pa.table(batch).take(pa.array(every_kth(every, at, batch.num_rows))))
            at += batch.num_rows
    return pa.concat_tables(kept).to_pandas()


def count_kept(months: Sequence[PreparedMonth]) -> int:
    """Return how many trips the months have."""
    return sum(month.accounting.rows_kept for month in months)


class RideCounts(NamedTuple):
    """How many trips some months have, counted over all of them.

    Args:
        day: by day, those dated outside the months too, index datetime64[s].
        hour: by weekday (0 is Monday) and hour, without those, int64 of shape (7, 24).
        pair: by pickup and drop-off zone, int64 of shape (266, 266).
    """

    day: pd.Series
    hour: np.ndarray
    pair: np.ndarray


def count_rides(months: Sequence[PreparedMonth]) -> RideCounts:
    """Count the kept trips of some months, month by month."""
    window = Window.scored(months)
    tags = [month.raw.month for month in months]
    parts = list(map_parts(partial(_count_part, calendar_days(tags)), window.parts))
    day = pd.concat([part.day for part in parts]).groupby(level=0).sum()
    return RideCounts(day, np.sum([p.hour for p in parts], 0), np.sum([p.pair for p in parts], 0))


def _count_part(days: np.ndarray, part: TripPart) -> RideCounts:
    """Args: days: of the months, datetime64[D]."""
    hours, pair = np.zeros((7, 24), "int64"), np.zeros((ZONES, ZONES), "int64")
    dates: list[pd.Series] = []
    for rides, _ in part.batches():
        day = rides.pickup_at.astype("datetime64[D]")
        found, at, trips = np.unique(day, return_inverse=True, return_counts=True)
        dates.append(pd.Series(trips, index=found.astype("datetime64[s]")))
        hour = hours_of_day(rides.pickup_at)
        inside = np.isin(found, days)[at]
        cell = (weekdays(found)[at] * 24 + hour)[inside]
        hours += np.bincount(cell, minlength=hours.size).reshape(hours.shape)
        pair += count_pairs(rides)
    return RideCounts(pd.concat(dates).groupby(level=0).sum(), hours, pair)


def sample_note(trips: pd.DataFrame, months: Sequence[PreparedMonth]) -> str:
    """Return what is to be said beside a plot: nothing when it shows all trips of the months."""
    kept = count_kept(months)
    return "" if len(trips) == kept else f", from {len(trips):,} of {kept:,} trips"


# --- distance and speed ----------------------------------------------------------------------


def add_speed(trips: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with `miles` (float64, NaN where they cannot be true) and `speed_mph`."""
    miles = known_distance(trips["trip_distance"].to_numpy())
    return trips.assign(miles=miles, speed_mph=miles / trips["duration"].to_numpy() * 60.0)


def mile_classes(miles: pd.Series) -> pd.Series:
    """Return distance classes such as `2-3` in order, NaN where the distance is not known."""
    bins = pd.cut(miles, [*MILES_EDGES, np.inf], right=False)
    labels = [f"{a}-{b}" for a, b in pairwise(MILES_EDGES)]
    return bins.cat.rename_categories([*labels, f"{MILES_EDGES[-1]}+"])


def by_distance(trips: pd.DataFrame) -> pd.DataFrame:
    """Return trips, minutes (P10, median, P90) and median mph by distance class.

    Classes without a trip are left out; empty for a service that records no distance.
    """
    known = add_speed(trips).dropna(subset=["miles"])
    groups = known.groupby(mile_classes(known["miles"]), observed=True)
    minutes = groups["duration"]
    return pd.DataFrame(
        {
            "miles": groups["miles"].median(),
            "trips": groups.size(),
            "p10": minutes.quantile(0.1),
            "median": minutes.median(),
            "p90": minutes.quantile(0.9),
            "speed_mph": groups["speed_mph"].median(),
        }
    ).rename_axis("miles, class")


# --- days and hours --------------------------------------------------------------------------


def by_day(
    trips: pd.DataFrame, months: Sequence[Month], counts: RideCounts | None = None
) -> pd.DataFrame:
    """Return every day of the months, held against what its weekday usually is.

    Args:
        trips: of these months; those dated outside them are left out.
        counts: of all trips of the months, where `trips` are a sample of them.
    Returns:
        By day: `trips`, `speed_mph` (median; NaN without distances), what both `usual_…` are,
        `holiday` and `far_off` (bool).
    """
    day = trips["pickup_at"].dt.floor("D").to_numpy()
    speed = add_speed(trips)["speed_mph"].groupby(day)
    days = pd.DatetimeIndex(calendar_days(months))
    size = speed.size() if counts is None else counts.day
    table = pd.DataFrame({"trips": size, "speed_mph": speed.median()}).reindex(days)
    table["trips"] = table["trips"].fillna(0.0)
    usual = table.groupby(days.day_of_week).transform(_usual)
    off = _is_far(table["trips"], usual["trips"], FAR_OFF_TRIPS)
    off |= _is_far(table["speed_mph"], usual["speed_mph"], FAR_OFF_SPEED)
    return table.assign(
        usual_trips=usual["trips"],
        usual_speed_mph=usual["speed_mph"],
        holiday=[is_federal_holiday(d.date()) for d in days],
        far_off=off,
    ).rename_axis("day")


def _usual(of_weekday: pd.Series) -> pd.Series:
    return of_weekday.rolling(USUAL_WEEKS, center=True, min_periods=1).median()


def _is_far(value: pd.Series, usual: pd.Series, share: float) -> pd.Series:
    """True where a day leaves its usual by more than noise; False where nothing is known."""
    change = (value / usual.where(usual > 0) - 1.0).fillna(0.0).abs()
    return change > max(share, FAR_OFF_SPREADS * NORMAL_SPREAD * float(change.median()))


def by_hour(
    trips: pd.DataFrame, months: Sequence[Month], counts: RideCounts | None = None
) -> pd.DataFrame:
    """Return how many ride in an hour of the week, and how long it takes them.

    A month has four Tuesdays and five Mondays: trips are given per hour that there was.

    Args:
        trips: of these months; those dated outside them are left out.
        counts: as `by_day`.
    Returns:
        168 rows by `weekday` (0 is Monday) and `hour`: `trips`, `trips_per_hour`, `minutes`
        (median, NaN without a trip).
    """
    days = calendar_days(months)
    inside = trips[np.isin(trips["pickup_at"].to_numpy().astype("datetime64[D]"), days)]
    when = inside["pickup_at"].dt
    cells = inside.groupby([when.day_of_week.to_numpy(), when.hour.to_numpy()])["duration"]
    index = pd.MultiIndex.from_product([range(7), range(24)], names=["weekday", "hour"])
    count = cells.size().reindex(index, fill_value=0)
    if counts is not None:
        count = pd.Series(counts.hour.ravel(), index)
    there_were = np.bincount(pd.DatetimeIndex(days).day_of_week, minlength=7)
    hours = there_were[index.get_level_values("weekday")]
    return pd.DataFrame(
        {"trips": count, "trips_per_hour": count / hours, "minutes": cells.median().reindex(index)}
    )


# --- places ----------------------------------------------------------------------------------


def by_zone(trips: pd.DataFrame, counts: RideCounts | None = None) -> pd.DataFrame:
    """Return trips and median minutes by pickup zone, for zones that have any.

    Args:
        counts: as `by_day`.
    """
    minutes = trips.groupby("PULocationID")["duration"]
    size = minutes.size()
    if counts is not None:
        zone = pd.Series(counts.pair.sum(axis=1), np.arange(ZONES, dtype="int16"))
        size = zone[zone > 0]
    return pd.DataFrame({"trips": size, "minutes": minutes.median()}).rename_axis("zone")
