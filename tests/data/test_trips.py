import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxi_duration.data.trips import (
    COLUMNS,
    check_bad_share,
    find_reasons,
    read_dataframe,
    read_month,
)
from taxi_duration.domain.months import Month
from taxi_duration.errors import BadMonthError, TripFileError

JANUARY = Month(2021, 1)


def with_column(table: pa.Table, name: str, values) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def moved_dropoff(table: pa.Table, row: int, seconds: int) -> pa.Table:
    """The table with one trip lasting so many seconds."""
    pickup = table["lpep_pickup_datetime"].to_numpy()
    dropoff = table["lpep_dropoff_datetime"].to_numpy().copy()
    dropoff[row] = pickup[row] + np.timedelta64(seconds, "s")
    return with_column(table, "lpep_dropoff_datetime", pa.array(dropoff))


def test_good_trips_come_back_in_our_columns_and_types(raw_month, write_month):
    trips = read_dataframe(write_month(raw_month))
    assert tuple(trips.columns) == COLUMNS
    assert [str(t) for t in trips.dtypes] == [
        "datetime64[us]", "datetime64[us]", "int16", "int16", "float32", "float32"
    ]  # fmt: skip
    assert trips["duration"].tolist() == [1, 10, 25, 45, 60]


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(-1, "bad_time"), (0, "too_short"), (59, "too_short"), (60, None), (3600, None),
     (3601, "too_long"), (90_000, "too_long")],
)  # fmt: skip
def test_course_rule_decides_which_rows_stay(raw_month, write_month, seconds, reason):
    month = read_month(write_month(moved_dropoff(raw_month, 2, seconds)))
    assert len(month.trips) == (5 if reason is None else 4)
    assert month.quarantine["reason"].tolist() == ([] if reason is None else [reason])


def test_missing_time_is_dropped_as_bad_time(raw_month, write_month):
    times = raw_month["lpep_pickup_datetime"].to_pylist()
    table = with_column(raw_month, "lpep_pickup_datetime", pa.array([None, *times[1:]]))
    month = read_month(write_month(table), JANUARY)
    assert month.accounting.reasons["bad_time"] == 1
    assert len(month.trips) == 4


@pytest.mark.parametrize(
    ("day", "flagged"),
    [("2020-12-31T23:59:59", True), ("2021-01-01T00:00:00", False),
     ("2021-01-31T23:00:00", False), ("2021-02-01T00:00:00", True), ("2009-01-01T00:00:00", True)],
)  # fmt: skip
def test_pickup_outside_the_month_is_flagged_and_stays(raw_month, write_month, day, flagged):
    pickup = raw_month["lpep_pickup_datetime"].to_numpy().copy()
    pickup[0] = np.datetime64(day)
    table = with_column(raw_month, "lpep_pickup_datetime", pa.array(pickup))
    month = read_month(write_month(moved_dropoff(table, 0, 600)), JANUARY)
    assert month.accounting.reasons["outside_month"] == int(flagged)
    assert len(month.trips) == 5


@pytest.mark.parametrize(
    ("zone", "stored", "flagged"),
    [(1, 1, 0), (263, 263, 0), (264, 264, 1), (265, 265, 1), (0, 264, 1), (266, 264, 1),
     (-5, 264, 1), (None, 264, 1)],
)  # fmt: skip
def test_unknown_zones_are_flagged_and_stay(raw_month, write_month, zone, stored, flagged):
    zones = [zone, *raw_month["PULocationID"].to_pylist()[1:]]
    month = read_month(write_month(with_column(raw_month, "PULocationID", pa.array(zones))))
    assert month.trips["PULocationID"].iloc[0] == stored
    # One drop-off of the fixture is in zone 265 already.
    assert month.accounting.reasons["unknown_zone"] == 1 + flagged


@pytest.mark.parametrize(
    ("miles", "flagged"),
    [(0.01, 0), (100.0, 0), (0.0, 1), (-3.0, 1), (100.5, 1), (244_152.0, 1), (None, 0)],
)
def test_impossible_distances_are_flagged_and_unknown_ones_are_not(
    raw_month, write_month, miles, flagged
):
    values = [miles, *raw_month["trip_distance"].to_pylist()[1:]]
    month = read_month(write_month(with_column(raw_month, "trip_distance", pa.array(values))))
    assert month.accounting.reasons["bad_distance"] == flagged
    assert np.isnan(month.trips["trip_distance"].iloc[0]) == (miles is None)


