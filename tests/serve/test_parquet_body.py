"""Parquet bodies of /predict: answered like arrays; bombs and broken files are refused."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from service_samples import RIDE, make_card, make_rides

from serve.bodies import parquet, parquet_child, parquet_footer
from serve.bodies.parquet_child import TOO_MANY
from serve.bodies.parquet_footer import FooterError, NestedError, RowsError
from serve.bodies.thrift import I32, I64, LIST, STRUCT, Reader, Struct, ThriftError, encode
from serve.bodies.unpacker import SlowError, Unpacked, Unpacker
from taxi_duration.domain.refused_values import RefusedError

KIND = "application/vnd.apache.parquet"


def packed(table: pa.Table | dict, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), file, **options)
    return file.getvalue()


def post(client, body: bytes):
    return client.post("/predict", data=body, content_type=KIND)


def columns(n: int = 3, **changes) -> dict:
    """n good rides, with columns changed or, by None, left out."""
    table = {
        "PULocationID": np.full(n, 74, "int32"),
        "DOLocationID": np.full(n, 42, "int64"),
        "trip_distance": np.linspace(1, 9, n),
        "pickup_datetime": np.full(n, "2021-02-15T08:30:00", "datetime64[us]"),
        **changes,
    }
    return {name: values for name, values in table.items() if values is not None}


@pytest.fixture
def cut(monkeypatch) -> list[bytes]:
    """The files that children are given."""
    files = []
    run = parquet._unpacker.unpack

    def note(file: bytes, most: int, seconds: float):
        files.append(file)
        return run(file, most, seconds)

    monkeypatch.setattr(parquet._unpacker, "unpack", note)
    return files


def footer_of(body: bytes) -> Struct:
    size = int.from_bytes(body[-8:-4], "little")
    return Reader(body[-8 - size : -8]).struct()


def forged(body: bytes, change) -> bytes:
    """The file with its footer's claims changed."""
    footer = footer_of(body)
    size = int.from_bytes(body[-8:-4], "little")
    change(footer)
    content = encode(footer)
    return body[: -8 - size] + content + len(content).to_bytes(4, "little") + b"PAR1"


def test_a_file_is_answered_like_the_frame(client, models):
    rides, _ = make_rides(300)
    body = packed(
        {
            "PULocationID": rides.PULocationID,
            "DOLocationID": rides.DOLocationID,
            "trip_distance": rides.trip_distance,
            "pickup_datetime": rides.pickup_at,
        }
    )
    answers = post(client, body).json
    offline = models[1].answer(rides)
    assert [a["duration"] for a in answers] == offline.duration.tolist()
    assert [a["interval"]["p10"] for a in answers] == offline.p10.tolist()
    assert [a["support"] for a in answers] == offline.support.tolist()


def test_every_row_is_logged(client, log):
    ids = [answer["prediction_id"] for answer in post(client, packed(columns(30))).json]
    assert len(log.find_many(ids)) == 30


def test_only_the_zones_are_needed(client):
    answers = post(client, packed(columns(trip_distance=None, pickup_datetime=None))).json
    assert [a["used_distance"] for a in answers] == [False] * 3


@pytest.mark.parametrize("unknown", [pa.array([None, 2.0, 3.0]), np.array([np.nan, 2.0, 3.0])])
def test_null_and_nan_are_distances_not_known(client, unknown):
    answers = post(client, packed(columns(trip_distance=unknown))).json
    assert [a["used_distance"] for a in answers] == [False, True, True]


@pytest.mark.parametrize("name", ["pickup_at", "lpep_pickup_datetime", "tpep_pickup_datetime"])
def test_the_pickup_may_have_the_names_that_months_use(client, log, name):
    body = packed(columns(pickup_datetime=None, **{name: np.full(3, "2020-01-01", "M8[us]")}))
    row = log.find(post(client, body).json[0]["prediction_id"])
    assert row["pickup_at"] == "2020-01-01T00:00:00"


