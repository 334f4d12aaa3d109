"""The table of what true durations said of the traffic; kept in step with feedback.

Each scored true duration counts once for the version that answered its ride, and once for each
that answered it in the shadow: so a version that is promoted begins with a level of its own. Sums
change in the transaction of the feedback; voided feedback is taken out again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, case, func, select

from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.truths import SCORED
from taxi_duration.live.log_tables import insert, rows_of, shadow_answers, traffic_sums
from taxi_duration.live.traffic_bins import (
    BIN_MINUTES,
    SUMS,
    TrafficBins,
    clipped_logs,
    end_bin,
    minute_of,
    zone_areas,
)
from taxi_duration.live.traffic_now import ride_clock
from taxi_duration.timestamps import DAY_SECONDS

Row = Mapping[str, Any]
Key = tuple[str, int, int]

# Longer than any level or interval looks back. By the clock of the service, not of the rides: a
# month replayed from years ago is kept as long.
KEPT_SECONDS = 42.0 * DAY_SECONDS
A_RIDE = 0.5  # a sum counts whole rides: less than half of one is none
# Clocks of clients may be ahead. Until its bin has ended no answer is given by it.
EARLY_MINUTES = BIN_MINUTES


def add_truths(connection: Connection, rows: Sequence[Row], sign: int = 1) -> None:
    """Add true durations to the sums; with sign -1, take them out.

    Args:
        rows: the ride's columns, `true_duration`, `received_at` and `verdict`; archived rides
            with their `shadow_answers`.
    """
    counted = _ended([row for row in rows if row["verdict"] == SCORED])
    answered = list(_answers(connection, counted))
    if sign < 0:
        answered = _still_counted(connection, answered)
    if not answered:
        return
    if sign > 0:
        _add(connection, _sums(answered), _begun(answered))
    else:
        _take_out(connection, _sums(answered))


def read_bins(connection: Connection, model_sha256: str, days: float, now: float) -> TrafficBins:
    """Return the bins of a version that have ended, up to the newest.

    Args:
        days: before the newest.
        now: unix seconds.
    """
    bins, of_version = traffic_sums.c, traffic_sums.c.model_sha256 == model_sha256
    ended = of_version & (bins.bin < ride_clock(now) // BIN_MINUTES) & (bins.rides > 0)
    newest = connection.scalar(select(func.max(bins.bin)).where(ended))
    if newest is None:
        return TrafficBins.none()
    first = newest - round(days * 24 * 60 / BIN_MINUTES)
    query = select(bins.bin, bins.area, *(bins[name] for name in SUMS))
    rows = connection.execute(query.where(ended, bins.bin >= first).order_by(bins.bin, bins.area))
    numbers = np.array([tuple(row) for row in rows], "float64").T
    return TrafficBins(*numbers[:2].astype("int64"), *numbers[2:])


def _answers(connection: Connection, rows: Sequence[Row]) -> Iterable[tuple[Row, Row]]:
    """Yield each ride with its answer, and with each of its answers in the shadow."""
    yield from ((row, row) for row in rows)
    here = {row["prediction_id"]: row for row in rows if "shadow_answers" not in row}
    for shadow in rows_of(connection, shadow_answers, list(here)):
        yield here[shadow["prediction_id"]], shadow
    for row in rows:
        yield from ((row, shadow) for shadow in row.get("shadow_answers", ()))


def _ended(rows: Sequence[Row]) -> list[Row]:
    """Return the rides that could have ended when their true durations came."""
    clocks = {at: ride_clock(at) for at in {row["received_at"] for row in rows}}
    pickups = minute_of(np.array([row["pickup_at"] for row in rows], "datetime64[s]")).tolist()
    return [
        row
        for row, pickup in zip(rows, pickups, strict=True)
        if pickup + row["true_duration"] <= clocks[row["received_at"]] + EARLY_MINUTES
    ]


def _keys(answered: Sequence[tuple[Row, Row]]) -> Iterator[Key]:
    """Yield the row of the table that each answer counts in."""
    truth = np.array([row["true_duration"] for row, _ in answered], "float64")
    pickups = np.array([row["pickup_at"] for row, _ in answered], "datetime64[s]")
    areas = zone_areas()[[row["PULocationID"] for row, _ in answered]].tolist()
    digests = [answer["model_sha256"] for _, answer in answered]
    return zip(digests, end_bin(pickups, truth).tolist(), areas, strict=True)


def _begun(answered: Sequence[tuple[Row, Row]]) -> dict[Key, float]:
    """Return when the first true duration of each key was received, unix seconds."""
    begun: dict[Key, float] = {}
    for key, (row, _) in zip(_keys(answered), answered, strict=True):
        begun[key] = min(row["received_at"], begun.get(key, row["received_at"]))
    return begun


def _still_counted(
    connection: Connection, answered: Sequence[tuple[Row, Row]]
) -> list[tuple[Row, Row]]:
    """Return those that the table's rows count.

    Not those received before a row was begun: of a log from before there were sums, or of a month
    that was replayed again after the first replay's sums had gone. The row is others' alone.
    """
    if not answered:
        return []
    keys, bins = list(_keys(answered)), traffic_sums.c
    digests, places = {key[0] for key in keys}, [key[1] for key in keys]
    query = select(bins.model_sha256, bins.bin, bins.area, bins.begun_at).where(
        bins.model_sha256.in_(digests), bins.bin.between(min(places), max(places))
    )
    begun = {(digest, at, area): when for digest, at, area, when in connection.execute(query)}
    return [
        pair
        for key, pair in zip(keys, answered, strict=True)
        if key in begun and pair[0]["received_at"] >= (begun[key] or 0.0)
    ]


def _sums(answered: Sequence[tuple[Row, Row]]) -> dict[Key, tuple[float, ...]]:
    """Return the sums of true durations and answers to them, in the order of SUMS, by key."""
    truth = np.array([row["true_duration"] for row, _ in answered], "float64")
    given = {name: _column(answered, name) for name in ("duration", "p10", "p90")}
    base = {name: _base(answered, name, given[name]) for name in given}
    columns = (
        np.ones(len(answered)),
        clipped_logs(truth, np.clip(base["duration"], *TRIP_MINUTES)),
        np.abs(truth - base["duration"]), np.abs(truth - given["duration"]),
        truth < given["p10"], truth > given["p90"], truth < base["p10"], truth > base["p90"],
    )  # fmt: skip
    places: dict[Key, int] = {}
    at = [places.setdefault(key, len(places)) for key in _keys(answered)]
    sums = [np.bincount(at, column, len(places)).tolist() for column in columns]
    return dict(zip(places, zip(*sums, strict=True), strict=True))


def _column(answered: Sequence[tuple[Row, Row]], name: str) -> np.ndarray:
    return np.array([answer[name] for _, answer in answered], "float64")


def _base(answered: Sequence[tuple[Row, Row]], name: str, given: np.ndarray) -> np.ndarray:
    """Return minutes answered without traffic; those given where there was none."""
    base = _column(answered, f"base_{name}")  # None becomes NaN
    return np.where(np.isnan(base), given, base)


def _add(
    connection: Connection, sums: Mapping[Key, Sequence[float]], begun: Mapping[Key, float]
) -> None:
    now = time.time()
    # Before a row of our own is locked: who deletes and waits must hold nothing that others want.
    connection.execute(traffic_sums.delete().where(traffic_sums.c.told_at < now - KEPT_SECONDS))
    names = traffic_sums.c.keys()
    # Sorted: two writers lock rows in one order and never deadlock.
    rows = [
        dict(zip(names, (*key, *sums[key], now, begun[key]), strict=True)) for key in sorted(sums)
    ]
    statement = insert(connection.dialect, traffic_sums)
    added = {name: traffic_sums.c[name] + statement.excluded[name] for name in SUMS}
    added["told_at"] = statement.excluded.told_at
    old, new = traffic_sums.c.begun_at, statement.excluded.begun_at
    added["begun_at"] = case((new < old, new), else_=old)
    keys = list(traffic_sums.primary_key)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=added), rows)


def _take_out(connection: Connection, sums: Mapping[Key, Sequence[float]]) -> None:
    """Subtract from the rows that are there: old ones are gone with all that they counted.

    A row of which nothing is left goes, too: what was never counted, as the truths of a log from
    before there were sums, must not be owed by those that come.
    """
    keys = [column.name for column in traffic_sums.primary_key]
    same = [traffic_sums.c[name] == bindparam(f"of_{name}") for name in keys]
    less = {name: traffic_sums.c[name] - bindparam(f"by_{name}") for name in SUMS}
    names = [*(f"of_{name}" for name in keys), *(f"by_{name}" for name in SUMS)]
    rows = [dict(zip(names, (*key, *sums[key]), strict=True)) for key in sorted(sums)]
    connection.execute(traffic_sums.update().where(*same).values(less), rows)
    connection.execute(traffic_sums.delete().where(traffic_sums.c.rides < A_RIDE))
