import numpy as np
import planted
import pyarrow as pa
import pytest
from planted import DROPOFF, PICKUP, some_rows

from taxi_duration.data.health.clocks import Clocks, find_fault, pile
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.trips import read_month
from taxi_duration.domain.months import Month

MARCH = Month(2021, 3)
ROWS = 6000


@pytest.fixture(scope="module")
def month() -> pa.Table:
    """A healthy month of two vendors."""
    return make_sample_month("green", str(MARCH), ROWS)


@pytest.fixture
def read(write_month):
    """Read a table as green 2021-03."""
    return lambda table: read_month(write_month(table), MARCH)


def suspects(read) -> tuple[int, list]:
    return read.accounting.reasons["suspect_clock"], read.look.faults


def test_healthy_month_has_no_suspects(read, month):
    assert suspects(read(month)) == (0, [])


@pytest.mark.parametrize("vendor", [1, 2])
@pytest.mark.parametrize("minute", [0, 3, 59])
def test_minute_that_stands_still_in_one_vendor_is_a_proven_fault(read, month, vendor, minute):
    rows = some_rows(month, vendor, 1.0)
    found = read(planted.stuck_minute(month, rows, minute))
    count, (fault,) = suspects(found)
    assert (count, fault.rows, fault.share) == (rows.sum(), rows.sum(), 1.0)
    assert (fault.code, fault.level, fault.vendor) == ("suspect_clock", "alarm", str(vendor))
    assert fault.column == "pickup_at, dropoff_at"
    assert str(minute) in fault.text and "not learned from" in fault.text


@pytest.mark.parametrize("clock", [PICKUP, DROPOFF])
def test_one_clock_that_stands_still_is_enough(read, month, clock):
    rows = some_rows(month, 2, 1.0)
    count, (fault,) = suspects(read(planted.stuck_minute(month, rows, 7, (clock,))))
    assert count == rows.sum()
    assert fault.column == {PICKUP: "pickup_at", DROPOFF: "dropoff_at"}[clock]


def test_fault_in_all_vendors_is_found_in_each(read, month):
    rows = some_rows(month, None, 1.0)
    count, faults = suspects(read(planted.stuck_minute(month, rows, 30)))
    assert count == ROWS
    assert {fault.vendor for fault in faults} == {"1", "2"}


def test_fault_is_found_in_a_month_without_vendors(read, month):
    table = planted.stuck_minute(month, some_rows(month, None, 1.0), 30).drop_columns("VendorID")
    count, (fault,) = suspects(read(table))
    assert (count, fault.vendor) == (ROWS, None)


def test_part_of_a_vendors_rows_is_a_proven_fault_when_nine_in_ten_there_are_wrong(read, month):
    rows = some_rows(month, 2, 0.3)
    count, (fault,) = suspects(read(planted.stuck_minute(month, rows, 7)))
    # A few healthy rows show that minute on both clocks by chance.
    assert rows.sum() <= count < 1.01 * rows.sum()
    assert 0.25 < fault.share < 0.35


def test_small_pile_proves_nothing(read, month):
    rows = some_rows(month, 2, 0.05)
    assert suspects(read(planted.stuck_minute(month, rows, 7))) == (0, [])


@pytest.mark.parametrize("to", [5, 10, 15, 30, 60])
def test_clocks_rounded_to_many_minutes_are_a_proven_fault(read, month, to):
    rows = some_rows(month, 1, 1.0)
    count, (fault,) = suspects(read(planted.rounded_minutes(month, rows, to)))
    assert (count, fault.vendor) == (rows.sum(), "1")


def test_clocks_rounded_to_the_minute_are_none(read, month):
    pickup, dropoff = (planted.clock(month, name) // 60_000_000 * 60_000_000
                       for name in (PICKUP, DROPOFF))  # fmt: skip
    assert suspects(read(planted.with_clocks(month, pickup, dropoff))) == (0, [])


def test_pickups_that_were_ordered_for_the_quarter_hour_are_no_broken_clock(read, month):
    rows = some_rows(month, 2, 1.0)
    assert suspects(read(planted.rounded_minutes(month, rows, 15, (PICKUP,)))) == (0, [])
    count, _ = suspects(read(planted.rounded_minutes(month, rows, 15, (DROPOFF,))))
    assert count == rows.sum()


@pytest.mark.parametrize(("share", "count"), [(0.9, True), (0.3, True), (0.01, False)])
def test_one_duration_ten_times_as_often_as_the_next_is_a_proven_fault(read, month, share, count):
    rows = some_rows(month, 2, share)
    found, faults = suspects(read(planted.one_duration(month, rows, 12.5)))
    assert rows.sum() <= found <= rows.sum() + 20 if count else found == 0
    assert [fault.column for fault in faults] == ["duration"] * count


def test_faulty_rows_are_scored_and_not_learned_from(read, month):
    table = planted.stuck_minute(month, some_rows(month, 1, 1.0), 3)
    found = read(table)
    assert len(found.suspects) == len(found.trips) == found.accounting.rows_kept
    assert 0 < found.suspects.sum() < found.accounting.reasons["suspect_clock"]


# --- few rows ---------------------------------------------------------------------------------


def clocks(*minutes: tuple[int, int]) -> Clocks:
    day = 86_400_000_000
    pickup, dropoff = (np.array([d * day + m[i] * 60_000_000 for d, m in enumerate(minutes)])
                       for i in (0, 1))  # fmt: skip
    return Clocks(pickup.astype("int64"), dropoff.astype("int64"))


@pytest.mark.parametrize(("rows", "proven"), [(1, False), (2, False), (3, True)])
def test_months_number_for_the_minute_is_proven_by_three_rows(rows, proven):
    assert (find_fault(clocks(*[(3, 3)] * rows), MARCH) is not None) == proven
    assert find_fault(clocks(*[(4, 4)] * rows), MARCH) is None


def test_copies_of_a_row_prove_nothing():
    one = clocks((3, 3))
    copies = Clocks(np.repeat(one.pickup, 9), np.repeat(one.dropoff, 9))
    assert find_fault(copies, MARCH) is None


def test_rides_that_take_no_time_show_no_faulty_minute():
    assert find_fault(clocks(*[(i % 60, i % 60) for i in range(3000)]), MARCH) is None


def test_no_rows_have_no_fault():
    assert find_fault(clocks(), MARCH) is None


def test_healthy_minutes_are_piled_up_in_none_of_ten_thousand_vendors():
    rng = np.random.default_rng(5)
    sizes = (1, 2, 3, 5, 10, 30, 100, 1000)
    assert not any(
        pile(rng.integers(0, 60, size)) for size in sizes for _ in range(10_000 // len(sizes))
    )