def test_times_of_a_zone_are_converted(client, log):
    utc = pa.array([1613395800] * 3, pa.timestamp("s", "UTC"))
    row = log.find(post(client, packed(columns(pickup_datetime=utc))).json[0]["prediction_id"])
    assert row["pickup_at"] == "2021-02-15T08:30:00"


def test_a_missing_time_is_now(client, log):
    times = pa.array([None, 1_613_377_800, None], pa.timestamp("s"))
    answers = post(client, packed(columns(pickup_datetime=times))).json
    pickups = [log.find(answer["prediction_id"])["pickup_at"] for answer in answers]
    assert pickups[1] == "2021-02-15T08:30:00"
    assert pickups[0] == pickups[2] > "2026"


def test_other_columns_are_ignored_and_named_once(client):
    body = packed(columns(fare=["a", "b", None], nested=[[1], [], None]))
    answers = post(client, body).json
    assert [answer.get("ignored") for answer in answers] == [["fare", "nested"], None, None]
    assert post(client, packed(columns(0, fare=np.zeros(0)))).json == []


def test_an_unknown_column_of_every_distance_is_one_that_is_not_known(client):
    nulls = pa.nulls(3)
    answers = post(client, packed(columns(trip_distance=nulls, pickup_datetime=nulls))).json
    assert [a["used_distance"] for a in answers] == [False] * 3
    error = post(client, packed(columns(PULocationID=nulls))).json["error"]
    assert error["message"].startswith("element 0: PULocationID is null; it must be a TLC taxi")


