import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import PICKUP, clock, some_rows, stuck_minute, with_clocks

from taxi_duration.data import prepared
from taxi_duration.data.prepared import (
    prepare_month,
    prepare_months,
)
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.sources import RawMonth
from taxi_duration.data.trips import COURSE_RULES
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month
from taxi_duration.errors import BadMonthError, TripFileError
from taxi_duration.files import read_json

JANUARY = Month(2021, 1)


@pytest.fixture
def raw(tmp_path, monkeypatch, raw_month, write_month) -> RawMonth:
    """Five good trips as a raw month."""
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    return as_raw(write_month(raw_month))


@pytest.fixture
def reads(monkeypatch) -> list:
    """Collects each reading of a source file."""
    done = []
    read = prepared.read_month
    monkeypatch.setattr(prepared, "read_month", lambda *a: (done.append(a[0]), read(*a))[1])
    return done


def as_raw(path, month=JANUARY) -> RawMonth:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return RawMonth("green", month, path, digest, "tlc", None)


def cache_files(tmp_path) -> list:
    return sorted((tmp_path / "home" / "data" / "prepared").iterdir())


def test_prepared_month_holds_the_trips_and_their_accounting(raw):
    month = prepare_month(raw)
    assert month.trips()["duration"].tolist() == [1, 10, 25, 45, 60]
    assert (month.accounting.rows_read, month.accounting.rows_kept) == (5, 5)
    assert len(month.quarantine()) == 0


def test_dropped_rows_are_in_quarantine_with_their_reason(raw):
    month = prepare_month(raw, replace(COURSE_RULES, max_minutes=30))
    assert month.quarantine()[["duration", "reason"]].to_numpy().tolist() == [
        [45, "too_long"], [60, "too_long"],
    ]  # fmt: skip


def test_every_ride_is_the_kept_and_those_outside_the_minutes_in_order(
    raw, raw_month, write_month, monkeypatch
):
    """Not one whose clocks disagree."""
    monkeypatch.setenv("MAX_BAD_SHARE", "0.5")
    at = raw_month.column_names.index("lpep_dropoff_datetime")
    dropoff = raw_month["lpep_dropoff_datetime"].to_numpy().copy()
    dropoff[2] -= np.timedelta64(30, "m")
    table = raw_month.set_column(at, "lpep_dropoff_datetime", pa.array(dropoff))
    month = prepare_month(
        as_raw(write_month(table)), replace(COURSE_RULES, min_minutes=5, max_minutes=50)
    )
    assert month.trips()["duration"].tolist() == [10, 45]
    every = month.every_ride()
    assert every["duration"].tolist() == [1, 10, 45, 60]
    assert list(every.columns) == list(month.trips().columns)
    assert every["pickup_at"].is_monotonic_increasing


def test_unchanged_month_comes_from_the_cache(raw, reads):
    first, second = prepare_month(raw), prepare_month(raw)
    assert len(reads) == 1
    assert first == second and first.trips().equals(second.trips())


def test_changed_source_is_read_again(raw, reads, raw_month, write_month):
    prepare_month(raw)
    month = prepare_month(as_raw(write_month(raw_month.slice(0, 3))))
    assert (len(reads), len(month.trips())) == (2, 3)


def test_changed_rules_are_applied_anew(raw, reads):
    prepare_month(raw)
    month = prepare_month(raw, replace(COURSE_RULES, max_minutes=30))
    assert (len(reads), len(month.trips())) == (2, 3)


def test_changed_reading_code_is_a_changed_rule(raw, reads, monkeypatch, tmp_path):
    prepare_month(raw)
    (tmp_path / "columns.py").write_text("# another version\n")
    monkeypatch.setattr(prepared.columns, "__file__", str(tmp_path / "columns.py"))
    prepare_month(raw)
    assert len(reads) == 2


def test_same_bytes_under_another_month_are_another_month(raw, reads):
    prepare_month(raw)
    with pytest.raises(BadMonthError, match="outside_month 5"):
        prepare_month(replace(raw, month=Month(2021, 2)))
    assert len(reads) == 2


@pytest.mark.parametrize("suffix", [".parquet", ".quarantine.parquet", ".json"])
@pytest.mark.parametrize("damage", ["flipped", "half", "gone", "empty"])
def test_damaged_cache_file_is_rebuilt_and_not_trusted(raw, reads, tmp_path, suffix, damage):
    expected = prepare_month(raw).trips()
    path = next(p for p in cache_files(tmp_path) if "." + p.name.split(".", 1)[1] == suffix)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"flipped": flipped, "half": content[:middle], "empty": b""}[damage])
    again = prepare_month(raw)
    assert len(reads) == 2
    assert again.trips().equals(expected)
    assert again.accounting.rows_kept == 5
    assert path.read_bytes() == content


def test_changed_count_in_the_manifest_is_not_trusted(raw, reads, tmp_path):
    prepare_month(raw)
    manifest = next(path for path in cache_files(tmp_path) if path.suffix == ".json")
    manifest.write_text(manifest.read_text().replace('"rows_kept": 5', '"rows_kept": 6'))
    assert prepare_month(raw).accounting.rows_kept == 5
    assert len(reads) == 2


def test_manifest_of_another_shape_is_rebuilt(raw, reads, tmp_path):
    prepare_month(raw)
    manifest = next(path for path in cache_files(tmp_path) if path.suffix == ".json")
    manifest.write_text('["not", "a", "manifest"]')
    prepare_month(raw)
    assert len(reads) == 2 and "accounting" in read_json(manifest)


