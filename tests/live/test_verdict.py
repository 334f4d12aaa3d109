"""The monitor's verdict on disk."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from taxi_duration.domain.findings import Drift, ErrorEstimate, Reason
from taxi_duration.errors import ContentError
from taxi_duration.files import read_json
from taxi_duration.live.verdict import Verdict, read_verdict, write_verdict

VERDICT = Verdict(
    at="2021-03-02T04:05:06+00:00",
    verdict="watch",
    source="green 2021-03",
    model="green-duration:7",
    rides=40,
    answered=30,
    reasons=[Reason("drift", "watch", "hour psi 0.02")],
    errors=[{"by": "overall", "group": "all", "rows": 30, "mae": 3.5, "mae_low": None}],
    drift=[Drift("hour", "psi", 0.02, "", "watch", 0.015, 0.05)],
    truths={"scored": 30, "long": 2},
)
CONTENT = {
    "at": "2021-03-02T04:05:06+00:00",
    "verdict": "watch",
    "source": "green 2021-03",
    "model": "green-duration:7",
    "rides": 40,
    "answered": 30,
    "reasons": [{"kind": "drift", "level": "watch", "text": "hour psi 0.02"}],
    "errors": [{"by": "overall", "group": "all", "rows": 30, "mae": 3.5, "mae_low": None}],
    "drift": [{"feature": "hour", "measure": "psi", "value": 0.02, "unit": "", "level": "watch",
               "watch": 0.015, "alarm": 0.05}],
    "truths": {"scored": 30, "long": 2},
    "estimate": None,
    "last_ride_at": None,
    "last_feedback_at": None,
}  # fmt: skip
NOT_IN_THE_RELEASE_BEFORE = {"truths", "estimate", "last_ride_at", "last_feedback_at"}


@pytest.fixture
def path(home):
    write_verdict(VERDICT)
    return home / "data" / "live" / "monitor.json"


def test_no_verdict_yet_is_none(home):
    assert read_verdict() is None


def test_verdict_is_written_in_the_form_that_pages_read_and_comes_back_whole(path):
    assert read_json(path) == CONTENT
    assert list(read_json(path)) == list(CONTENT)
    assert read_verdict() == VERDICT


def test_verdict_of_the_release_before_is_read(path):
    """It did not say what the truths were, nor what is not known yet."""
    known = {k: v for k, v in CONTENT.items() if k not in NOT_IN_THE_RELEASE_BEFORE}
    path.write_text(json.dumps(known))
    assert read_verdict() == replace(VERDICT, truths={})


def test_what_only_this_release_knows_comes_back_too(path):
    estimate = ErrorEstimate(10, 3.5, 3.2, 3.8, 0.8, 0.77, 0.83)
    drift = [Drift("hour", "psi", 0.02, "", "watch", 0.015, 0.05, noise=0.001)]
    now = replace(
        VERDICT, drift=drift, estimate=estimate, last_ride_at="2021-03-02T04:00:00+00:00",
        last_feedback_at="2021-03-01T04:00:00+00:00",
    )  # fmt: skip
    write_verdict(now)
    assert read_verdict() == now


@pytest.mark.parametrize(("answered", "level"), [(0, "unknown"), (30, "ok")])
def test_ok_over_nothing_of_an_older_release_is_unknown(path, answered, level):
    path.write_text(json.dumps({**CONTENT, "verdict": "ok", "answered": answered, "reasons": []}))
    found = read_verdict()
    assert found.verdict == level
    assert {found.levels()[kind] for kind in ("error", "bias", "coverage")} == {level}


def test_levels_are_the_worst_of_each_kind():
    told = (("drift", "watch"), ("drift", "alarm"), ("bias", "watch"), ("unknown", "unknown"),
            ("new kind", "watch"))  # fmt: skip
    reasons = [Reason(kind, level, "") for kind, level in told]
    found = replace(VERDICT, reasons=reasons).levels()
    assert (found["drift"], found["bias"], found["new kind"]) == ("alarm", "watch", "watch")
    assert (found["error"], found["selection"]) == ("unknown", "ok")


def test_number_of_rides_stays_a_whole_number(path):
    assert isinstance(read_verdict().errors[0]["rows"], int)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "fine"}, "fine"),
        ({"rides": "40"}, "rides is '40', expected is `int`"),
        ({"drift": [{"feature": "hour"}]}, "missing required field `measure`"),
        ({"reasons": None}, "reasons is None"),
    ],
)
def test_verdict_of_another_form_is_refused_by_its_field(path, change, said):
    path.write_text(json.dumps({**CONTENT, **change}))
    with pytest.raises(ContentError, match=r"monitor\.json cannot be read") as error:
        read_verdict()
    assert said in str(error.value)


@pytest.mark.parametrize("name", sorted(CONTENT.keys() - NOT_IN_THE_RELEASE_BEFORE))
def test_verdict_without_one_of_its_fields_is_refused(path, name):
    path.write_text(json.dumps({k: v for k, v in CONTENT.items() if k != name}))
    with pytest.raises(ContentError, match=f"`{name}`"):
        read_verdict()


def test_age_counts_from_when_the_monitor_looked():
    looked = datetime.fromtimestamp(time.time(), UTC) - timedelta(hours=3)
    assert replace(VERDICT, at=looked.isoformat()).age_seconds == pytest.approx(10_800, abs=5)