ZONES, MILES = [74, 41, 75], [1.5, 2.25, 9.0]
TIME = "2021-02-15T08:30:00"
WRITERS = {  # that mean the same three rides
    "int8": {"PULocationID": pa.array(ZONES, pa.int8())},
    "uint64": {"PULocationID": pa.array(ZONES, pa.uint64())},
    "double": {"PULocationID": pa.array(ZONES, pa.float64())},
    "decimal zones": {"PULocationID": pa.array(ZONES, pa.decimal128(5, 0))},
    "whole decimals": {"PULocationID": pa.array([f"{z}.00" for z in ZONES]).cast(
        pa.decimal256(50, 2))},
    "half": {"trip_distance": pa.array(MILES, pa.float32()).cast(pa.float16())},
    "decimal": {"trip_distance": pa.array(["1.5", "2.25", "9"]).cast(pa.decimal128(7, 3))},
    "dictionary": {"trip_distance": pa.array(MILES).dictionary_encode(),
                   "pickup_datetime": pa.array([TIME] * 3).dictionary_encode()},
    "view": {"pickup_datetime": pa.array([TIME] * 3).cast(pa.string_view())},
    "large": {"pickup_datetime": pa.array([TIME] * 3, pa.large_string())},
    "text of an instant": {"pickup_datetime": ["2021-02-15 13:30:00 UTC", f"{TIME}-05:00", TIME]},
    "zone": {"pickup_datetime": pa.array([1613395800] * 3, pa.timestamp("s", "Asia/Tokyo"))},
    "nanoseconds": {"pickup_datetime": np.full(3, TIME, "datetime64[ns]")},
    "other names": {"pickup_datetime": None, "tpep_pickup_datetime": np.full(3, TIME, "M8[us]"),
                    "trip_distance": None, "trip_miles": MILES},
    "other cases": {"PULocationID": None, "PUlocationID": ZONES, "trip_distance": None,
                    " Trip_Distance ": MILES},
    "byte order mark": {"PULocationID": None, "\ufeffPULocationID": ZONES},
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("stored", [True, False], ids=["Arrow's schema", "none"])
def test_types_and_names_of_all_writers_mean_the_same(client, log, writer, stored):
    same = columns(PULocationID=ZONES, trip_distance=MILES)
    body = packed(pa.table({k: v for k, v in {**same, **WRITERS[writer]}.items() if v is not None}),
                  store_schema=stored)  # fmt: skip
    answers = post(client, body)
    assert answers.status_code == 200, answers.text
    rows = [log.find(answer["prediction_id"]) for answer in answers.json]
    assert [row["PULocationID"] for row in rows] == ZONES
    assert [row["trip_distance"] for row in rows] == MILES
    assert [row["pickup_at"] for row in rows] == [TIME] * 3
    assert not any("ignored" in answer for answer in answers.json)


def test_spark_s_old_timestamps_and_days_are_times(client, log):
    body = packed(columns(), use_deprecated_int96_timestamps=True)
    assert log.find(post(client, body).json[0]["prediction_id"])["pickup_at"] == TIME
    body = packed(columns(pickup_datetime=np.full(3, "2021-02-15", "M8[D]")))
    row = log.find(post(client, body).json[0]["prediction_id"])
    assert row["pickup_at"] == "2021-02-15T00:00:00"


@pytest.mark.parametrize(
    "text", ["yesterday", "", "NULL", "1999-12-31", "2021-02-15T08:30:00\0", "x" * 10**5]
)
def test_a_text_that_is_no_time_is_refused_with_its_row_as_in_json(client, text):
    body = packed(columns(pickup_datetime=["2021-02-15T08:30:00", text, None]))
    response = post(client, body)
    rides = [{**RIDE, "pickup_datetime": at} for at in ("2021-02-15T08:30:00", text, None)]
    assert response.status_code == 400
    assert response.json == client.post("/predict", json=rides).json


def test_instants_of_no_year_are_refused(client):
    for instant in (2**62, -(2**62), 253402300800):
        times = pa.array([instant // 10**6] * 3, pa.timestamp("ms", "UTC"))
        error = post(client, packed(columns(pickup_datetime=times))).json["error"]
        assert (error["field"], error["element"]) == ("pickup_datetime", 0)


@pytest.mark.parametrize(
    ("more", "field", "as_written"),
    [
        ({"lpep_pickup_datetime": np.full(3, TIME, "M8[us]")}, "pickup_datetime",
         "'lpep_pickup_datetime' and 'pickup_datetime'"),
        ({"trip_miles": MILES}, "trip_distance", "'trip_distance' and 'trip_miles'"),
        ({"pulocationid": ZONES}, "PULocationID", "'PULocationID' and 'pulocationid'"),
    ],
)  # fmt: skip
def test_two_columns_that_mean_the_same_are_refused(client, cut, more, field, as_written):
    error = post(client, packed(columns(**more))).json["error"]
    assert (error["code"], error["field"], cut) == ("bad_column", field, [])
    assert error["message"] == (f"{field} comes 2 times, as {as_written}; one column is expected")


def test_columns_are_checked_before_rows(client, cut):
    response = post(client, packed({"PULocation": np.zeros(0, "int64"), "x": np.zeros(0)}))
    assert (response.status_code, cut) == (422, [])
    assert response.json["error"]["message"].startswith(
        "PULocationID is missing; expected PULocationID or pickup_location_id (any case), "
        "found PULocation, x"
    )


def test_a_file_without_rows_has_an_empty_answer(client):
    assert post(client, packed(columns(0))).json == []


def test_a_real_month_as_tlc_writes_it_is_answered(client, real_months):
    month = pq.read_table(real_months / "trip-data" / "green_tripdata_2021-02.parquet")
    part = month.filter(pa.compute.less(month["trip_distance"], 1000)).slice(0, 2000)
    assert len(post(client, packed(part)).json) == 2000


@pytest.mark.parametrize(
    ("changes", "field", "element"),
    [
        ({"PULocationID": [1, 2, 0]}, "PULocationID", 2),
        ({"PULocationID": [1, 266, 1]}, "PULocationID", 1),
        ({"DOLocationID": [1.5, 1, 1]}, "DOLocationID", 0),
        ({"DOLocationID": pa.array([1, 1, None])}, "DOLocationID", 2),
        ({"trip_distance": [1.0, -1.0, 1.0]}, "trip_distance", 1),
        ({"trip_distance": [1.0, 1.0, np.inf]}, "trip_distance", 2),
        ({"pickup_datetime": np.full(3, "1066-10-14", "M8[us]")}, "pickup_datetime", 0),
    ],
)
def test_a_bad_value_is_refused_with_its_row(client, changes, field, element):
    response = post(client, packed(columns(**changes)))
    assert response.status_code == 400
    assert response.json["error"]["field"] == field
    assert response.json["error"]["element"] == element


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"PULocationID": None}, "PULocationID"),
        ({"PULocationID": ["74", "75", "76"]}, "PULocationID"),
        ({"DOLocationID": [True, False, True]}, "DOLocationID"),
        ({"trip_distance": ["far", "near", None]}, "trip_distance"),
        ({"trip_distance": [[1.0], [2.0], []]}, "trip_distance"),
        ({"PULocationID": [b"74"] * 3}, "PULocationID"),
        ({"pickup_datetime": [b"2021-02-15T08:30:00"] * 3}, "pickup_datetime"),
        ({"pickup_datetime": pa.array([0] * 3, pa.time64("us"))}, "pickup_datetime"),
        ({"pickup_datetime": [1, 2, 3]}, "pickup_datetime"),
    ],
)
def test_a_column_of_a_wrong_type_is_refused_by_its_name(client, changes, field):
    response = post(client, packed(columns(**changes)))
    assert response.status_code == 422
    assert response.json["error"]["field"] == field