def test_unreadable_month_leaves_nothing_in_the_cache(raw, tmp_path):
    raw.path.write_bytes(b"PAR1 half a file")
    with pytest.raises(TripFileError, match=raw.path.name):
        prepare_month(as_raw(raw.path))
    assert not (tmp_path / "home" / "data" / "prepared").exists()


def test_month_without_rows_stops_and_is_named(raw_month, write_month):
    empty = as_raw(write_month(raw_month.slice(0, 0)))
    with pytest.raises(BadMonthError, match=rf"{empty.path.name} has columns but no rows"):
        prepare_month(empty)


def test_bad_month_stops_also_when_it_comes_from_the_cache(raw, raw_month, write_month):
    later = raw_month["lpep_pickup_datetime"].combine_chunks()
    earlier = raw_month["lpep_dropoff_datetime"].combine_chunks()
    swapped = raw_month.set_column(1, "lpep_pickup_datetime", earlier)
    swapped = swapped.set_column(2, "lpep_dropoff_datetime", later)
    bad = as_raw(write_month(swapped))
    for _ in range(2):
        with pytest.raises(BadMonthError, match=r"100\.0% of 5 rows are bad"):
            prepare_month(bad)


def test_accepted_share_of_bad_rows_can_be_changed(raw, monkeypatch):
    # One drop-off of the five is in zone 265, a share of 0.2.
    monkeypatch.setenv("MAX_BAD_SHARE", "0.1")
    with pytest.raises(BadMonthError, match="MAX_BAD_SHARE"):
        prepare_month(raw)
    monkeypatch.setenv("MAX_BAD_SHARE", "0.2")
    assert prepare_month(raw).accounting.bad_share == 0.2


def test_lineage_says_where_every_row_comes_from_and_went(raw):
    lineage = prepare_month(raw).lineage()
    assert (lineage["file"], lineage["month"], lineage["sha256"]) == (
        raw.path.name, "2021-01", raw.sha256,
    )  # fmt: skip
    assert (lineage["rows_read"], lineage["rows_kept"], lineage["data_source"]) == (5, 5, "tlc")
    assert lineage["reasons"]["unknown_zone"] == 1


def test_window_holds_months_in_time_order(home):
    months = prepare_months("green", [Month(2020, 12), JANUARY])
    window = Window.scored(months)
    rides, minutes = window.whole()
    assert len(window) == len(minutes) == sum(month.accounting.rows_kept for month in months)
    assert rides.pickup_at[0] < rides.pickup_at[-1]


@pytest.mark.slow
def test_two_processes_preparing_the_same_month_both_get_it(raw, raw_month):
    table = pa.concat_tables([raw_month] * 20_000)
    pq.write_table(table, raw.path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom taxi_duration.domain.months import Month\n"
        "from taxi_duration.data.sources import RawMonth\n"
        "from taxi_duration.data.prepared import prepare_month\n"
        f"raw = RawMonth('green', Month(2021, 1), Path({str(raw.path)!r}), 'x', 'tlc', None)\n"
        "print(len(prepare_month(raw).trips()))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "MAX_BAD_SHARE": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [process.communicate()[0].strip() for process in processes] == ["100000", "100000"]


# --- proven faults ---------------------------------------------------------------------------


@pytest.fixture
def faulty(tmp_path, monkeypatch, write_month) -> RawMonth:
    """A month in which one of two vendors writes minute 7 into both clocks."""
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    table = make_sample_month("green", str(JANUARY), 3000)
    return as_raw(write_month(stuck_minute(table, some_rows(table, 1, 1.0), 7)))


def test_faulty_rows_are_scored_and_not_learned_from_also_out_of_the_cache(faulty, reads):
    for _ in range(2):
        month = prepare_month(faulty)
        trips, learnable = month.trips(), month.learnable()
        assert month.accounting.rows_kept == len(trips) > len(learnable) > 0
        left_out = trips[~trips["pickup_at"].isin(learnable["pickup_at"])]
        assert set(left_out["pickup_at"].dt.minute) == {7}
        assert list(learnable.columns) == list(trips.columns)
        assert (month.faults[0].vendor, month.suspects) == ("1", month.faults[0].rows)
        rides, minutes = Window.learnable([month]).whole()
        assert (rides.pickup_at == learnable["pickup_at"].to_numpy()).all()
        assert (minutes == learnable["duration"].to_numpy()).all()
    assert len(reads) == 1


def test_month_without_faults_is_learned_from_as_a_whole(raw):
    month = prepare_month(raw)
    assert (month.suspects, month.faults) == (0, [])
    assert month.learnable().equals(month.trips())


def test_months_of_which_nothing_is_left_are_named(tmp_path, monkeypatch, write_month):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    table = make_sample_month("green", str(JANUARY), 3000)
    pickup = clock(table, PICKUP) // 3_600_000_000 * 3_600_000_000
    month = prepare_month(as_raw(write_month(with_clocks(table, pickup, pickup + 15 * 60_000_000))))
    with pytest.raises(BadMonthError, match=r"green_tripdata_2021-01\.parquet: every row has"):
        Window.learnable([month])


@pytest.mark.parametrize("module", ["clocks", "look", "marks", "profile"])
def test_changed_rule_of_faults_is_a_changed_rule(raw, reads, monkeypatch, tmp_path, module):
    prepare_month(raw)
    (tmp_path / "changed.py").write_text("# another version\n")
    monkeypatch.setattr(getattr(prepared, module), "__file__", str(tmp_path / "changed.py"))
    prepare_month(raw)
    assert len(reads) == 2
