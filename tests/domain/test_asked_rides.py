"""Rides as they are asked for: names before values, values or words."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.asked_rides import (
    MAX_IGNORED,
    ManyRides,
    Ride,
    check_ride,
    check_rides,
    check_table,
    find_ride_columns,
    from_text,
    parse_time,
    read_pickups,
)
from taxi_duration.domain.refused_values import RefusedError
from taxi_duration.domain.rides import Rides

RIDE = {"PULocationID": 74, "DOLocationID": 42}
TIMES = ["2021-02-15T08:30:00", "2021-07-15T12:30:00"]


def whole(rides: ManyRides) -> dict:
    """All of it, as plain values."""
    columns = {name: getattr(rides.columns, name) for name in Rides.__dataclass_fields__}
    return {
        **{
            name: (str(values.dtype), values.astype(str).tolist())
            for name, values in columns.items()
        },
        "miles": rides.miles,
        "ride_ids": rides.ride_ids,
        "pickups": rides.pickups,
        "ignored": rides.ignored,
    }


def test_a_table_of_other_names_order_and_types_is_read_whole():
    names = [
        "fare",
        "Ride_ID",
        "lpep_pickup_datetime",
        "",
        "dolocationid",
        "trip_miles",
        "PULocationID",
    ]
    rows = [
        [1, "a", TIMES[0], 0, 42.0, 3, 74],
        [2, None, TIMES[1], 1, 265, None, 1.0],
    ]
    assert whole(check_table(names, rows)) == {
        "PULocationID": ("int16", ["74", "1"]),
        "DOLocationID": ("int16", ["42", "265"]),
        "pickup_at": ("datetime64[s]", TIMES),
        "trip_distance": ("float32", ["3.0", "nan"]),
        "miles": [3.0, None],
        "ride_ids": ["a", None],
        "pickups": TIMES,
        "ignored": {0: ["fare"]},
    }


def test_rides_of_an_array_are_read_whole_each_by_its_own_names():
    first = {"PUlocationID": 74, "DOLocationID": 42.0, "x": 1, "tpep_pickup_datetime": TIMES[0]}
    second = {"y": 2, "DOLocationID": 265, "PULocationID": 1, "pickup_datetime": TIMES[1],
              "ride_id": 7, "trip_distance": 2}  # fmt: skip
    assert whole(check_rides([first, second])) == {
        "PULocationID": ("int16", ["74", "1"]),
        "DOLocationID": ("int16", ["42", "265"]),
        "pickup_at": ("datetime64[s]", TIMES),
        "trip_distance": ("float32", ["nan", "2.0"]),
        "miles": [None, 2.0],
        "ride_ids": [None, 7],
        "pickups": TIMES,
        "ignored": {0: ["x"], 1: ["y"]},
    }


def test_one_ride_is_read_whole():
    ride, pickup_at, ignored = check_ride({**RIDE, "trip_miles": 3, "pickup_at": TIMES[0], "x": 1})
    fields = [getattr(ride, name) for name in Ride.__struct_fields__]
    assert fields == [74, 42, 3.0, TIMES[0], None]
    assert (pickup_at.isoformat(), ignored) == (TIMES[0], ["x"])


def test_what_is_taken_has_no_names_of_what_was_ignored():
    rides = check_rides([{**RIDE, "x": 1}, {**RIDE, "ride_id": "b", "trip_distance": 2}])
    taken = rides.take(np.array([1]))
    assert (taken.ride_ids, taken.miles, taken.ignored) == (["b"], [2.0], None)


def test_columns_are_checked_before_a_row_is_looked_at():
    def rows():
        raise AssertionError("a row was looked at")
        yield

    for names in (["PULocationID"], ["DOLocationID", "fare"], [], ["x", *RIDE, "pulocationid"]):
        with pytest.raises(RefusedError):
            check_table(names, rows())


@pytest.mark.parametrize("content", [5, None, [RIDE], "x", [[1]], b"x", RIDE.items()])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(RefusedError, match="an object is expected, not"):
        check_rides([content]) if not isinstance(content, list) else check_ride(content)


def test_fields_that_are_not_read_are_others():
    found = find_ride_columns([*RIDE, "ride_id"], fields=tuple(RIDE))
    assert (found.positions, found.ignored) == ({"PULocationID": 0, "DOLocationID": 1}, ["ride_id"])


def test_names_that_are_told_come_once_and_are_few():
    names = [*RIDE, "a", "a", " a", "", " ", *(f"n{i}" for i in range(2 * MAX_IGNORED))]
    ignored = find_ride_columns(names).ignored
    assert ignored == ["a", *(f"n{i}" for i in range(MAX_IGNORED - 1))]


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("PULocationID", " 74 ", 74.0),
        ("trip_distance", "1e2", 100.0),
        ("trip_distance", "-.5", -0.5),
        ("trip_distance", "5.", 5.0),
        ("trip_distance", "1,5", "1,5"),
        ("trip_distance", "1_0", "1_0"),
        ("trip_distance", "inf", "inf"),
        ("trip_distance", "None", None),
        ("pickup_datetime", " 2021-02-15 ", "2021-02-15"),
        ("pickup_datetime", "NaT", None),
        ("ride_id", "007", "007"),
        ("ride_id", "NULL", None),
    ],
)
def test_cells_of_text_become_values_of_their_field(field, text, value):
    assert from_text(field, text) == value


@pytest.mark.parametrize(
    "text", ["2021-02-15T13:30:00Z", "2021-02-15 13:30:00 UTC", "2021-02-15T08:30-05", TIMES[0]]
)
def test_instants_become_new_york_time(text):
    assert parse_time(text, "pickup_datetime").isoformat() == TIMES[0]
    assert read_pickups([text])[0].astype(str).tolist() == [TIMES[0]]


@pytest.mark.parametrize(
    "text", ["UTC", " UTC", "2021-02-15T13:30:00Z UTC", "2021-02-15 EST", "\0"]
)
def test_words_that_are_no_time_are_refused(text):
    with pytest.raises(RefusedError) as error:
        parse_time(text, "pickup_datetime", 3)
    assert (error.value.field, error.value.element) == ("pickup_datetime", 3)
    assert str(error.value).startswith("element 3: pickup_datetime is ")