def damaged(body: bytes, start: int, stop: int) -> bytes:
    return body[:start] + bytes(b ^ 0xA5 for b in body[start:stop]) + body[stop:]


GOOD = packed(columns(500))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"PAR1",
        b"PAR1" + bytes(100) + b"PAR1",
        b"not parquet at all",
        GOOD[: len(GOOD) // 2],
        GOOD[:-4],
        damaged(GOOD, 4, 200),
        damaged(GOOD, len(GOOD) - 200, len(GOOD) - 8),
        GOOD[:-8] + b"\xff\xff\xff\x7fPAR1",
    ],
)
def test_what_is_no_whole_file_is_refused(client, body):
    response = post(client, body)
    assert response.status_code == 422
    assert response.json["error"]["code"] in ("bad_parquet", "bad_column")
    assert "unwrap" not in response.text
    assert "{ bytes" not in response.text


def test_too_many_rows_are_refused(make_app, models):
    client = make_app({"MAX_RIDES": 10}, model=(models[1], make_card(1, "LR"))).test_client()
    assert post(client, packed(columns(10))).status_code == 200
    assert post(client, packed(columns(11))).status_code == 413


def test_a_small_file_of_very_many_rows_is_refused(client):
    rows = 20_000_000  # 160 MB a column, a few kilobytes in the file
    zones = pa.array(np.ones(rows, "int64"))
    body = packed({"PULocationID": zones, "DOLocationID": zones}, compression="zstd")
    assert len(body) < 200_000
    assert post(client, body).status_code == 413


def test_a_column_that_unpacks_to_gigabytes_and_is_not_wanted_is_not_unpacked(client, cut):
    text = pa.array(["x" * 8_000_000], pa.string())
    texts = pa.DictionaryArray.from_arrays(np.zeros(4000, "int32"), text)  # 32 GB of text
    table = pa.table({**columns(4000), "note": texts})
    # Without the Arrow schema a reader makes plain text of it.
    body = packed(table, compression="zstd", store_schema=False)
    assert len(body) < 1_000_000
    assert len(post(client, body).json) == 4000
    assert len(cut) == 1


# --- bounds before anything is decoded --------------------------------------------------------


