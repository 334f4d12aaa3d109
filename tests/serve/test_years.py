"""Times of years that nobody asks about, in every form of many rides: refused, never answered."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PARQUET = "application/vnd.apache.parquet"
RIDE = {"PULocationID": 74, "DOLocationID": 75, "trip_distance": 1.5}
GOOD = "2021-02-15T08:30:00"
OUT = ("0001-01-01T00:00:00", "1999-12-31T23:59:59", "2100-01-01T00:00:00", "9999-12-31T23:59:59",
       "10000-01-01T00:00:00", "-2021-01-01T00:00:00", "2100-01-01T04:59:59-01:00",
       "1999-12-31T23:00:00Z", "2000-01-01T04:59:59Z", "2099-12-31T23:59:59-12:00")  # fmt: skip
# Microseconds: the years 1, 10000 and -1, and the least (numpy's NaT) and greatest that there are.
OUT_US = (-62_135_596_800_000_000, 253_402_300_800_000_000, -62_198_755_200_000_000, -(2**63),
          2**63 - 1)  # fmt: skip


def array(client, times):
    return client.post("/predict", json=[{**RIDE, "pickup_datetime": time} for time in times])


def records(client, times):
    rows = [{**RIDE, "pickup_datetime": time} for time in times]
    return client.post("/invocations", json={"dataframe_records": rows})


def split(client, times):
    names = [*RIDE, "pickup_datetime"]
    rows = [[*RIDE.values(), time] for time in times]
    return client.post("/invocations", json={"dataframe_split": {"columns": names, "data": rows}})


def csv(client, times):
    lines = [",".join([*RIDE, "pickup_datetime"])]
    lines += [",".join(map(str, [*RIDE.values(), time])) for time in times]
    return client.post("/invocations", data="\n".join(lines), content_type="text/csv")


def parquet(client, times):
    table = pa.table({**{name: [value] * len(times) for name, value in RIDE.items()},
                      "pickup_datetime": times})  # fmt: skip
    file = io.BytesIO()
    pq.write_table(table, file)
    return client.post("/predict", data=file.getvalue(), content_type=PARQUET)


def assert_refused(answer) -> None:
    assert answer.status_code == 400, answer.json
    error = answer.json["error"]
    assert (error["code"], error["field"]) == ("bad_value", "pickup_datetime")
    assert error["message"].startswith("element 1: pickup_datetime is ")
    assert "from year 2000 to 2099" in error["message"]


@pytest.mark.parametrize("post", [array, records, split, csv])
@pytest.mark.parametrize("time", OUT)
def test_text_of_another_year_is_refused(client, post, time):
    assert_refused(post(client, [GOOD, time]))


@pytest.mark.parametrize("post", [array, records, split, csv])
def test_first_and_last_moment_are_answered(client, post):
    assert post(client, ["2000-01-01T00:00:00", "2099-12-31T23:59:59"]).status_code == 200


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("time", OUT_US)
def test_parquets_number_of_another_year_is_refused(client, time, zone):
    times = pa.array([1_613_377_800_000_000, time], pa.int64()).cast(pa.timestamp("us", zone))
    assert_refused(parquet(client, times))


def test_milliseconds_of_parquet_reach_further_and_are_refused(client):
    times = pa.array([1_613_377_800_000, 2**62], pa.int64()).cast(pa.timestamp("ms"))
    assert_refused(parquet(client, times))


def test_days_and_texts_of_parquet_are_refused(client):
    assert_refused(parquet(client, pa.array([18_700, 2**31 - 1], pa.int32()).cast(pa.date32())))
    assert_refused(parquet(client, pa.array([GOOD, OUT[4]])))
