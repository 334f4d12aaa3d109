from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from taxi_duration.domain.rides import NEW_YORK, Rides, local_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-02-15T08:30:00", datetime(2021, 2, 15, 8, 30)),  # naive is New York's
        ("2021-02-15 08:30", datetime(2021, 2, 15, 8, 30)),
        ("2021-02-15T13:30:00Z", datetime(2021, 2, 15, 8, 30)),  # winter: 5 hours behind
        ("2021-07-15T13:30:00+00:00", datetime(2021, 7, 15, 9, 30)),  # summer: 4 hours
        ("2021-02-15T08:30:00-05:00", datetime(2021, 2, 15, 8, 30)),
        ("2021-02-15T22:30:00+09:00", datetime(2021, 2, 15, 8, 30)),
        ("2021-03-14T06:59:59Z", datetime(2021, 3, 14, 1, 59, 59)),  # clocks go on by an hour
        ("2021-03-14T07:00:00Z", datetime(2021, 3, 14, 3, 0)),
        ("2021-11-07T05:30:00Z", datetime(2021, 11, 7, 1, 30)),  # the hour that comes twice
        ("2021-11-07T06:30:00Z", datetime(2021, 11, 7, 1, 30)),
        ("2021-02-15T08:30:00.999", datetime(2021, 2, 15, 8, 30)),
    ],
)
def test_text_becomes_new_york_local_time(text, expected):
    assert local_time(text) == expected


def test_aware_datetime_is_converted_and_naive_kept():
    tokyo = timezone(timedelta(hours=9))
    assert local_time(datetime(2021, 2, 15, 22, 30, tzinfo=tokyo)) == datetime(2021, 2, 15, 8, 30)
    assert local_time(datetime(2021, 2, 15, 8, 30)) == datetime(2021, 2, 15, 8, 30)


def test_no_time_means_now_in_new_york():
    before = datetime.now(NEW_YORK).replace(tzinfo=None, microsecond=0)
    now = local_time(None)
    after = datetime.now(UTC).astimezone(NEW_YORK).replace(tzinfo=None)
    assert now.tzinfo is None
    assert before <= now <= after


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2021-13-01T00:00", "2021-02-15T25:00", "15/02/2021"]
)
def test_text_that_is_no_time_is_refused(text):
    with pytest.raises(ValueError):
        local_time(text)


def test_dicts_and_frames_give_the_same_columns(trips):
    records = [
        {
            "PULocationID": int(trip.PULocationID),
            "DOLocationID": int(trip.DOLocationID),
            "trip_distance": float(trip.trip_distance),
            "pickup_datetime": trip.pickup_at.isoformat(),
        }
        for trip in trips.itertuples()
    ]
    from_frame, from_dicts = Rides.from_frame(trips), Rides.from_dicts(records)
    for name in Rides.__dataclass_fields__:
        ours, theirs = getattr(from_dicts, name), getattr(from_frame, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("miles", [{}, {"trip_distance": None}])
def test_distance_that_is_not_given_is_nan(miles):
    rides = Rides.from_dicts([{"PULocationID": 10, "DOLocationID": 50, **miles}])
    assert np.isnan(rides.trip_distance[0])


def test_order_of_the_fields_does_not_matter():
    ride = {"PULocationID": 10, "DOLocationID": 50, "trip_distance": 4.5,
            "pickup_datetime": "2021-02-15T08:30"}  # fmt: skip
    one, other = Rides.from_dicts([ride]), Rides.from_dicts([dict(reversed(ride.items()))])
    assert all(getattr(one, n) == getattr(other, n) for n in Rides.__dataclass_fields__)


def test_frame_in_nanoseconds_is_taken_to_the_second():
    frame = pd.DataFrame(
        {
            "PULocationID": [10],
            "DOLocationID": [50],
            "pickup_at": np.array(["2021-02-15T08:30:01.9"], dtype="datetime64[ns]"),
            "trip_distance": [4.5],
        }
    )
    assert Rides.from_frame(frame).pickup_at[0] == np.datetime64("2021-02-15T08:30:01", "s")


def test_rides_are_taken_by_mask(trips):
    rides = Rides.from_frame(trips)
    mask = rides.PULocationID == 74
    taken = rides.take(mask)
    assert 0 < len(taken) < len(rides)
    assert set(taken.PULocationID) == {74}
    np.testing.assert_array_equal(taken.trip_distance, rides.trip_distance[mask])


def test_without_distance_only_the_distance_is_gone(trips):
    rides = Rides.from_frame(trips)
    blind = rides.without_distance()
    assert np.isnan(blind.trip_distance).all()
    assert not np.isnan(rides.trip_distance).any()
    np.testing.assert_array_equal(blind.PULocationID, rides.PULocationID)