def test_only_the_wanted_columns_are_read(client, cut):
    """Counted in bytes: what the child gets does not grow with what is not wanted."""
    noise = np.random.default_rng(1).bytes
    more = {f"note_{i}": [noise(1000) for _ in range(300)] for i in range(10)}
    nested = {"nested": [[{"a": [1, 2]}]] * 300}
    answers = [
        post(client, packed(columns(300))).json,
        post(client, packed(columns(300, **more, **nested))).json,
    ]
    assert [len(answer) for answer in answers] == [300, 300]
    first, second = ([a["duration"] for a in answer] for answer in answers)
    assert first == second
    assert len(cut[0]) == len(cut[1]) < 10_000
    leaves = footer_of(cut[1])[2][1][1][1:]
    assert [leaf[4][1] for leaf in leaves] == [
        b"PULocationID", b"DOLocationID", b"trip_distance", b"pickup_datetime",
    ]  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_row_groups_and_pages_come_out_as_they_went_in(client, log, compression, version):
    table = columns(200, trip_distance=pa.array([None, *np.arange(1, 200) / 10]))
    body = packed(
        table, row_group_size=30, compression=compression, data_page_size=64,
        data_page_version=version, use_dictionary=version == "1.0",
    )  # fmt: skip
    ids = [answer["prediction_id"] for answer in post(client, body).json]
    rows = {row["prediction_id"]: row for row in log.find_many(ids)}
    assert [rows[key]["trip_distance"] for key in ids] == [
        None, *np.arange(1, 200, dtype="float64").__truediv__(10).astype("float32").tolist(),
    ]  # fmt: skip


def claims(number: int, kind: int, value):
    def change(footer: Struct) -> None:
        footer[number] = (kind, value)

    return change


def in_groups(number: int, value, of: int | None = None, kind: int = I64):
    """Change a claim of every row group, or of its columns' descriptions."""

    def change(footer: Struct) -> None:
        for group in footer[4][1][1]:
            owners = [group] if of is None else [c[3][1] for c in group[1][1][1][:of]]
            for owner in owners:
                owner[number] = (kind, value)

    return change


def in_another_file(footer: Struct) -> None:
    footer[4][1][1][0][1][1][1][0][1] = (8, b"/etc/passwd")


def groups(n: int):
    def change(footer: Struct) -> None:
        of, found = footer[4][1]
        empty = {3: (I64, 0)}
        footer[4] = (LIST, (of, [*found, *([empty] * (n - len(found)))]))

    return change


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (claims(3, I64, 10**9), 413, "1000000000 rides"),
        (claims(3, I64, 499), 422, "500 rows, it claims 499"),
        (claims(3, I64, -1), 422, "claims -1"),
        (claims(3, I32, 500), 422, "wrong type"),
        (claims(2, LIST, (STRUCT, [])), 422, "lacks a field"),
        (claims(2, LIST, (STRUCT, [{5: (I32, 10**6), 4: (8, b"x")}])), 422, "cut off"),
        (claims(4, LIST, (I64, [1])), 422, "wrong type"),
        (groups(1001), 422, "1001 row groups"),
        (in_groups(3, 499), 422, "499 rows, it claims 500"),
        (in_groups(5, 10**9, of=1), 422, "more or fewer values"),
        (in_groups(6, 10**9, of=1), 422, "unpack to 1000000000 bytes"),
        (in_groups(6, 20_000_000, of=4), 422, "at most 50000000"),
        (in_groups(7, 10**6, of=1), 422, "outside the file"),
        (in_groups(7, -5, of=1), 422, "outside the file"),
        (in_groups(9, 10**6, of=1), 422, "outside the file"),
        (in_groups(9, 0, of=1), 422, "outside the file"),
        (in_another_file, 422, "another file"),
    ],
)
def test_claims_that_are_too_large_or_cannot_be_are_refused_before_a_child_is_run(
    client, cut, change, status, said
):
    response = post(client, forged(GOOD, change))
    assert (response.status_code, cut) == (status, [])
    assert said in response.json["error"]["message"]


def test_the_same_bytes_are_not_claimed_over_and_over(client, cut):
    """A hundred row groups of one column's bytes would unpack to a hundred times as much."""

    def change(footer: Struct) -> None:
        of, (group,) = footer[4][1]
        footer[4] = (LIST, (of, [group] * 100))
        footer[3] = (I64, 500 * 100)

    response = post(client, forged(GOOD, change))
    assert (response.status_code, cut) == (422, [])
    assert "over each other" in response.json["error"]["message"]


@pytest.mark.parametrize("n", [1_001, 10_000])
def test_very_many_columns_are_refused(client, cut, n):
    body = packed({**columns(1), **{f"c{i}": [1] for i in range(n)}})
    response = post(client, body)
    assert (response.status_code, cut) == (422, [])
    assert f"{n + 4} columns" in response.json["error"]["message"] or (
        "at most 250000 are read" in response.json["error"]["message"]
    )


