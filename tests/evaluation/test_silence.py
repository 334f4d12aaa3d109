"""Too little to judge, and logs in which nothing comes in any more."""

from __future__ import annotations

import pytest

from taxi_duration.domain.findings import Reason
from taxi_duration.evaluation.silence import Activity, judge_amount, judge_silence

HOUR = 3600.0
NOW = 1_614_600_000.0  # 2021-03-01 12:00 UTC


def silent(ride_hours, feedback_hours, allowed=(24, 48)):
    """What is said when ride and feedback came so many hours ago; None for never."""
    times = (None if h is None else NOW - h * HOUR for h in (ride_hours, feedback_hours))
    return judge_silence(Activity(*times, NOW), *allowed)


@pytest.mark.parametrize(("answered", "said"), [(199, 1), (200, 0)])
def test_truths_are_enough_from_the_bound_on(answered, said):
    assert len(judge_amount(500, answered, 200)) == said


def test_what_is_missing_is_said_with_numbers():
    (reason,) = judge_amount(1500, 12, 200)
    assert reason == Reason(
        "unknown", "unknown", "12 of the 200 true durations that are needed have come, for 1,500 "
        "rides: how right the answers are is not known",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ride", "feedback", "words"),
    [
        (24, 48, []),
        (25, 48, ["no ride came since 2021-02-28 11:00 UTC, for 1.0 days"]),
        (1, 72, ["no true duration came since 2021-02-26 12:00 UTC, for 3.0 days"]),
        (1, None, ["no true duration ever came"]),
        (None, None, ["no ride was ever answered"]),
        (600, 360, ["no ride came since 2021-02-04 12:00 UTC, for 25.0 days",
                    "no true duration came since 2021-02-14 12:00 UTC, for 15.0 days"]),
    ],
)  # fmt: skip
def test_silence_is_said_with_its_beginning(ride, feedback, words):
    found = silent(ride, feedback)
    assert [reason.text for reason in found] == words
    assert {(reason.kind, reason.level) for reason in found} <= {("silence", "unknown")}
