"""Which true durations count: each rule with a case that it alone decides."""

from __future__ import annotations

import numpy as np
import pytest
from truth_sets import CALL_RIDES, DAY, changed, told_rides, with_outside

from taxi_duration.data.trips import TripRules, read_month
from taxi_duration.domain import truths
from taxi_duration.domain.months import parse_month
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import (
    LONG,
    NO_TIME,
    OF_A_CALL,
    OF_A_DAY,
    OFF_BY_FACTOR,
    QUARANTINED,
    SCORED,
    SHORT,
    TOO_FAST,
    UNKNOWN,
    WHOLE_DAY,
    count_of,
    count_truths,
    judge_truths,
)

TIMES_SQUARE, NEXT_DOOR, JFK, BRONX = 230, 163, 132, 259
FACTORS = {"seconds": 60.0, "hours": 1 / 60, "doubled": 2.0}


def judged(frame, calls=True):
    received_at = frame["received_at"].to_numpy() if calls else None
    return judge_truths(frame["true_duration"].to_numpy(), Rides.from_frame(frame), received_at)


def one(minutes, start=TIMES_SQUARE, end=NEXT_DOOR):
    """What a single true duration is."""
    rides = Rides(np.array([start]), np.array([end]), np.array([DAY]), np.array([np.nan]))
    return judge_truths(np.array([minutes]), rides)[0]


def second_day(frame):
    return (frame["pickup_at"].to_numpy() >= DAY + np.timedelta64(1, "D")) & (
        frame["pickup_at"].to_numpy() < DAY + np.timedelta64(2, "D")
    )


@pytest.mark.parametrize(
    ("minutes", "verdict"),
    [(np.nan, UNKNOWN), (-0.1, NO_TIME), (np.inf, NO_TIME), (-np.inf, NO_TIME), (0.0, SHORT),
     (0.99, SHORT), (1.0, SCORED), (60.0, SCORED), (60.01, LONG), (1439.9, LONG),
     (1440.0, WHOLE_DAY), (9999.0, WHOLE_DAY)],
)  # fmt: skip
def test_minutes_alone_tell_scored_outside_and_impossible(minutes, verdict):
    assert one(minutes) == verdict


@pytest.mark.parametrize(
    ("minutes", "start", "end", "verdict"),
    [(3.0, JFK, BRONX, TOO_FAST), (25.0, JFK, BRONX, SCORED),
     (3.0, TIMES_SQUARE, NEXT_DOOR, SCORED), (0.5, JFK, BRONX, TOO_FAST),
     (3.0, JFK, 264, SCORED), (3.0, 265, BRONX, SCORED)],
)  # fmt: skip
def test_no_car_is_that_fast(minutes, start, end, verdict):
    assert one(minutes, start, end) == verdict


def test_the_asked_distance_takes_no_truth_out():
    """Its own unit may be wrong."""
    frame = told_rides()
    for miles in (np.nan, 0.0, 244_152.0):
        assert (judged(frame.assign(trip_distance=miles)) == SCORED).all()


def test_usual_rides_and_those_outside_stay_what_they_are():
    frame = with_outside(told_rides())
    minutes = frame["true_duration"]
    expected = np.where(minutes < 1, SHORT, np.where(minutes > 60, LONG, SCORED))
    assert (judged(frame) == expected).all()
    assert 0.04 < (expected != SCORED).mean() < 0.06


@pytest.mark.parametrize("calls", [True, False])
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_a_day_in_a_wrong_unit_goes_as_a_whole_and_no_other_day(factor, calls):
    """Also when each ride is told alone, or nobody knows when."""
    frame = told_rides()
    day = second_day(frame)
    verdicts = judged(changed(frame, day, factor).assign(received_at=np.arange(600.0)), calls)
    assert set(verdicts[day]) == {OFF_BY_FACTOR}
    assert set(verdicts[~day]) == {SCORED}


@pytest.mark.parametrize("factor", [60.0, 1 / 60], ids=["seconds", "hours"])
def test_a_call_in_a_wrong_unit_goes_as_a_whole_amid_good_ones(factor):
    frame = told_rides()
    call = np.arange(len(frame)) // CALL_RIDES == 4
    verdicts = judged(changed(frame, call, factor))
    assert set(verdicts[call]) == {OFF_BY_FACTOR}
    assert set(verdicts[~call]) == {SCORED}