@pytest.mark.parametrize(
    "footer",
    [
        b"\x1c" * 100_000,  # a struct in a struct in a struct …
        b"\x19" * 100_000,  # lists of lists
        b"\x19\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a list of 2**63 structs
        b"\x18\xff\xff\xff\xff\x7f",  # a text of 32 GB
        b"\x15" + b"\xff" * 100_000,  # a number without end
        b"\x1d\x00", b"\x1b\x05\xcc", b"\x00", b"",
    ],
)  # fmt: skip
def test_footers_that_are_none_are_refused(client, cut, footer):
    body = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    response = post(client, body)
    assert (response.status_code, response.json["error"]["code"]) == (422, "bad_parquet")
    assert cut == []


def test_a_footer_is_read_up_to_a_size(client, cut):
    body = packed(pa.table(columns(3)).replace_schema_metadata({"note": "x" * 300_000}))
    response = post(client, body)
    assert (response.status_code, cut) == (422, [])
    assert "at most 250000 are read" in response.json["error"]["message"]


def test_a_column_that_comes_twice_is_refused(client, cut):
    table = pa.table(columns(3))
    twice = table.append_column("trip_distance", table["trip_distance"])
    response = post(client, packed(twice))
    assert (response.status_code, response.json["error"]["field"]) == (422, "trip_distance")
    assert "comes 2 times" in response.json["error"]["message"]
    assert cut == []


def test_a_wanted_column_that_is_nested_is_refused(client, cut):
    response = post(client, packed(columns(PULocationID=[{"a": 1}] * 3)))
    assert (response.status_code, response.json["error"]["field"]) == (422, "PULocationID")
    assert cut == []


@pytest.mark.parametrize("claimed", [2**31 - 1, 1_000_000_000])
def test_a_page_that_claims_to_unpack_to_gigabytes_ends_the_child_alone(client, cut, claimed):
    body = packed(columns(500), use_dictionary=False, compression="zstd")
    start = footer_of(body)[4][1][1][0][1][1][1][0][3][1][9][1]
    page = Reader(body[start:]).struct()
    old = encode(page)
    assert body[start : start + len(old)] == old
    page[2] = (I32, claimed)
    new = encode(page)
    lying = body[:start] + new + body[start + len(old) :]
    moved = len(new) - len(old)

    def change(footer: Struct) -> None:
        for i, chunk in enumerate(footer[4][1][1][0][1][1][1]):
            meta = chunk[3][1]
            meta[7 if i == 0 else 9] = (I64, meta[7 if i == 0 else 9][1] + moved)

    response = post(client, forged(lying, change))
    assert (response.status_code, len(cut)) == (422, 1)
    assert client.post("/predict", json=RIDE).status_code == 200


def test_damaged_footers_are_refused_in_words_whatever_is_damaged():
    rng = np.random.default_rng(3)
    end = len(GOOD) - 8
    start = end - int.from_bytes(GOOD[-8:-4], "little")
    whole = 0
    for _ in range(2000):
        body = bytearray(GOOD)
        for at in rng.integers(start, end, rng.integers(1, 4)):
            body[at] = rng.integers(256)
        try:
            cut = parquet_footer.cut_down(bytes(body), 10_000).content
        except (FooterError, NestedError, RowsError, RefusedError):
            continue
        whole += 1
        assert len(cut) < 2 * len(body)
    assert 0 < whole < 2000


def test_structs_are_written_as_they_were_read():
    size = int.from_bytes(GOOD[-8:-4], "little")
    footer = footer_of(GOOD)
    assert Reader(encode(footer)).struct() == footer
    for cut in range(size):
        with pytest.raises(ThriftError):
            Reader(GOOD[-8 - size : -8][:cut]).struct()


