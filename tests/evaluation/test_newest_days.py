"""The newest day alone, and what two days say together."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.findings import Reason
from taxi_duration.evaluation.newest_days import join_days, newest_days

START = np.datetime64("2021-03-01T00:00:00")


def pickups(days, a_day):
    """So many pickups a day at even distances, from midnight on."""
    return START + (np.arange(days * a_day) * (86_400 // a_day)).astype("m8[s]")


def test_days_are_whole_and_the_newest_comes_first():
    at = pickups(days=5, a_day=24) + np.timedelta64(9, "h")  # the last is at 8 in the morning
    newest, before = newest_days(at, fewest=20)
    assert newest.sum() == before.sum() == 24
    assert at[newest].min() == np.datetime64("2021-03-05T09:00:00")
    assert at[before].max() == np.datetime64("2021-03-05T08:00:00")
    for day in (newest, before):  # every hour of the day is in it
        assert len(set(at[day].astype("datetime64[h]").astype(int) % 24)) == 24


def test_days_are_joined_until_they_have_enough_rides():
    at = pickups(days=6, a_day=24)
    newest, before = newest_days(at, fewest=50)
    assert (newest.sum(), before.sum()) == (72, 72)
    assert not (newest & before).any()


@pytest.mark.parametrize(("fewest", "blocks"), [(24, 2), (40, 1), (49, 0)])
def test_days_without_enough_rides_are_none(fewest, blocks):
    assert len(newest_days(pickups(days=2, a_day=24), fewest)) == blocks


def test_no_rides_have_no_days():
    assert newest_days(pickups(0, 24), 1) == []


def test_ride_of_a_wrong_clock_is_not_the_newest_day():
    at = np.append(pickups(days=5, a_day=240), np.datetime64("2031-01-01T00:00:00"))
    newest, _ = newest_days(at, fewest=200)
    assert newest.sum() == 240 and not newest[-1]


@pytest.mark.parametrize(
    ("newest", "before", "level"),
    [("alarm", "alarm", "alarm"), ("alarm", "ok", "watch"), ("alarm", "watch", "watch"),
     ("watch", "watch", "watch"), ("watch", "alarm", "watch"), ("watch", "ok", None),
     ("ok", "alarm", None)],
)  # fmt: skip
def test_alarm_needs_two_days_and_one_is_watched(newest, before, level):
    """A storm of one day passes."""
    days = [{} if each == "ok" else {"hour.psi": Reason("drift", each, each)}
            for each in (newest, before)]  # fmt: skip
    found = join_days(days)
    assert [reason.level for reason in found] == ([] if level is None else [level])
    assert all(reason.text == f"the newest day alone: {newest}" for reason in found)


def test_two_measures_on_two_days_are_no_alarm():
    days = [{"hour.psi": Reason("drift", "alarm", "a")}, {"error": Reason("error", "alarm", "b")}]
    assert [reason.level for reason in join_days(days)] == ["watch"]


def test_first_day_alone_is_watched_at_most():
    assert join_days([{"error": Reason("error", "alarm", "a")}])[0].level == "watch"
    assert join_days([]) == []
