"""Judging by the truths that count: what is outside is a measure, what cannot be is held back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cards import make_card, make_month
from truth_sets import changed, told_rides, with_outside

from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import LONG, OFF_BY_FACTOR, SCORED, SHORT
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.health import (
    check_health,
    hold_reason,
    judge_frame,
    live_errors,
    monitor_settings,
    outside_share,
    scored,
)
from taxi_duration.loop.monitor import EMPTY, log_frame, make_verdict

MODEL = "green-duration:1"


def one_model(**wanted):
    sha256 = make_card("LR")["model_sha256"]
    return told_rides(**wanted).assign(model=MODEL, model_sha256=sha256, arm="champion")


def card_of(outside: float):
    """A card whose training months have this share outside, and 100 rows with a bad time."""
    reasons = {"bad_time": 100, "too_short": int(outside * 4000), "too_long": int(outside * 6000)}
    month = {**make_month("2021-01"), "rows_read": 10_100, "reasons": reasons}
    return make_card("LR", months={"train": [month, month], "validation": [make_month("2021-02")]})


def health(frame, outside=0.05):
    return check_health("live log", frame, card_of(outside), EMPTY)


def test_only_scored_truths_count():
    frame = with_outside(changed(one_model(), np.arange(600) // 25 == 3, 60.0))
    frame.loc[::7, "true_duration"] = np.nan
    kept = scored(frame)
    assert list(kept.index) == [i for i, v in enumerate(judge_frame(frame)) if v == SCORED]
    assert kept["true_duration"].between(1, 60).all()
    assert scored(log_frame([])).empty


def test_errors_are_those_of_the_rides_of_the_rule():
    """What a card and a gate count: 5 % outside and a day in seconds change nothing."""
    frame = one_model(days=6)
    day = frame["pickup_at"].dt.day == 2
    told = with_outside(changed(frame, day, 60.0))
    found = health(told)
    same = (told["true_duration"] == frame["true_duration"]) & ~day
    assert found.answered == same.sum()
    pd.testing.assert_frame_equal(found.errors, live_errors(frame[same]))
    assert found.truths == {SCORED: same.sum(), OFF_BY_FACTOR: 200, SHORT: 25, LONG: 25}


def test_no_model_moves_the_truth():
    """A bad model may not pass by having the truth called wrong."""
    frame = with_outside(one_model())
    awful = frame.assign(duration=600.0, p10=500.0, p90=700.0)
    assert (judge_frame(frame) == judge_frame(awful)).all()


def test_versions_beside_are_judged_by_the_same_rule():
    both = with_outside(told_rides())
    found = check_health("live log", both, card_of(0.05), EMPTY, compare=True)
    rows = found.errors[found.errors["by"].isin(["version", "arm"])].set_index("group")["rows"]
    kept = scored(both)
    assert rows.to_dict() == {**kept["model"].value_counts(), **kept["arm"].value_counts()}


def test_without_the_errors_of_groups_the_verdict_is_the_same():
    frame = one_model().assign(duration=lambda rides: rides["duration"] + 9.0)
    whole = health(frame)
    short = check_health("live log", frame, card_of(0.05), EMPTY, in_groups=False)
    assert len(whole.errors) > 1 and list(short.errors["by"]) == ["overall"]
    assert short.overall() == whole.overall()
    assert whole.reasons and short.reasons == whole.reasons


# --- the share outside --------------------------------------------------------------------


def test_share_outside_of_the_training_months_is_of_rides_with_a_time():
    assert outside_share(card_of(0.05)) == pytest.approx(0.05)
    assert outside_share({}) is None
    assert outside_share({"months": {"train": []}}) is None


@pytest.mark.parametrize(("usual", "level"), [(0.03, None), (0.02, "watch"), (0.01, "alarm")])
def test_more_rides_outside_than_in_training_are_watched_then_alarm(usual, level):
    found = health(with_outside(one_model(days=6)), usual)
    levels = {reason.kind: reason.level for reason in found.reasons}
    assert levels.get("outside") == level
    if level:
        (text,) = (reason.text for reason in found.reasons if reason.kind == "outside")
        said = f"5.0% of the true durations lie outside 1-60 min, {usual:.1%} did in the training"
        assert text.startswith(said)
    assert not found.is_wrong  # the answers may be right


def test_share_outside_is_judged_by_its_near_end_and_not_on_few_truths():
    few = with_outside(one_model(days=1, a_day=monitor_settings().min_answered - 1), 0.2)
    assert "outside" not in {reason.kind for reason in health(few, 0.01).reasons}
    assert {r.kind for r in health(with_outside(one_model(days=1), 0.2), 0.01).reasons} >= {
        "outside"
    }


# --- what cannot be -----------------------------------------------------------------------


def test_too_much_that_cannot_be_holds_decisions_back_and_says_what_to_do():
    frame = changed(one_model(days=6), np.arange(1200) // 200 == 2, 60.0)
    received = frame["received_at"][400:600]
    assert (received.min(), received.max()) == (1e9 + 16 * 60, 1e9 + 23 * 60)
    reason = hold_reason(frame)
    assert reason == (
        "200 of 1,200 true durations cannot be their rides' (200 off_by_factor); `python "
        "pipeline.py feedback void --from 2001-09-08T22:02:40-04:00 --to "
        "2001-09-08T22:09:41-04:00` takes out what was received then, and the right ones may be "
        "sent again"
    )
    found = health(frame)
    assert found.hold == reason
    assert [(r.kind, r.level, r.text) for r in found.reasons if r.kind == "truth"] == [
        ("truth", "watch", reason)
    ]


def test_the_share_that_holds_decisions_back_is_a_bound():
    n = 1000
    most = int(monitor_settings().max_quarantined_share * n)
    frame = one_model(days=5).assign(received_at=np.arange(n))
    jfk_to_bronx = {"PULocationID": 132, "DOLocationID": 259, "true_duration": 2.0}
    for count, held in ((0, False), (most, False), (most + 1, True)):
        some = frame.copy()
        some.loc[np.linspace(0, n - 1, count).astype(int), list(jfk_to_bronx)] = list(
            jfk_to_bronx.values()
        )
        assert (hold_reason(some) is not None) == held
    assert hold_reason(log_frame([])) is None


def test_rides_of_unknown_receipt_hold_back_without_a_command():
    frame = changed(one_model(), True, 60.0).drop(columns="received_at")
    assert (
        hold_reason(frame) == "600 of 600 true durations cannot be their rides' (600 off_by_factor)"
    )


def test_the_verdict_says_what_the_truths_were():
    found = health(with_outside(one_model()))
    assert make_verdict(found).truths == found.truths == {SCORED: 570, SHORT: 15, LONG: 15}


def test_drift_of_durations_is_that_of_the_scored_ones():
    """Training months have no others: a day in seconds is no longer traffic."""
    frame = one_model(days=8)
    reference = Sample(Rides.from_frame(frame), None, frame["true_duration"].to_numpy())
    told = with_outside(changed(frame, frame["pickup_at"].dt.day == 2, 60.0))
    found = check_health("live log", told, card_of(0.05), reference)
    (shift,) = (d.value for d in found.drifts if (d.feature, d.measure) == ("duration", "shift"))
    assert shift < 0.5