def test_one_child_runs_at_a_time(client, cut, monkeypatch):
    monkeypatch.setattr(parquet, "WAIT_SECONDS", 0.01)
    with parquet._one_child:
        response = post(client, GOOD)
    assert (response.status_code, response.json["error"]["code"]) == (503, "busy")
    assert response.headers["Retry-After"]
    assert cut == []
    assert post(client, GOOD).status_code == 200
    assert post(client, GOOD[:-4]).status_code == 422  # and one that fails gives its turn back
    assert post(client, GOOD).status_code == 200


def test_bodies_that_come_together_are_unpacked_one_by_one(client, monkeypatch):
    run, inside, most_inside = parquet._unpacker.unpack, [], []

    def watch(*asked):
        inside.append(1)
        most_inside.append(len(inside))
        try:
            return run(*asked)
        finally:
            inside.pop()

    monkeypatch.setattr(parquet._unpacker, "unpack", watch)
    monkeypatch.setattr(parquet, "WAIT_SECONDS", 60)
    with ThreadPoolExecutor(8) as pool:
        bodies = [GOOD, GOOD[:20] + GOOD[60:]] * 8
        codes = list(
            pool.map(lambda b: post(client.application.test_client(), b).status_code, bodies)
        )
    assert codes == [200, 422] * 8
    assert set(most_inside) == {1}


def test_a_file_that_takes_too_long_is_refused(client, monkeypatch):
    def slowly(*_):
        raise SlowError

    monkeypatch.setattr(parquet._unpacker, "unpack", slowly)
    response = post(client, GOOD)
    assert response.status_code == 422
    assert "too long" in response.json["error"]["message"]
    monkeypatch.undo()
    assert post(client, GOOD).status_code == 200


def test_where_nothing_unpacks_the_client_may_come_again(client, monkeypatch, tmp_path):
    (tmp_path / "ends.py").write_text("")
    monkeypatch.setattr(parquet, "_unpacker", Unpacker(str(tmp_path / "ends.py")))
    response = post(client, GOOD)
    assert (response.status_code, response.json["error"]["code"]) == (503, "busy")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize(
    "left",
    [
        Unpacked(0, b"", b""),
        Unpacked(0, b"-1 PULocationID DOLocationID\n", b""),
        Unpacked(0, b"1 DOLocationID\n" + bytes(8), b""),
        Unpacked(0, b"2 PULocationID DOLocationID\n" + bytes(8), b""),
        Unpacked(TOO_MANY, b"", b""),
        Unpacked(TOO_MANY, b"", b"1"),
        Unpacked(1, b"", b"\xff"),
        Unpacked(-9, b"", b""),
    ],
)
def test_whatever_the_reader_leaves_is_no_fault_of_the_service(client, monkeypatch, left):
    monkeypatch.setattr(parquet._unpacker, "unpack", lambda *_: left)
    response = post(client, GOOD)
    assert (response.status_code, response.json["error"]["code"]) == (422, "bad_parquet")


def test_nothing_is_started_before_the_first_file(client, monkeypatch):
    monkeypatch.setattr(parquet, "_unpacker", Unpacker())
    assert client.post("/predict", json=RIDE).status_code == 200
    assert post(client, b"no file").status_code == 422
    assert parquet._unpacker._process is None


def test_the_child_imports_nothing_of_the_service():
    script = (
        "import runpy, sys; sys.argv = ['child', 'packages'];"
        f"runpy.run_path({parquet_child.__file__!r}, run_name='child');"
        "print([m for m in sys.modules if m.startswith(('serve', 'flask', 'taxi'))])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert parquet.PARQUET_TYPES[0] == KIND


@pytest.mark.parametrize(
    "times", [5, pytest.param(300, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_pages_damaged_anywhere_are_refused_or_read(client, times):
    """The child may end as it likes; the client is told, and the next one served."""
    rng = np.random.default_rng(5)
    end = len(GOOD) - 8 - int.from_bytes(GOOD[-8:-4], "little")
    for i in range(times):
        body = bytearray(GOOD)
        for at in rng.integers(4, end, rng.integers(1, 6)):
            body[at] = rng.integers(256)
        response = post(client, bytes(body))
        assert response.status_code in (200, 400, 413, 422), (i, response.text)
    assert post(client, GOOD).status_code == 200