def test_second_copy_of_a_row_is_flagged_and_a_near_copy_is_not(raw_month, write_month):
    near = raw_month.slice(1, 1)
    near = with_column(near, "trip_distance", pa.array([2.01]))
    table = pa.concat_tables([raw_month, raw_month.slice(0, 2), near])
    month = read_month(write_month(table))
    assert month.accounting.reasons["duplicate"] == 2
    assert len(month.trips) == 8


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_duplicates_are_exactly_those_pandas_finds(rows):
    frame = pd.DataFrame(rows, columns=["PULocationID", "DOLocationID", "trip_distance"])
    frame = frame.astype({"PULocationID": "int16", "DOLocationID": "int16", "trip_distance": "f4"})
    times = np.full(len(frame), np.datetime64("2021-01-01T08:00:00", "us"))
    frame = frame.assign(pickup_at=times, dropoff_at=times, duration=np.float32(5))
    assert (find_reasons(frame)["duplicate"] == frame.duplicated().to_numpy()).all()


def test_rows_read_are_rows_kept_plus_rows_dropped(raw_month, write_month):
    table = moved_dropoff(moved_dropoff(raw_month, 0, -60), 3, 7200)
    month = read_month(write_month(table), JANUARY)
    reasons = month.accounting.reasons
    dropped = reasons["bad_time"] + reasons["too_short"] + reasons["too_long"]
    assert month.accounting.rows_read == month.accounting.rows_kept + dropped == 5
    assert len(month.quarantine) == dropped == 2


def test_month_without_any_ride_that_counts_is_refused(raw_month, write_month):
    for name in ("lpep_pickup_datetime", "lpep_dropoff_datetime"):
        days = raw_month[name].cast(pa.date32(), safe=False)
        raw_month = with_column(raw_month, name, days.cast(pa.timestamp("us")))
    accounting = read_month(write_month(raw_month), Month(2021, 1)).accounting
    with pytest.raises(
        BadMonthError, match=r"m\.parquet: none of 5 rows .*too_short 4, too_long 1"
    ):
        check_bad_share(accounting, "m.parquet", 0.2)


def test_month_with_too_many_bad_rows_is_refused_and_short_trips_do_not_count(
    raw_month, write_month
):
    short = read_month(write_month(moved_dropoff(moved_dropoff(raw_month, 0, 5), 1, 5)))
    check_bad_share(short.accounting, "short", 0.2)
    bad = read_month(write_month(moved_dropoff(moved_dropoff(raw_month, 0, -5), 1, -5)))
    with pytest.raises(BadMonthError, match=r"bad\.parquet: 60.0% of 5 rows.*bad_time 2"):
        check_bad_share(bad.accounting, "bad.parquet", 0.2)


@pytest.mark.parametrize(
    "names",
    [
        "lpep_pickup_datetime,Lpep_dropoff_datetime,PULocationID,DOLocationID,Trip_distance",
        "tpep_pickup_datetime,tpep_dropoff_datetime,PULocationID,DOLocationID,trip_distance",
        "pickup_datetime,dropoff_datetime,pickup_location_id,dropoff_location_id,trip_distance",
        " pickup_datetime, dropoff_datetime,PULocationID ,DOLocationID, trip_distance",
        "pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,trip_miles",
    ],
    ids=["green", "yellow", "yellow csv", "yellow 2014", "fhvhv"],
)
def test_names_of_every_era_are_understood(raw_month, write_month, names):
    ours = ["lpep_pickup_datetime", "lpep_dropoff_datetime", "PULocationID", "DOLocationID",
            "trip_distance"]  # fmt: skip
    trips = read_dataframe(write_month(raw_month.select(ours).rename_columns(names.split(","))))
    assert trips["duration"].tolist() == [1, 10, 25, 45, 60]
    assert trips["trip_distance"].tolist() == [0.5, 2.0, 4.5, 12.25, 17.0]


def test_fhv_without_distance_and_with_null_zones_reads(raw_month, write_month):
    table = pa.table(
        {
            "pickup_datetime": raw_month["lpep_pickup_datetime"],
            "dropOff_datetime": raw_month["lpep_dropoff_datetime"],
            "PUlocationID": pa.nulls(5, pa.float64()),
            "DOlocationID": pa.nulls(5),
        }
    )
    trips = read_dataframe(write_month(table))
    assert trips["trip_distance"].isna().all()
    assert (trips["PULocationID"] == 264).all() and (trips["DOLocationID"] == 264).all()


