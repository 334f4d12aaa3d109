"""The same small month, written in every way, reads as the same rows."""

import base64
import bz2
import gzip
import io
import lzma
import re
import shutil
import zipfile
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxi_duration.data import cells, times
from taxi_duration.data.packing import month_parts
from taxi_duration.data.parts import files_in
from taxi_duration.data.trips import check_bad_share, read_month
from taxi_duration.domain.months import Month
from taxi_duration.errors import BadMonthError, TripFileError

JANUARY = Month(2021, 1)
TIMES = ("lpep_pickup_datetime", "lpep_dropoff_datetime")
ZONES = ("PULocationID", "DOLocationID")
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def compressed(kind: str):
    """A packing of pyarrow as a function of bytes."""

    def pack(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, kind) as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()

    return pack


def zipped(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def parquet(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def text_of(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(table, sink)
    return sink.getvalue().to_pybytes().decode()


def clock(column: pa.ChunkedArray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(column.to_numpy())


def zoned(zone: str, unit: str = "us"):
    """New York's clock as pandas, polars and DuckDB write it with a zone."""
    return lambda column: pa.array(
        clock(column).tz_localize("America/New_York").tz_convert(zone).as_unit(unit)
    )


def written(form: str):
    return lambda column: pa.array(clock(column).strftime(form).tolist())


def as_categories(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()).dictionary_encode()


IDS = {
    "int16": lambda c: c.cast(pa.int16()), "uint16": lambda c: c.cast(pa.uint16()),
    "uint64": lambda c: c.cast(pa.uint64()), "float": lambda c: c.cast(pa.float32()),
    "half": lambda c: c.cast(pa.float16()),
    "decimal": lambda c: c.cast(pa.decimal128(25, 2)), "text": lambda c: c.cast(pa.string()),
    "text of floats": lambda c: pa.array([f" {v}.0 " for v in c.to_pylist()]),
    "large text": lambda c: c.cast(pa.large_string()),
    "view": lambda c: c.cast(pa.string()).cast(pa.string_view()),
    "bytes": lambda c: c.cast(pa.string()).cast(pa.binary()),
    "categories": as_categories, "coded": lambda c: c.dictionary_encode(),
}  # fmt: skip
CLOCKS = {
    "s": lambda c: c.cast(pa.timestamp("s")), "ns": lambda c: c.cast(pa.timestamp("ns")),
    "New York": zoned("America/New_York"), "New York ns": zoned("America/New_York", "ns"),
    "UTC": zoned("UTC"), "Berlin": zoned("Europe/Berlin"),
    "offset": lambda c: zoned("UTC")(c).cast(pa.timestamp("us", "-05:00")),
    "coded": lambda c: c.dictionary_encode(),
    "open data": written("%m/%d/%Y %I:%M:%S %p"), "spreadsheet": written("%m/%d/%Y %H:%M"),
    "day first": written("%d/%m/%Y %H:%M:%S"), "German": written("%d.%m.%Y %H:%M"),
    "dashes": written("%m-%d-%Y %H:%M:%S"), "day first, dashes": written("%d-%m-%Y %H:%M"),
    "points": written("%Y.%m.%d %H:%M:%S"),
    "month's name": written("%d %b %Y %H:%M:%S"), "Oracle": written("%d-%b-%Y %H:%M:%S"),
    "zone's name": written("%Y-%m-%d %H:%M:%S America/New_York"),
    "slashes": written("%Y/%m/%d %H:%M:%S"), "minutes": written("%Y-%m-%d %H:%M"),
    "fraction": written("%Y-%m-%d %H:%M:%S.%f"), "nine digits": written("%Y-%m-%dT%H:%M:%S.%f000"),
    "postgres": written("%Y-%m-%d %H:%M:%S-05"), "EST": written("%Y-%m-%d %H:%M:%S EST"),
    "java": written("%Y-%m-%dT%H:%M:%S-05:00[America/New_York]"),
    "spaced": written("%Y-%m-%d %H:%M:%S -0500"),
    "Z": lambda c: written("%Y-%m-%dT%H:%M:%SZ")(zoned("UTC")(c)),
    "UTC in words": lambda c: written("%Y-%m-%d %H:%M:%S UTC")(zoned("UTC")(c)),
    "zero offset": lambda c: written("%Y-%m-%d %H:%M:%S.%f+00:00")(zoned("UTC")(c)),
}  # fmt: skip
MILES = {
    "float": lambda c: c.cast(pa.float32()), "decimal": lambda c: c.cast(pa.decimal256(20, 3)),
    "text": lambda c: c.cast(pa.string()),
    "view": lambda c: c.cast(pa.string()).cast(pa.string_view()),
    "coded": lambda c: c.dictionary_encode(),
}  # fmt: skip
PACKINGS = {
    "plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
    "zst": compressed("zstd"), "lz4": compressed("lz4"),
    "two frames": lambda b: gzip.compress(b[:50]) + gzip.compress(b[50:]),
    "zip": lambda b: zipped({"__MACOSX/._a": b"x", "folder/a.csv": b, "README.md": b"#"}),
    "gz in zip": lambda b: zipped({"a.csv.gz": gzip.compress(b)}),
}  # fmt: skip
TEXTS = {
    "comma": lambda t: t.encode(), "semicolon": lambda t: t.replace(",", ";").encode(),
    "tab": lambda t: t.replace(",", "\t").encode(),
    "CRLF": lambda t: t.replace("\n", "\r\n").encode(),
    "old Mac": lambda t: t.replace("\n", "\r").encode(), "BOM": lambda t: t.encode("utf-8-sig"),
    "UTF-16": lambda t: t.encode("utf-16"), "UTF-16 unmarked": lambda t: t.encode("utf-16-be"),
    "UTF-32": lambda t: t.encode("utf-32"),
    "Excel": lambda t: ("sep=|\n" + t.replace(",", "|")).encode(),
    "Latin-1": lambda t: t.replace("fare_amount", "Gebühr").encode("latin-1"),
    "blank lines": lambda t: ("\n\n" + t.replace("\n", "\n\n")).encode(),
    "no last newline": lambda t: t.rstrip("\n").encode(),
    "longer rows": lambda t: t.replace("\n", ",,\n").replace(",,\n", "\n", 1).encode(),
    "one longer row": lambda t: (t.rstrip("\n") + ", \n").encode(),
    "one shorter row": lambda t: (t.rstrip("\n").rsplit(",", 1)[0] + "\n").encode(),
    "a line in a cell": lambda t: (
        t.replace("\n", ',"a\nb"\n').replace('"a\nb"', "note", 1).encode()
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Six trips of January 2021, one of them at the turn of the month, one with no distance."""
    pickup = np.array(["2021-01-01T00:00", "2021-01-04T09:00", "2021-01-05T10:00",
                       "2021-01-16T18:30", "2021-01-31T12:00", "2021-01-31T22:59"],
                      dtype="datetime64[us]")  # fmt: skip
    minutes = np.array([1, 10, 25, 45, 60, 0]).astype("timedelta64[m]")
    return pa.table(
        {
            "VendorID": pa.array([2, 2, 1, 2, 1, 2], pa.int64()),
            "lpep_pickup_datetime": pickup, "lpep_dropoff_datetime": pickup + minutes,
            "PULocationID": pa.array([74, 75, 41, 132, 1, 263], pa.int64()),
            "DOLocationID": pa.array([75, 74, 42, 265, 138, 2], pa.int64()),
            "trip_distance": [0.5, 2.0, 4.5, 12.25, 17.0, 0.25],
            "fare_amount": [4.0, 9.5, 16.0, 40.0, 52.0, 3.0],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "month.parquet"
    pq.write_table(table, path)
    return read_month(path, JANUARY)


def changed(table: pa.Table, columns, how) -> pa.Table:
    for name in columns:
        table = table.set_column(table.schema.get_field_index(name), name, how(table[name]))
    return table


def folder_of(folder: Path, parts: dict[str, bytes | None]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            (folder / name).symlink_to(folder / "nowhere")
        else:
            (folder / name).write_bytes(content)
    return folder


def assert_same(path: Path, expected) -> list[str]:
    month = read_month(path, JANUARY)
    pd.testing.assert_frame_equal(month.trips, expected.trips)
    pd.testing.assert_frame_equal(month.quarantine, expected.quarantine)
    assert month.accounting.reasons == expected.accounting.reasons
    return month.accounting.notes


@quick
@given(
    ids=st.sampled_from(sorted(IDS)), when=st.sampled_from(sorted(CLOCKS)),
    miles=st.sampled_from(sorted(MILES)), packing=st.sampled_from(sorted(PACKINGS)),
    form=st.sampled_from(["parquet", *sorted(TEXTS)]), order=st.permutations(range(7)),
    layout=st.sampled_from(["file", "spark", "duckdb", "hive", "zip of parts"]),
    case=st.sampled_from([str, str.upper, lambda name: f" {name} "]),
)  # fmt: skip
def test_month_reads_alike_whatever_wrote_it(
    table, expected, tmp_path, ids, when, miles, packing, form, order, layout, case
):
    one = changed(changed(table, ZONES, IDS[ids]), TIMES, CLOCKS[when])
    one = changed(one, ["trip_distance"], MILES[miles])
    if form != "parquet":  # the last column is the one that a row may lack
        one = pa.table({n: plain_text(one[n]) for n in one.column_names})
    else:
        one = one.select([one.column_names[i] for i in order])
    one = one.rename_columns([case(name) for name in one.column_names])

    def packed(rows: pa.Table) -> bytes:
        return PACKINGS[packing](parquet(rows) if form == "parquet" else TEXTS[form](csv_of(rows)))

    halves = packed(one.slice(0, 4)), packed(one.slice(4))
    path = tmp_path / "green_tripdata_2021-01.parquet"
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    match layout:
        case "file":
            path.write_bytes(packed(one))
        case "spark":
            folder_of(
                path,
                {
                    "part-00000-a.snappy.parquet": halves[0],
                    "part-00001-a": halves[1],
                    "_SUCCESS": b"",
                    "Thumbs.db": b"\xd0\xcf",
                    "desktop.ini": b"[.ShellClassInfo]",
                    ".part-00000-a.snappy.parquet.crc": b"crc\0",
                },
            )
        case "duckdb":
            folder_of(path, {"data_9.parquet": halves[0], "data_10.parquet": halves[1]})
        case "hive":
            folder_of(path, {"day=1/a": halves[0], "day=2/a": halves[1]})
        case "zip of parts":
            path.write_bytes(zipped({"a/1.csv": halves[0], "a/2.csv": halves[1]}))
    assert_same(path, expected)


def plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as CSV holds it."""
    column = cells.plain(column, cells.Column("", ""))
    if pa.types.is_timestamp(column.type) and column.type.tz:
        return pa.array([value.isoformat() for value in column.to_pylist()])
    return column.cast(pa.string())


def csv_of(rows: pa.Table) -> str:
    lines = [rows.column_names, *zip(*rows.to_pydict().values(), strict=True)]
    return "".join(",".join(map(str, line)) + "\n" for line in lines)


def test_runs_of_one_value_are_read(table):
    """Parquet knows no such type; other writers of Arrow may give it."""
    runs = pa.chunked_array([pc.run_end_encode(table["PULocationID"].combine_chunks())])
    zones = cells.read_zones(runs, cells.Column("f", "c"))
    assert zones.tolist() == [74, 75, 41, 132, 1, 263]


def test_parts_of_other_types_order_and_columns_are_one_month(table, expected, tmp_path):
    first = changed(table.slice(0, 2), ZONES, IDS["text"]).select(list(reversed(range(7))))
    second = changed(table.slice(2, 2), TIMES, CLOCKS["UTC"]).drop_columns(["fare_amount"])
    third = changed(table.slice(4), ["trip_distance"], MILES["decimal"])
    path = folder_of(tmp_path / "m", {"0": parquet(first), "1": parquet(second), "2": csv(third)})
    notes = assert_same(path, expected)
    assert notes == [
        "3 files read as one month",
        "lpep_pickup_datetime is marked UTC: turned to New York time (UTC_TIMES=local if the mark "
        "is wrong) (1 of 3 files)",
    ]


def csv(table: pa.Table) -> bytes:
    return text_of(changed(table, ["trip_distance"], lambda c: c.cast(pa.string()))).encode()


def linked_month(tmp_path, table: pa.Table) -> Path:
    """A month whose second part lies in another folder, behind a link."""
    folder_of(tmp_path / "elsewhere", {"part-1": parquet(table.slice(4))})
    month = folder_of(tmp_path / "m", {"part-0": parquet(table.slice(0, 4))})
    (month / "rest").symlink_to(tmp_path / "elsewhere")
    return month


def test_parts_behind_a_link_to_a_folder_are_read_once(table, expected, tmp_path):
    month = linked_month(tmp_path, table)
    (tmp_path / "elsewhere" / "round").symlink_to(month)
    assert_same(month, expected)
    assert files_in(month) == ["part-0", "rest/part-1"]


SPLIT = {
    "all under the second": (slice(0), "has no value, PUlocationid is taken"),
    "some under each": (slice(2), "mean the same: the second is taken"),
    "all under the first": (slice(None), None),
}  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("case", SPLIT)
def test_values_under_two_names_of_a_column_are_one_column(table, expected, tmp_path, form, case):
    under_first, note = SPLIT[case]
    zones = table["PULocationID"].to_pylist()
    first = [*zones[under_first], *[None] * 6][:6]
    second = [None if value else zone for value, zone in zip(first, zones, strict=True)]
    one = table.drop_columns("PULocationID")
    one = one.append_column("PULocationID", pa.array(first, pa.int64()))
    one = one.append_column("PUlocationid", pa.array(second, pa.int64()))
    path = tmp_path / "m"
    path.write_bytes(parquet(one) if form == "parquet" else text_of(one).encode())
    notes = assert_same(path, expected)
    assert len(notes) == (note is not None) and all(note in said for said in notes)


def test_column_that_stands_only_in_the_folders_names_is_read(table, expected, tmp_path):
    parts = {
        f"PULocationID={zone}/part-{at}.parquet": parquet(
            table.slice(at, 1).drop_columns(["PULocationID"])
        )
        for at, zone in enumerate(table["PULocationID"].to_pylist())
    }
    path = folder_of(tmp_path / "m", parts)
    rows = read_month(path, JANUARY)
    by_pickup = rows.trips.sort_values("pickup_at", ignore_index=True)
    pd.testing.assert_frame_equal(by_pickup, expected.trips)
    default = {"PULocationID=__HIVE_DEFAULT_PARTITION__/a": next(iter(parts.values()))}
    unknown = read_month(folder_of(tmp_path / "n", default), JANUARY)
    assert unknown.accounting.reasons["unknown_zone"] == 1
    assert [part.keys for part in month_parts(tmp_path / "n")] == [{"PULocationID": None}]


@pytest.mark.parametrize(
    ("local", "utc", "day"),
    [("2021-03-14T01:59", "06:59", "winter"), ("2021-03-14T03:00", "07:00", "summer"),
     ("2021-11-07T01:30", "05:30", "summer"), ("2021-11-07T01:30", "06:30", "winter"),
     ("2021-11-07T02:00", "07:00", "winter")],
)  # fmt: skip
@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Tokyo", "+02:00"])
def test_hours_around_both_changes_of_the_clock_are_the_wall_clocks(local, utc, day, zone):
    instant = pd.Timestamp(f"{local[:10]}T{utc}", tz="UTC")
    column = pa.chunked_array([pa.array([instant, None]).cast(pa.timestamp("us", zone))])
    found = times.read_times(column, cells.Column("f", "c")).local
    assert found[0] == np.datetime64(local) and np.isnat(found[1])


def test_mark_of_utc_that_looks_wrong_is_said_and_can_be_set_aside(table, expected, tmp_path):
    path = tmp_path / "month.parquet"
    pq.write_table(changed(table, TIMES, lambda c: pa.array(clock(c).tz_localize("UTC"))), path)
    turned = read_month(path, JANUARY)
    assert turned.trips["pickup_at"].iloc[0] == pd.Timestamp("2020-12-31T19:00")
    assert turned.accounting.notes == [
        "lpep_pickup_datetime is marked UTC: turned to New York time (UTC_TIMES=local if the mark "
        "is wrong)",
        "the mark UTC looks wrong: 1 pickups are outside the month as UTC, 0 as New York time",
    ]
    kept = read_month(path, JANUARY, utc_is_local=True)
    pd.testing.assert_frame_equal(kept.trips, expected.trips)
    assert "as UTC_TIMES=local says" in kept.accounting.notes[0]


@pytest.mark.parametrize("word", ["", "NULL", "None", "N/A", "<NA>", "nan", " \\N ", "\xa0"])
def test_words_for_null_are_no_value_in_every_column(table, tmp_path, word):
    lines = text_of(table).splitlines()
    (tmp_path / "m.csv").write_text("\n".join([lines[0], ",".join(["1", *[word] * 5, "1"])]))
    month = read_month(tmp_path / "m.csv", JANUARY)
    reasons = {"bad_time": 1, "outside_month": 1, "unknown_zone": 1}
    assert {r: n for r, n in month.accounting.reasons.items() if n} == reasons
    assert np.isnan(month.quarantine["trip_distance"].iloc[0])


def test_ids_that_are_no_zone_are_unknown_in_every_width(table, tmp_path):
    ids = pa.array([2**64 - 1, 0, 266, None, 300, 70_000], pa.uint64())
    path = tmp_path / "m.parquet"
    pq.write_table(changed(table, ["PULocationID"], lambda _: ids), path)
    assert (read_month(path, JANUARY).trips["PULocationID"] == 264).all()
    nans = pa.array([float("nan")] * 6)
    pq.write_table(changed(table, ["PULocationID"], lambda _: nans), path)
    assert read_month(path, JANUARY).accounting.reasons["unknown_zone"] == 6


@pytest.mark.parametrize("kind", [pa.null(), pa.float64(), pa.bool_(), pa.string(), pa.date32()])
def test_columns_without_any_value_are_read(kind, table, tmp_path):
    path = tmp_path / "m.parquet"
    nothing = changed(table, [*ZONES, *TIMES, "trip_distance"], lambda c: pa.nulls(len(c), kind))
    pq.write_table(nothing, path)
    reasons = read_month(path, JANUARY).accounting.reasons
    assert (reasons["bad_time"], reasons["unknown_zone"], reasons["bad_distance"]) == (6, 6, 0)


def test_odd_column_that_nobody_learns_from_refuses_no_month(table, tmp_path):
    path = tmp_path / "m.parquet"
    odd = table.append_column("trip_type", pa.array([b"\xff\xfe"] * len(table)))
    pq.write_table(odd, path)
    notes = read_month(path, JANUARY).accounting.notes
    assert len(notes) == 1 and "column trip_type must hold text" in notes[0]


@pytest.mark.filterwarnings("error")
def test_distance_beyond_any_number_is_bad(table, tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(changed(table, ["trip_distance"], lambda c: pa.array([1e300] * len(c))), path)
    assert read_month(path, JANUARY).accounting.reasons["bad_distance"] == len(table)


def test_old_type_of_spark_is_said_to_have_no_zone(table, expected, tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert assert_same(path, expected) == [
        "lpep_pickup_datetime and lpep_dropoff_datetime: INT96 has no zone, taken as New York time"
    ]


# --- the share of bad rows, by service ---------------------------------------------------


@pytest.fixture
def fhv(table, tmp_path) -> Path:
    """A month of FHV as it is: no distance, no zones of drop-off, copies by the minute."""
    path = tmp_path / "fhv_tripdata_2021-01.parquet"
    rows = {"pickup_datetime": table[TIMES[0]], "dropOff_datetime": table[TIMES[1]],
            "PUlocationID": pa.nulls(6, pa.float64()), "DOlocationID": pa.nulls(6)}  # fmt: skip
    pq.write_table(pa.concat_tables([pa.table(rows)] * 2), path)
    return path


def test_fhv_without_zones_is_within_the_limit_and_the_accounting_says_why(fhv):
    accounting = read_month(fhv, JANUARY, service="fhv").accounting
    assert (accounting.bad_share, accounting.reasons["unknown_zone"]) == (0, 12)
    assert accounting.notes == [
        "unknown_zone, bad_distance, duplicate: not held against the limit of bad rows, by nature "
        "of the service"
    ]
    check_bad_share(accounting, fhv.name, 0.2)


@pytest.mark.parametrize("service", ["green", "yellow", "fhvhv", None])
def test_other_services_are_held_to_their_zones(fhv, service):
    accounting = read_month(fhv, JANUARY, service=service).accounting
    assert (accounting.bad_share, accounting.notes) == (1, [])
    with pytest.raises(BadMonthError, match="unknown_zone 12"):
        check_bad_share(accounting, fhv.name, 0.2)


def test_fhv_of_another_month_or_with_bad_times_is_refused_all_the_same(fhv, table, tmp_path):
    assert read_month(fhv, Month(2021, 2), service="fhv").accounting.bad_share == 1
    names = ["dropOff_datetime", "pickup_datetime", "PUlocationID", "DOlocationID"]
    swapped = pq.read_table(fhv).rename_columns(names)
    pq.write_table(swapped, fhv)
    accounting = read_month(fhv, JANUARY, service="fhv").accounting
    assert accounting.reasons["bad_time"] == 10 and accounting.bad_share > 0.8


@pytest.mark.parametrize(
    "form",
    ["%m/%d/%Y, %I:%M:%S %p", "%B %d, %Y %I:%M %p", "%A, %B %d, %Y %H:%M", "%Y-%m-%d %H:%M:%S,%f"],
)
def test_times_with_commas_are_read(form):
    clock = pd.DatetimeIndex(["2021-01-31 23:50", "2021-01-04 08:05"])
    column = pa.chunked_array([pa.array(clock.strftime(form).tolist())])
    assert (times.read_times(column, cells.Column("f", "c")).local == clock.to_numpy()).all()


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("form", [None, "%Y-%m-%d %H:%M:%S"])
@pytest.mark.parametrize("nothing", ["0001-01-01", "1899-12-30", "9999-12-31T23:59:59"])
def test_what_programs_write_for_no_time_is_none(table, expected, tmp_path, nothing, form, zone):
    def spoilt(column):
        clocks = column.to_numpy().copy()
        clocks[3] = np.datetime64(nothing)
        moments = pa.array(clocks, pa.timestamp("us", zone))
        if not form:
            return moments
        texts = pc.strftime(moments, form + ("Z" if zone else ""), locale="C").to_pylist()
        return pa.array([text.zfill(len(texts[0])) for text in texts])

    pq.write_table(changed(table, TIMES[:1], spoilt), tmp_path / "m.parquet")
    month = read_month(tmp_path / "m.parquet", JANUARY, utc_is_local=True)
    assert month.accounting.reasons["bad_time"] == 1
    assert month.quarantine["pickup_at"].isna().sum() == 1
    pd.testing.assert_frame_equal(month.trips, expected.trips.drop(index=3).reset_index(drop=True))


@pytest.mark.parametrize("days", ["04 05 06", "04 05 13", "13 04 05"])
@pytest.mark.parametrize("day", ["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y"])
def test_days_and_months_that_look_alike_are_read_in_one_way(day, days, tmp_path):
    pickups = pd.to_datetime([f"2021-01-{number} 23:50" for number in days.split()])
    path = tmp_path / "m.csv"
    dropoffs = pickups + pd.Timedelta(minutes=20)
    rows = pd.DataFrame({
        "pickup_datetime": pickups.strftime(f"{day} %H:%M"),
        "dropoff_datetime": dropoffs.strftime(f"{day} %H:%M"),
        "PULocationID": 74, "DOLocationID": 75,
    })  # fmt: skip
    rows.to_csv(path, index=False)
    trips = read_month(path, JANUARY).trips
    assert trips["pickup_at"].tolist() == pickups.tolist()
    assert trips["dropoff_at"].tolist() == dropoffs.tolist()


def test_drop_offs_say_which_is_the_day_where_no_month_does(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("pickup_datetime,dropoff_datetime,PULocationID,DOLocationID\n"
                    "12/01/2021 23:50,13/01/2021 00:10,74,75\n"
                    "04/01/2021 23:50,05/01/2021 00:10,74,75\n")  # fmt: skip
    assert read_month(path).trips["duration"].tolist() == [20, 20]


# --- refused: file, column, found, expected ----------------------------------------------

GOOD = ("VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,PULocationID,DOLocationID,fare\n"
        "2,2021-01-04 08:00:00,2021-01-04 08:10:00,74,75,1\n"
        "2,2021-01-05 08:00:00,2021-01-05 08:10:00,74,75,1\n")  # fmt: skip


def cell(old: str, new: str) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new, 1).encode()


def mangled(content: bytes) -> bytes:
    """Parquet whose footer is damaged though its ends are right."""
    at = len(content) - int.from_bytes(content[-8:-4], "little")
    return content[: at - 8] + b"\xff" * 30 + content[at + 22 :]


PARQUET = parquet(pa.csv.read_csv(io.BytesIO(GOOD.encode())))
DAY = "2021-01-04 08:00:00"
REFUSED = {
    "empty": (b"", "is empty", "Parquet or CSV"),
    "cut parquet": (PARQUET[:-9], "truncated or damaged", "PAR1"),
    "damaged parquet": (mangled(PARQUET), "damaged Parquet file", ""),
    "encrypted parquet": (b"PAR1" + PARQUET[4:-4] + b"PARE", "encrypted", "no key"),
    "cut gzip": (gzip.compress(GOOD.encode())[:-9], "truncated or damaged", "end-of-stream"),
    "cut zst": (compressed("zstd")(GOOD.encode())[:-5], "truncated or damaged", "Truncated"),
    "cut zip": (zipped({"a": GOOD.encode()})[:-9], "truncated or damaged", "not a zip"),
    "cut csv": (GOOD.encode()[:-20], "line 3 has 3 fields", "expected are 6"),
    "cut csv, all of ours there": (GOOD.encode()[:-3], "line 3 has 5 fields", "expected are 6"),
    "longer row": (cell(",75,1", ",75,1,9"), "line 2 has 7 fields (more, such as '9')", "are 6"),
    "four layers": (reduce(lambda b, _: gzip.compress(b), range(4), b"a"), "more than 3 times",
                    "gzip"),
    "excel": (zipped({"[Content_Types].xml": b""}), "Excel workbook", "Parquet or CSV"),
    "zip of nothing": (zipped({}), "holds nothing", "Parquet or CSV"),
    "two months": (zipped({f"green_tripdata_2021-0{m}.csv": b"a" for m in (1, 2)}),
                   "files of 2 months (2021-01 to 2021-02)", "expected is one"),
    "arrow": (b"ARROW1\0\0" + b"a" * 9, "Arrow (Feather) file", "Parquet or CSV"),
    "orc": (b"ORC" + b"a" * 9, "ORC file", "Parquet or CSV"),
    "json": (b'  {"a": 1}', "JSON", "Parquet or CSV"),
    "page": (b"\xef\xbb\xbf\n<html>", "web page", "Parquet or CSV"),
    "tar": (b"a" * 257 + b"ustar" + b"a" * 9, "tar archive", "Parquet or CSV"),
    "duckdb": (b"a" * 8 + b"DUCK" + b"\0" * 9, "DuckDB database", "Parquet or CSV"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "Git LFS", "Parquet or CSV"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00\x01", "neither Parquet nor text", "Parquet or CSV"),
    "no header": ("\n".join(GOOD.splitlines()[1:]).encode(), "pickup_datetime is missing",
                  "lpep_pickup_datetime"),
    "a column twice": (cell("fare", "PULocationID"), "PULocationID comes 2 times", "one column"),
    "epoch": (cell(DAY, "1609747200"), "lpep_pickup_datetime must hold timestamps", "'1609747200'"),
    "days": (GOOD.replace(" 08:00:00", "").encode(), "lpep_pickup_datetime must hold timestamps",
             "a date has no time of day"),
    "year of two digits": (GOOD.replace("2021-01-", "1/1/").replace(" 08:00", "21 08:00").encode(),
                           "lpep_pickup_datetime must hold timestamps", "Failed to parse"),
    "zone on some": (cell(DAY, DAY + "Z"), "a zone and without", "'2021-01-04 08:00:00Z'"),
    "no time": (cell(DAY, "yesterday at noon"), "lpep_pickup_datetime must hold timestamps",
                "yesterday"),
    "no zone": (cell("74", "Harlem"), "PULocationID must hold whole numbers 1-265", "Harlem"),
    "half a zone": (cell("74", "74.5"), "PULocationID must hold whole numbers 1-265", "74.5"),
    "comma of decimals": (GOOD.replace("fare", "trip_distance").replace(",", ";")
                          .replace("75;1", "75;1,5").encode(), "trip_distance must hold", "1,5"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_file_column_found_and_expected(case, tmp_path):
    content, found, expected = REFUSED[case]
    path = tmp_path / "green_tripdata_2021-01.csv"
    path.write_bytes(content)
    with pytest.raises(TripFileError) as error:
        read_month(path, JANUARY)
    said = str(error.value)
    assert said.startswith(path.name) and found in said and expected in said
    path.write_bytes(GOOD.encode())
    assert len(read_month(path, JANUARY).trips) == 2


QUOTED = {
    "short, at the start": (3, 20, '"xy', "line 4: a quotation mark is not closed"),
    "short, at the end": (19, 20, '"xy""', "line 20: a quotation mark is not closed"),
    "rows longer than the header": (3, 20, '"xy\n1,2,3,4,5,6,7,8,9', "line 4: a quotation mark"),
    "over a block": (3, 30_000, '"xy', "a quotation mark is not closed"),
    "at the end of many": (29_000, 30_000, '"xy', "line 29001: a quotation mark is not closed"),
}  # fmt: skip


@pytest.mark.parametrize("case", QUOTED)
def test_quotation_mark_that_takes_the_rows_behind_it_is_named(case, tmp_path):
    line, rows, mark, said = QUOTED[case]
    header, row, _ = GOOD.splitlines()
    lines = [header + ",note", *[row + ","] * rows]
    path = tmp_path / "m.csv"
    path.write_text("\n".join([*lines[:line], lines[line] + mark, *lines[line + 1 :], ""]))
    with pytest.raises(TripFileError, match=re.escape(f"m.csv: {said}")):
        read_month(path, JANUARY)
    path.write_text("\n".join([*lines[:line], lines[line] + 'x"y', *lines[line + 1 :], ""]))
    assert read_month(path, JANUARY).accounting.rows_read == rows


def test_fields_of_several_lines_are_read_in_a_file_of_any_size(tmp_path):
    header, row, _ = GOOD.splitlines()
    path = tmp_path / "m.csv"
    path.write_text("\n".join([header + ",note", *[row + ',"' + "a\n" * 40 + '"'] * 30_000]))
    assert read_month(path, JANUARY).accounting.rows_read == 30_000


FOLDERS = {
    "nothing": ({"_SUCCESS": b""}, "holds _SUCCESS", "expected are Parquet or CSV files"),
    "unfinished": ({"_temporary/0/part-0": PARQUET, "part-1": PARQUET}, "holds _temporary/",
                   "expected is a whole folder"),
    "Delta": ({"_delta_log/0.json": b"{}", "part-0": PARQUET}, "is a table of Delta",
              "not all count"),
    "Iceberg": ({"metadata/v1.metadata.json": b"{}", "data/0": PARQUET}, "is a table of Iceberg",
                "write"),
    "a cut part": ({"part-0": PARQUET, "part-1": PARQUET[:-5]}, "m/part-1: is not a whole Parquet",
                   "PAR1"),
    "an empty part": ({"part-0": PARQUET, "part-1": b""}, "m/part-1: is empty", "Parquet or CSV"),
    "a link to nowhere": ({"part-0": PARQUET, "part-1": None}, "m/part-1: cannot be read",
                          "No such file"),
    "a part without a column": (
        {"part-0": PARQUET, "part-1": cell("DOLocationID", "DO")}, "m/part-1: column DOLocationID",
        "expected DOLocationID"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_folder_that_is_no_whole_month_is_refused_and_the_part_named(case, tmp_path):
    parts, found, expected = FOLDERS[case]
    with pytest.raises(TripFileError) as error:
        read_month(folder_of(tmp_path / "m", parts), JANUARY)
    assert found in str(error.value) and expected in str(error.value)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("lpep_pickup_datetime", [1609747200000] * 2, "int64 (such as 1609747200000); a number"),
        ("lpep_dropoff_datetime", [44199.3] * 2, "double (such as 44199.3); a number"),
        ("lpep_pickup_datetime", pa.array([18631] * 2, pa.int32()).cast(pa.date32()), "date32"),
        ("PULocationID", [[1], [2]], "list<element: int64> (such as [1])"),
        ("DOLocationID", [float("inf")] * 2, "Float value inf"),
        ("DOLocationID", [True, False], "bool (such as True)"),
        ("DOLocationID", [b"\xff", b"\xff"], "binary"),
        ("trip_distance", [True, False], "bool (such as True)"),
    ],
)  # fmt: skip
def test_type_that_cannot_be_read_is_refused_with_column_found_and_expected(
    column, values, found, tmp_path
):
    table = pq.read_table(io.BytesIO(PARQUET)).append_column("trip_distance", pa.array([1.0, 2.0]))
    path = tmp_path / "m.parquet"
    pq.write_table(changed(table, [column], lambda _: pa.array(values)), path)
    with pytest.raises(TripFileError) as error:
        read_month(path, JANUARY)
    said = str(error.value)
    assert said.startswith(f"m.parquet: column {column} must hold ") and found in said


class NoSecret(encryption.KmsClient):
    """Keys that wrap themselves."""

    def wrap_key(self, key_bytes, _):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, _):
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_parquet_is_named_as_such(plaintext_footer, table, tmp_path):
    path = tmp_path / "m.parquet"
    factory = encryption.CryptoFactory(lambda _: NoSecret())
    config = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": [TIMES[0]]}, plaintext_footer=plaintext_footer
    )
    keys = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    with pq.ParquetWriter(path, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    with pytest.raises(TripFileError, match=r"m\.parquet: is an encrypted Parquet file"):
        read_month(path, JANUARY)


@pytest.mark.parametrize("pack", [gzip.compress, lambda b: zipped({"a.csv": b})])
def test_file_made_to_fill_the_memory_is_refused(pack, tmp_path, monkeypatch):
    monkeypatch.setattr("taxi_duration.data.packing.ALWAYS_UNPACKED", 1000)
    path = tmp_path / "m.csv"
    rows = GOOD.splitlines(keepends=True)
    path.write_bytes(pack((rows[0] + rows[1] * 20_000).encode()))
    with pytest.raises(TripFileError, match=r"m\.csv.* unpacks to more than [\d,]+ bytes"):
        read_month(path, JANUARY)
    path.write_bytes(pack("".join(rows).encode()))
    assert len(read_month(path, JANUARY).trips) == 2


def test_parquet_that_claims_too_many_rows_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    path.write_bytes(PARQUET)
    monkeypatch.setattr("taxi_duration.data.parquet_files.MAX_ROWS", 1)
    with pytest.raises(TripFileError, match=r"m\.parquet: claims 2 rows; expected are at most 1"):
        read_month(path, JANUARY)
