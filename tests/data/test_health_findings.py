from collections.abc import Callable

import numpy as np
import planted
import pyarrow as pa
import pytest
from planted import DROPOFF, PICKUP, some_rows

from taxi_duration.data.health.alone import find_alone
from taxi_duration.data.health.compare import compare
from taxi_duration.data.health.finding import MonthFinding
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.trips import read_month
from taxi_duration.domain.months import Month, parse_month

ROWS = 30_000
HOUR_US = 3_600_000_000
EARLIER, LATER = "2021-02", "2021-03"
Change = Callable[[pa.Table, np.ndarray], pa.Table]


def moved(hours: float) -> Change:
    """Both clocks are so many hours ahead."""

    def change(table: pa.Table, rows: np.ndarray) -> pa.Table:
        ahead = np.where(rows, int(hours * HOUR_US), 0)
        clocks = (planted.clock(table, name) + ahead for name in (PICKUP, DROPOFF))
        return planted.with_clocks(table, *clocks)

    return change


def times(factor: float) -> Change:
    """Distances are so many times as long."""

    def change(table: pa.Table, rows: np.ndarray) -> pa.Table:
        miles = table["trip_distance"].to_numpy()
        return planted.with_values(table, "trip_distance", np.where(rows, miles * factor, miles))

    return change


def value(column: str, new: object) -> Change:
    """A column has one other value."""

    def change(table: pa.Table, rows: np.ndarray) -> pa.Table:
        old = table[column].to_pandas()
        return planted.with_values(table, column, pa.array(old.where(~rows, new), from_pandas=True))

    return change


def swapped(one: str, other: str) -> Change:
    """Two columns have each other's values."""

    def change(table: pa.Table, rows: np.ndarray) -> pa.Table:
        a, b = (table[name].to_numpy() for name in (one, other))
        table = planted.with_values(table, one, np.where(rows, b, a))
        return planted.with_values(table, other, np.where(rows, a, b))

    return change