@pytest.mark.parametrize(
    "cast", [pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.large_string()]
)
def test_zone_ids_of_any_integral_type_are_understood(raw_month, write_month, cast):
    table = with_column(raw_month, "PULocationID", pc.cast(raw_month["PULocationID"], cast))
    assert read_dataframe(write_month(table))["PULocationID"].tolist() == [74, 75, 41, 132, 1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_are_understood(raw_month, write_month, unit):
    times = raw_month["lpep_pickup_datetime"].cast(pa.timestamp(unit))
    table = with_column(raw_month, "lpep_pickup_datetime", times)
    assert read_dataframe(write_month(table))["duration"].tolist() == [1, 10, 25, 45, 60]


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("name", ["month.csv", "month.parquet", "month"])
def test_csv_is_recognised_by_content_not_by_name(raw_month, tmp_path, gzipped, name):
    path = tmp_path / name
    with (gzip.open if gzipped else open)(path, "wb") as file:
        pa.csv.write_csv(raw_month, file)
    assert read_dataframe(path)["duration"].tolist() == [1, 10, 25, 45, 60]


def test_missing_column_is_named_with_what_was_found(raw_month, write_month):
    path = write_month(raw_month.drop_columns(["DOLocationID"]))
    with pytest.raises(TripFileError) as error:
        read_dataframe(path)
    message = str(error.value)
    assert all(
        word in message
        for word in (path.name, "DOLocationID", "dropoff_location_id", "fare_amount")
    )


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("PULocationID", ["Harlem", "a", "b", "c", "d"], "whole numbers 1-265"),
        ("PULocationID", [1.5, 2, 3, 4, 5], "whole numbers 1-265"),
        ("PULocationID", [True, False, True, True, True], "whole numbers 1-265"),
        ("lpep_pickup_datetime", [1, 2, 3, 4, 5], "timestamps"),
        ("lpep_dropoff_datetime", ["noon", "b", "c", "d", "e"], "timestamps"),
        ("trip_distance", ["far", "b", "c", "d", "e"], "numbers"),
        ("trip_distance", [True, False, True, True, True], "numbers"),
    ],
)
def test_wrong_type_names_file_column_and_expectation(
    raw_month, write_month, column, values, expected
):
    path = write_month(with_column(raw_month, column, pa.array(values)))
    with pytest.raises(TripFileError) as error:
        read_dataframe(path)
    assert path.name in str(error.value)
    assert column.removeprefix("lpep_")[:6] in str(error.value) and expected in str(error.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_parquet_is_named_as_such(raw_month, write_month, share):
    path = write_month(raw_month)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share) + 4])
    with pytest.raises(TripFileError, match="truncated or damaged"):
        read_dataframe(path)


def test_truncated_gzip_is_named_as_such(raw_month, tmp_path):
    path = tmp_path / "green_tripdata_2021-01.csv.gz"
    table = pa.concat_tables([raw_month] * 200)
    with gzip.open(path, "wb") as file:
        pa.csv.write_csv(table, file)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TripFileError, match="truncated or damaged"):
        read_dataframe(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02\x03", b"\x89PNG\r\n\x1a\n", b"<html>no</html>"]
)
def test_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "green_tripdata_2021-01.parquet"
    path.write_bytes(content)
    with pytest.raises(TripFileError, match=path.name):
        read_dataframe(path)


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(TripFileError, match=r"nothing\.parquet"):
        read_dataframe(tmp_path / "nothing.parquet")


def test_month_without_rows_reads_as_no_trips(raw_month, write_month):
    month = read_month(write_month(raw_month.slice(0, 0)), JANUARY)
    assert (len(month.trips), month.accounting.rows_read) == (0, 0)


