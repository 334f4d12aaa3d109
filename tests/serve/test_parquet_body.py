"""Parquet bodies of /predict: answered like arrays; bombs and broken files are refused."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from service_samples import RIDE, make_card, make_rides

from serve.bodies import parquet, parquet_child

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


def test_other_columns_are_ignored(client):
    body = packed(columns(fare=["a", "b", None], nested=[[1], [], None]))
    assert post(client, body).status_code == 200


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
        ({"pickup_datetime": ["2021-02-15T08:30:00"] * 3}, "pickup_datetime"),
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


def test_a_file_that_unpacks_to_gigabytes_is_refused_and_the_service_goes_on(client):
    text = pa.array(["x" * 8_000_000], pa.string())
    texts = pa.DictionaryArray.from_arrays(np.zeros(4000, "int32"), text)  # 32 GB of text
    table = pa.table({**columns(4000), "note": texts})
    # Without the Arrow schema a reader makes plain text of it.
    body = packed(table, compression="zstd", store_schema=False)
    assert len(body) < 1_000_000
    assert post(client, body).status_code == 422
    assert client.post("/predict", json=RIDE).status_code == 200


def test_a_file_that_takes_too_long_is_refused(client, monkeypatch):
    def slow(*_, **__):
        raise subprocess.TimeoutExpired("parquet_child", 30)

    monkeypatch.setattr("serve.bodies.parquet.subprocess.run", slow)
    response = post(client, GOOD)
    assert response.status_code == 422
    assert "too long" in response.json["error"]["message"]


def test_the_child_imports_nothing_of_the_service():
    script = (
        "import runpy, sys; sys.argv = ['child', '5'];"
        f"runpy.run_path({parquet_child.__file__!r}, run_name='child');"
        "print([m for m in sys.modules if m.startswith(('serve', 'flask', 'taxi'))])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert parquet.PARQUET_TYPES[0] == KIND
