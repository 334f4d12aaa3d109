"""The monitor's first line: what a tired person must know, the worst first."""

from __future__ import annotations

import pytest

from serve.core.headline import headline
from taxi_duration.domain.findings import Reason
from taxi_duration.live.verdict import Verdict
from taxi_duration.timestamps import DAY_SECONDS

NOW = 1_800_000_000.0


def row(**changes):
    """A champion's figures of the log: 400 scored rides, off by 3.1 to 3.5 minutes."""
    usual = {"model": "green-duration:1", "arm": "champion", "scored": 400,
             "mean_error": 3.3, "error_low": 3.1, "error_high": 3.5}  # fmt: skip
    return {**usual, **changes}


def said(*, serving=True, verdict=None, expected=(3.2, 3.9), troubles=(), **log):
    """The line of a service that is well but for these."""
    champion = {"model": "green-duration:1", "validation_mae": list(expected)}
    content = {
        "at": NOW,
        "serving": {"champion": champion} if serving else None,
        "trouble": list(troubles),
        "verdict": verdict,
        "log": {"trouble": None, "models": [row()], "last_ride_at": NOW - 60,
                "last_feedback_at": NOW - 600, **log},
    }  # fmt: skip
    found = headline(content)
    return found["level"], found["text"]


def verdict(*reasons, model="green-duration:1"):
    found = [Reason("error", level, f"so it is: {level}") for level in reasons]
    return Verdict("2027-01-15T08:00:00+00:00", "ok", "live log", model, 400, 400, found, [], [])


def test_all_is_well():
    assert said() == (
        "ok", "Fine: answers are off by 3.3 minutes, as on the validation month.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "level", "text"),
    [
        (3.95, 4.2, "watch", "Answers are off by 3.3 minutes, more than the 3.9"),
        (3.85, 4.2, "ok", "as on the validation month"),
        (2.8, 3.25, "ok", "as on the validation month"),
        (2.8, 3.15, "ok", "less than the 3.2"),
    ],
)
def test_the_error_is_compared_beyond_noise(low, high, level, text):
    found = said(models=[row(error_low=low, error_high=high)])
    assert found[0] == level
    assert text in found[1]


def test_a_card_without_figures_is_compared_with_nothing():
    assert said(expected=()) == (
        "unknown", "Answers are off by 3.3 minutes; what to expect is not known.",
    )  # fmt: skip


def test_no_model_comes_before_everything():
    level, text = said(serving=False, trouble="disk", verdict=verdict("alarm"))
    assert (level, text) == ("alarm", "Nobody is answered: no model serves.")


def test_a_log_that_cannot_be_read_is_an_alarm():
    assert said(trouble="disk full")[0] == "alarm"
    assert "disk full" in said(trouble="disk full")[1]


def test_what_is_in_the_way_comes_before_what_was_found():
    level, text = said(troubles=["a bundle was refused", "more"], verdict=verdict("alarm"))
    assert (level, text) == ("watch", "To be watched: a bundle was refused")


@pytest.mark.parametrize(
    ("ride", "text"),
    [
        (None, "No ride was asked for yet."),
        (NOW - 3 * DAY_SECONDS - 5, "No ride for 3 days."),
        (NOW - DAY_SECONDS - 1, "No ride for 1 day."),
    ],
)
def test_nobody_asks(ride, text):
    assert said(last_ride_at=ride) == ("unknown", text)


def test_a_day_without_rides_is_not_yet_silence():
    assert said(last_ride_at=NOW - DAY_SECONDS + 1)[0] == "ok"


@pytest.mark.parametrize(
    ("told", "level", "text"),
    [
        (None, "unknown", "No feedback yet"),
        (NOW - 3 * DAY_SECONDS - 5, "watch", "No feedback for 3 days"),
    ],
)
def test_nobody_tells(told, level, text):
    found = said(last_feedback_at=told)
    assert found[0] == level
    assert found[1].startswith(text)


def test_what_the_monitor_found_is_told_the_worst_first():
    assert said(verdict=verdict("ok", "watch", "alarm")) == (
        "alarm", "Look at this: so it is: alarm",
    )  # fmt: skip
    assert said(verdict=verdict("ok", "watch"))[0] == "watch"
    assert said(verdict=verdict("ok"))[0] == "ok"
    assert said(verdict=verdict())[0] == "ok"


def test_a_verdict_on_another_version_says_nothing_of_this_one():
    assert said(verdict=verdict("alarm", model="green-duration:9"))[0] == "ok"


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ([row(scored=29)], "Too early to tell: true durations that count so far: 29."),
        ([row(arm="challenger")], "was asked for no ride yet"),
        ([row(model="green-duration:2")], "was asked for no ride yet"),
        ([], "was asked for no ride yet"),
    ],
)
def test_too_little_is_no_judgement(models, text):
    level, found = said(models=models)
    assert level == "unknown"
    assert text in found


def test_the_champions_row_is_meant_whatever_its_place():
    assert said(models=[row(arm="challenger", scored=2), row()])[0] == "ok"