def test_bad_calls_do_not_take_the_rest_of_their_day_with_them():
    """Most of a day's calls are in seconds; without them the day is an ordinary one."""
    frame = told_rides()
    bad = second_day(frame) & (np.arange(len(frame)) // CALL_RIDES % 8 < 6)
    verdicts = judged(changed(frame, bad, 60.0))
    assert set(verdicts[bad]) == {OFF_BY_FACTOR}
    assert set(verdicts[~bad]) == {SCORED}


@pytest.mark.parametrize(
    ("rides", "wrong", "goes"),
    [(50, 50, True), (49, 49, False), (60, 31, True), (60, 30, False)],
)
def test_a_day_needs_enough_rides_and_more_than_half_of_them_wrong(rides, wrong, goes):
    assert OF_A_DAY.fewest == 50
    frame = told_rides(days=1, a_day=rides)
    verdicts = judged(changed(frame, np.arange(rides) < wrong, 1 / 60), calls=False)
    assert (OFF_BY_FACTOR in verdicts) == goes


@pytest.mark.parametrize(
    ("rides", "wrong", "goes"),
    [(20, 20, True), (19, 19, False), (30, 16, True), (30, 15, False)],
)
def test_a_call_needs_enough_rides_and_more_than_half_of_them_wrong(rides, wrong, goes):
    assert OF_A_CALL.fewest == 20
    frame = told_rides(days=1, a_day=rides).assign(received_at=5.0)
    verdicts = judged(changed(frame, np.arange(rides) < wrong, 60.0))
    assert (OFF_BY_FACTOR in verdicts) == goes


def test_a_call_from_a_crowded_corner_is_believed_and_a_day_like_it_is_not():
    """Twice the usual: real for an hour at one place, and for no whole day."""
    frame = changed(told_rides(days=1), True, 2.0)
    some = frame[:25]
    assert OFF_BY_FACTOR not in judged(some)
    assert set(judged(frame)) == {OFF_BY_FACTOR}


def test_rides_from_nowhere_go_with_their_call_and_decide_nothing():
    frame = changed(told_rides(days=1, a_day=25), True, 60.0)
    nowhere = np.arange(25) < 5
    frame["PULocationID"] = np.where(nowhere, 264, frame["PULocationID"])
    assert set(judged(frame)) == {OFF_BY_FACTOR}
    frame["PULocationID"] = np.where(np.arange(25) < 6, 264, frame["PULocationID"])
    assert OFF_BY_FACTOR not in judged(frame)


def test_empty_streets_are_believed():
    """April 2020: rides took two thirds of the usual time."""
    assert (judged(told_rides(pace=0.65)) == SCORED).all()


def test_untold_rides_have_no_verdict_and_do_not_count():
    frame = told_rides(days=1)
    frame.loc[::2, "true_duration"] = np.nan
    verdicts = judged(frame)
    assert (verdicts[::2] == UNKNOWN).all() and (verdicts[1::2] == SCORED).all()
    assert count_truths(verdicts) == {SCORED: 100}


def test_counts_are_by_code():
    counts = count_truths(np.array([SCORED, SCORED, "", LONG, TOO_FAST, OFF_BY_FACTOR, LONG]))
    assert counts == {SCORED: 2, LONG: 2, TOO_FAST: 1, OFF_BY_FACTOR: 1}
    assert count_of(counts, QUARANTINED) == 2


def test_no_rides_have_no_verdicts():
    empty = Rides.from_dicts([])
    assert judge_truths(np.zeros(0), empty, np.zeros(0)).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("month", ["green_tripdata_2020-04", "green_tripdata_2021-01"])
def test_real_months_are_believed(real_months, month):
    """Lockdown and a usual month; a gate and a card count the rides that are taken out here."""
    path = real_months / "trip-data" / f"{month}.parquet"
    tag = parse_month(month[-7:])
    trips = read_month(path, tag, TripRules(max_minutes=np.inf)).trips
    trips = trips[trips["pickup_at"].dt.strftime("%Y-%m") == str(tag)]
    verdicts = judge_truths(trips["duration"].to_numpy(), Rides.from_frame(trips))
    of_the_rule = trips["duration"].to_numpy() <= truths.LONGEST_MINUTES
    assert OFF_BY_FACTOR not in verdicts
    assert (verdicts[of_the_rule] != SCORED).mean() < 0.001