def test_coordinates_instead_of_zones_are_named(tmp_path):
    path = tmp_path / "green_tripdata_2013-08.csv"
    path.write_text(
        "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,"
        "Pickup_longitude,Pickup_latitude,Trip_type \n"
        "\n2,2013-08-01 08:14:37,2013-08-01 09:09:06,0,0,,\n"
    )
    with pytest.raises(TripFileError, match="coordinates"):
        read_dataframe(path)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_mix_of_column_types_reads_or_names_the_file(raw_month, write_month, data):
    table = raw_month
    for column in ("PULocationID", "trip_distance", "lpep_pickup_datetime"):
        kind = data.draw(
            st.sampled_from([pa.string(), pa.float32(), pa.int16(), pa.date32(), None])
        )
        if kind is not None:
            try:
                table = with_column(table, column, table[column].cast(kind, safe=False))
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                continue
    path = write_month(table)
    try:
        trips = read_dataframe(path)
    except TripFileError as error:
        assert path.name in str(error)
    else:
        assert tuple(trips.columns) == COLUMNS


@pytest.mark.parametrize(
    ("month", "rows_read", "rows_kept"), [("2021-01", 76_518, 73_908), ("2021-02", 64_572, 61_921)]
)
def test_real_months_keep_the_courses_rows(real_months, month, rows_read, rows_kept):
    path = real_months / "trip-data" / f"green_tripdata_{month}.parquet"
    accounting = read_month(path, Month(2021, int(month[-2:]))).accounting
    assert (accounting.rows_read, accounting.rows_kept) == (rows_read, rows_kept)


def test_real_january_is_accounted_for_by_reason(real_months):
    path = real_months / "trip-data" / "green_tripdata_2021-01.parquet"
    reasons = read_month(path, JANUARY).accounting.reasons
    assert (reasons["too_short"], reasons["too_long"]) == (66 + 1382, 1162)
    assert (reasons["outside_month"], reasons["bad_distance"]) == (3, 2553 + 63)


def test_real_first_green_month_is_refused_for_its_coordinates(real_months):
    with pytest.raises(TripFileError, match="coordinates"):
        read_dataframe(real_months / "trip-data" / "green_tripdata_2013-08.csv.gz")


def test_real_yellow_csv_names_are_understood(real_months):
    month = read_month(real_months / "trip-data" / "yellow_tripdata_2019-01.csv.gz", Month(2019, 1))
    assert month.accounting.rows_read == 10_000
    assert month.accounting.reasons["outside_month"] == 0


def test_real_months_of_changed_types_read_alike(real_months):
    frames = [
        read_dataframe(real_months / "trip-data" / f"green_tripdata_2023-0{m}.parquet")
        for m in (1, 2)
    ]
    assert frames[0].dtypes.equals(frames[1].dtypes)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ids=st.sampled_from([pa.int16(), pa.int32(), pa.int64(), pa.float64(), pa.string()]),
    times=st.sampled_from([pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms")]),
    miles=st.sampled_from([pa.float32(), pa.float64(), pa.string(), pa.decimal128(9, 2)]),
    case=st.sampled_from([str.lower, str.upper, lambda name: f" {name} "]),
    order=st.permutations(range(7)),
)
def test_month_reads_alike_whatever_its_types_order_and_case(
    raw_month, write_month, ids, times, miles, case, order
):
    table = raw_month
    kinds = {"lpep_pickup_datetime": times, "lpep_dropoff_datetime": times, "PULocationID": ids,
             "DOLocationID": ids, "trip_distance": miles}  # fmt: skip
    for column, kind in kinds.items():
        table = with_column(table, column, table[column].cast(kind))
    table = table.select([table.column_names[i] for i in order])
    path = write_month(table.rename_columns([case(name) for name in table.column_names]))
    expected = read_dataframe(write_month(raw_month, "plain.parquet"))
    pd.testing.assert_frame_equal(read_dataframe(path), expected)


def test_file_of_another_month_is_refused_by_its_share_of_outside_rows(raw_month, write_month):
    path = write_month(raw_month, "green_tripdata_2021-02.parquet")
    accounting = read_month(path, Month(2021, 2)).accounting
    assert accounting.reasons["outside_month"] == 5
    with pytest.raises(BadMonthError, match=r"green_tripdata_2021-02\.parquet.*outside_month 5"):
        check_bad_share(accounting, path.name, 0.2)


def test_web_page_saved_as_a_month_is_refused_with_what_it_holds(tmp_path):
    path = tmp_path / "green_tripdata_2021-01.parquet"
    path.write_text("<!DOCTYPE html>\n<html><body>Service unavailable</body></html>\n")
    with pytest.raises(TripFileError, match=r"green_tripdata_2021-01\.parquet.*DOCTYPE html"):
        read_dataframe(path)