def renumbered(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Zones have other numbers."""
    numbers = np.random.default_rng(1).permutation(265)
    for name in ("PULocationID", "DOLocationID"):
        zones = table[name].to_numpy()
        table = planted.with_values(table, name, np.where(rows, numbers[zones - 1] + 1, zones))
    return table


def without(from_day: int, to_day: int) -> Change:
    """These days are not there."""

    def change(table: pa.Table, rows: np.ndarray) -> pa.Table:
        days = planted.clock(table, PICKUP).view("M8[us]").astype("M8[D]")
        first = np.datetime64(f"{LATER}-01")
        gone = (days >= first + (from_day - 1)) & (days < first + to_day)
        return table.filter(~gone)

    return change


def twice(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows are there twice."""
    return pa.concat_tables([table, table.filter(rows)])


def stuck_second(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The pickup's second is always 30."""
    pickup, dropoff = planted.clock(table, PICKUP), planted.clock(table, DROPOFF)
    at = pickup // 60_000_000 * 60_000_000 + 30_000_000
    return planted.with_clocks(table, np.where(rows, at, pickup), dropoff)


def look(tmp_path, table: pa.Table, tag: str):
    path = tmp_path / f"green_tripdata_{tag}.parquet"
    pa.parquet.write_table(table, path)
    return read_month(path, parse_month(tag))


def find(month, tag: str, before) -> list[MonthFinding]:
    profile, reasons = month.look.profile, month.accounting.reasons
    known = frozenset(fault.vendor or "" for fault in month.look.faults)
    return [
        *find_alone(profile, "green", parse_month(tag), reasons, known),
        *compare(profile, before),
    ]


@pytest.fixture(scope="module")
def months(tmp_path_factory) -> tuple[pa.Table, list]:
    """A healthy month, and the profile of the one before it."""
    folder = tmp_path_factory.mktemp("healthy")
    before = look(folder, make_sample_month("green", EARLIER, ROWS), EARLIER)
    return make_sample_month("green", LATER, ROWS), [before.look.profile]


def test_healthy_month_gives_no_finding(months, tmp_path):
    table, before = months
    assert find(look(tmp_path, table, LATER), LATER, before) == []


OF_ALL = [
    ("clock_shifted", moved(-1), 1.0),
    ("clock_shifted", moved(5), 1.0),
    ("night_shifted", moved(5), 1.0),
    ("outside_month", moved(24), 1.0),
    ("clock_shifted", moved(48), 1.0),
    ("distance_unit", times(1.609344), 1.0),
    ("median_miles", times(1.609344), 1.0),
    ("distance_unit", times(1609.344), 1.0),
    ("far_distance", times(1609.344), 0.05),
    ("zero_distance", times(0), 1.0),
    ("zero_distance_share", times(0), 0.2),
    ("no_distance_share", value("trip_distance", np.nan), 0.1),
    ("swapped_clocks", swapped(PICKUP, DROPOFF), 0.02),
    ("left_out", swapped(PICKUP, DROPOFF), 1.0),
    ("accepted_share", swapped(PICKUP, DROPOFF), 0.1),
    ("swapped_zones", swapped("PULocationID", "DOLocationID"), 1.0),
    ("zones_distance", renumbered, 1.0),
    ("zones_duration", renumbered, 1.0),
    ("zones_moved", renumbered, 1.0),
    ("unknown_zone_share", value("PULocationID", 264), 0.1),
    ("new_vendor", value("VendorID", 6), 0.01),
    ("gone_vendor", value("VendorID", 2), 1.0),
    ("vendor_share", value("VendorID", 1), 0.3),
    ("new_type", value("RatecodeID", 9), 0.01),
    ("type_share", value("payment_type", 2), 0.5),
    ("hours_missing", without(10, 10), 1.0),
    ("hours_missing", without(16, 31), 1.0),
    ("volume", without(10, 31), 1.0),
    ("duplicates", twice, 0.03),
    ("second_pile_up", stuck_second, 0.2),
    ("minute_pile_up", lambda t, r: planted.stuck_minute(t, r, 7), 0.03),
    ("repeated_duration", lambda t, r: planted.one_duration(t, r, 12.5), 0.03),
    ("full_minute_share", lambda t, r: stuck_whole(t, r), 0.6),
]


@pytest.mark.parametrize(("hours", "said"), [(-1, "1 hour early"), (5, "5 hours late")])
def test_a_clock_that_is_off_is_told_by_how_much(months, tmp_path, hours, said):
    table, before = months
    everywhere = np.ones(table.num_rows, dtype=bool)
    found = find(look(tmp_path, moved(hours)(table, everywhere), LATER), LATER, before)
    assert any(f" {said} (correlation" in f.text for f in found if f.code == "clock_shifted")


def stuck_whole(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Both clocks show whole minutes."""
    clocks = ((c, c // 60_000_000 * 60_000_000) for c in
              (planted.clock(table, name) for name in (PICKUP, DROPOFF)))  # fmt: skip
    return planted.with_clocks(table, *(np.where(rows, new, old) for old, new in clocks))


@pytest.mark.parametrize(("code", "change", "share"), OF_ALL)
def test_planted_effect_in_all_rows_is_found_and_named(months, tmp_path, code, change, share):
    table, before = months
    month = look(tmp_path, change(table, some_rows(table, None, share)), LATER)
    found = {finding.code: finding for finding in find(month, LATER, before)}
    assert code in found
    assert found[code].level in ("watch", "alarm") and found[code].text


OF_ONE = [
    case for case in OF_ALL
    if case[0] not in ("volume", "hours_missing", "duplicates", "new_vendor", "gone_vendor",
                       "vendor_share", "new_type", "type_share", "outside_month")
]  # fmt: skip


@pytest.mark.parametrize(("code", "change", "share"), OF_ONE)
def test_planted_effect_in_one_vendor_is_said_of_that_vendor(months, tmp_path, code, change, share):
    table, before = months
    month = look(tmp_path, change(table, some_rows(table, 1, max(share, 0.03))), LATER)
    found = [finding for finding in find(month, LATER, before) if finding.vendor is not None]
    assert {finding.vendor for finding in found} == {"1"}
    assert code in {finding.code for finding in found}


@pytest.mark.parametrize(
    ("factor", "unit"), [(1.609344, "km"), (1609.344, "metres"), (10, "tenth")]
)
def test_unit_of_distances_is_guessed(months, tmp_path, factor, unit):
    table, before = months
    month = look(tmp_path, times(factor)(table, some_rows(table, None, 1.0)), LATER)
    (found,) = (f for f in find(month, LATER, before) if f.code == "distance_unit" and not f.vendor)
    assert unit in found.text and found.level == "alarm"


def test_hour_that_clocks_jump_over_in_march_is_not_missing():
    class Busy:
        hours = [40] * 744

    at = 13 * 24 + 2  # 2021-03-14 02:00
    Busy.hours[at] = 0
    from taxi_duration.data.health.alone import _gaps

    assert list(_gaps(Busy, Month(2021, 3))) == []
    assert [f.code for f in _gaps(Busy, Month(2021, 5))] == ["hours_missing"]
