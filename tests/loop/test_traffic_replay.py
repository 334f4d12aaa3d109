"""The replay of the live traffic: what each ride may know, and what false truths may do."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.loop.traffic_replay import AnsweredRides, TrafficReplay, given_minutes

MANHATTAN = 2
DAYS = 3
START = np.datetime64("2021-02-01T00:00:00")


def rides_of(ratio: np.ndarray | float = 1.0, known_at: np.ndarray | None = None) -> AnsweredRides:
    """A ride a minute, answered 12 minutes; truths are a ratio of that, with chance errors."""
    n = DAYS * 1440
    chance = np.exp(np.random.default_rng(5).normal(-0.02, 0.25, n))
    base = np.full(n, 12.0)
    pickup_at = START + np.arange(n).astype("timedelta64[m]")
    return AnsweredRides(pickup_at, np.full(n, MANHATTAN), base * ratio * chance, base, known_at)


def saving(rides: AnsweredRides, truth: np.ndarray | None = None) -> float:
    """What the factors save of the error, 0 to 1."""
    truth = rides.truth if truth is None else truth
    given = given_minutes(rides.base, TrafficReplay().factors(rides))
    return 1 - float(np.abs(given - truth).mean() / np.abs(rides.base - truth).mean())


def flips(hours: int, size: float = 1.3) -> np.ndarray:
    """Hours with long rides and hours with short ones in turn."""
    hour = np.arange(DAYS * 1440) // 60
    return np.where(hour // hours % 2, size, 1 / size)


def test_a_planted_day_of_slow_traffic_is_found_again():
    slow = np.where(np.arange(DAYS * 1440) // 1440 == 1, 1.3, 1.0)
    rides = rides_of(slow)
    factors = TrafficReplay().factors(rides)
    noon = 1440 + 720
    assert factors[noon] == pytest.approx(1.3, abs=0.1)
    assert factors[noon - 1440] == pytest.approx(1.0, abs=0.06)
    assert saving(rides) > 0.07


@pytest.mark.parametrize("end", [1000, 2161])
def test_later_rides_change_nothing(end):
    rides = rides_of(flips(6))
    later = rides.truth.copy()
    later[end:] *= 2
    factors = TrafficReplay().factors(rides)
    other = TrafficReplay().factors(rides._replace(truth=later))
    np.testing.assert_array_equal(factors[: end + 1], other[: end + 1])
    assert not np.array_equal(factors, other)


def test_a_ride_that_has_not_ended_is_not_known():
    """Rides take 50 minutes: nobody who asks within the first 50 has heard of any."""
    rides = rides_of()
    long = rides._replace(
        truth=np.full(len(rides.truth), 50.0), base=np.full(len(rides.base), 40.0)
    )
    factors = TrafficReplay().factors(long)
    assert (factors[:60] == 1.0).all()
    assert factors[61] > 1.0


def test_days_one_by_one_give_what_all_at_once_does():
    rides = rides_of(flips(6))
    replay = TrafficReplay()
    days = [replay.factors(rides.part(at, at + 1440)) for at in range(0, DAYS * 1440, 1440)]
    np.testing.assert_allclose(np.concatenate(days), TrafficReplay().factors(rides))


def test_levels_for_more_hours_give_the_same_but_for_the_loss():
    """The slope of the proof needs no given factors; the loss stays far from its bound here."""
    rides = rides_of(flips(6))
    np.testing.assert_allclose(
        TrafficReplay(hours=6).factors(rides), TrafficReplay().factors(rides), rtol=0.02
    )


def test_a_truth_told_late_counts_from_then_on():
    slow, n = 1.2, DAYS * 1440
    minute = int(START.astype("datetime64[m]").astype("int64")) + np.arange(n)
    next_morning = (minute // 1440 + 1) * 1440 + 360.0
    factors = TrafficReplay().factors(rides_of(slow, next_morning))
    told = 1440 + 360
    assert (factors[:told] == 1.0).all()
    assert factors[told + 60] > 1.05  # from the next hour on


def test_a_truth_that_is_never_told_or_not_scored_counts_for_nothing():
    rides = rides_of(1.3)
    never = rides._replace(known_at=np.full(len(rides.truth), np.inf))
    unknown = rides._replace(truth=np.full(len(rides.truth), np.nan))
    too_long = rides._replace(truth=rides.truth + 60)
    for silent in (never, unknown, too_long):
        assert (TrafficReplay().factors(silent) == 1.0).all()


def test_a_level_that_the_next_hour_belies_is_not_applied():
    """What the last hour said is wrong for this one, again and again: the proof sees it."""
    assert saving(rides_of(flips(1))) > -0.003
    assert saving(rides_of(flips(12))) > 0.1


def test_noise_as_feedback_costs_nothing():
    truth = rides_of().truth
    noise = 12 * np.exp(np.random.default_rng(6).normal(-0.02, 0.4, len(truth)))
    assert saving(rides_of()._replace(truth=noise), truth) > -0.005


@pytest.mark.parametrize("false", [3.0, 0.2])
def test_a_fifth_of_false_truths_costs_little(false):
    rides = rides_of()
    lies = np.random.default_rng(6).random(len(rides.truth)) < 0.2
    told = np.clip(np.where(lies, rides.truth * false, rides.truth), 1, 60)
    assert saving(rides._replace(truth=told), rides.truth) > -0.02


def test_seconds_sent_as_minutes_cost_nothing():
    rides = rides_of()
    seconds = rides.truth * 60  # only rides below a minute would pass as minutes
    assert saving(rides._replace(truth=seconds), rides.truth) == 0
    one_in_five = np.where(np.arange(len(seconds)) % 5 == 0, seconds, rides.truth)
    assert saving(rides._replace(truth=one_in_five), rides.truth) > -0.01


def test_no_factor_carries_an_answer_out_of_a_trips_limits():
    base = np.array([0.5, 1.2, 30.0, 50.0, 70.0])
    assert given_minutes(base, np.full(5, 1.7)).tolist() == [0.85, 2.04, 51.0, 60.0, 70.0]
    assert given_minutes(base, np.full(5, 0.6)).tolist() == [0.5, 1.0, 18.0, 30.0, 42.0]
