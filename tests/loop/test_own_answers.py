"""Models are compared by their own answers; what riders got with live traffic is told beside.

Rows go through a real log: what is not in its columns cannot be judged by.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_testing import CHALLENGER, CHAMPION, DAY, SINCE, World, begin, look

from taxi_duration.evaluation.health import check_health, live_errors, monitor_settings, scored
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop import pipeline_world
from taxi_duration.loop.monitor import log_frame, make_verdict

DAYS, A_DAY = 10, 40
TRAFFIC = {CHAMPION: 1.25, CHALLENGER: 0.8}  # of two levels, as a promoted version has its own
CARD = {
    "name": "green-duration", "version": 1, "data_source": "tlc", "model_sha256": CHAMPION.sha256,
    "metrics": {"with_distance": {"mae": 1.0}, "without_distance": {"mae": 1.0},
                "coverage": 0.8, "bias": 0.0, "outside_share": 0.0},
}  # fmt: skip


def answer(version, minutes, in_traffic):
    """The columns of an answer, given in traffic or as the model made it."""
    base = {"duration": minutes, "p10": minutes - 3, "p50": minutes, "p90": minutes + 3}
    row = {"model": version.ref, "model_sha256": version.sha256, **base}
    if not in_traffic:
        return row
    factor = TRAFFIC[version]
    given = {name: value * factor for name, value in base.items()}
    return {**row, **given, "traffic": factor, **{f"base_{k}": v for k, v in base.items()}}


def log_rides(champion_off, challenger_off=1.0, in_traffic=True, swapped=False):
    """Ten days of rides whose answers are off by so many minutes before any traffic."""
    rng, log = np.random.default_rng(3), open_log()
    rows, shadows, truths = [], [], []
    for i in range(DAYS * A_DAY):
        day, truth = i // A_DAY, float(rng.uniform(20, 28))
        versions = {
            "champion": (CHAMPION, champion_off),
            "challenger": (CHALLENGER, challenger_off),
        }
        answers = {
            arm: answer(version, truth + off + float(rng.normal(0, 0.1)), in_traffic)
            for arm, (version, off) in versions.items()
        }
        arm = "challenger" if swapped and i % 3 == 0 else "champion"
        (beside,) = answers.keys() - {arm}
        rows.append({
            **answers[arm], "prediction_id": f"{i:032x}", "ride_id": f"r{i}",
            "asked_at": SINCE + day * DAY + i % A_DAY, "PULocationID": 74, "DOLocationID": 42,
            "pickup_at": f"2021-03-{day + 1:02d}T{8 + i % 12:02d}:00:00", "trip_distance": 3.0,
            "support": 50, "used_distance": True, "arm": arm, "latency_ms": 0.2,
        })  # fmt: skip
        shadows.append({"prediction_id": f"{i:032x}", **answers[beside]})
        truths.append({"prediction_id": f"{i:032x}", "duration": truth})
    log.add(rows, shadows)
    log.add_feedback(truths)
    frame = log_frame(log.answered(pair=(CHAMPION.sha256, CHALLENGER.sha256)))
    log.close()
    return frame


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test has a log and a deployment of its own."""


@pytest.mark.parametrize("swapped", [False, True])
def test_a_frame_of_the_log_holds_own_answers_and_those_given(swapped):
    plain = log_rides(1.0, 2.0, in_traffic=False, swapped=swapped)
    assert plain["given_duration"].tolist() == plain["duration"].tolist()


def test_own_answers_are_the_same_whatever_the_traffic(home):
    frame = log_rides(1.0, 2.0)
    for name in ("duration", "p10", "p50", "p90"):
        np.testing.assert_allclose(frame[f"given_{name}"], 1.25 * frame[name])
    np.testing.assert_allclose(frame["shadow_duration"], frame["true_duration"] + 2, atol=0.6)
    np.testing.assert_allclose(frame["shadow_p90"], frame["true_duration"] + 5, atol=0.6)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_challenger_does_not_win_because_traffic_helped_it(swapped):
    """With traffic it is right (30 x 0.8), and the champion 25 % off; alone it is worse."""
    frame = log_rides(0.5, 6.0, swapped=swapped)
    assert frame["given_duration"].sub(frame["true_duration"]).abs().mean() > 3
    found = look(begin("shadow"), World(frame)).numbers["test"]
    assert found["verdict"] == "worse"
    assert found["gain_min"] == pytest.approx(-5.5, abs=0.1)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_better_challenger_wins_though_traffic_harmed_it(swapped):
    frame = log_rides(4.0, 0.5, swapped=swapped)
    found = look(begin("shadow"), World(frame)).numbers["test"]
    assert found["verdict"] == "better"
    assert found["gain_min"] == pytest.approx(3.5, abs=0.1)


@pytest.mark.parametrize(("off", "level"), [(0.0, "right"), (-4.8, "wrong")])
def test_the_monitor_judges_own_answers_and_tells_those_given(off, level):
    """At -4.8 the traffic puts answers right, and the model is wrong all the same."""
    own = log_rides(off)
    found = check_health("live log", own, CARD, None)
    assert found.is_wrong == (level == "wrong")
    assert found.overall()["mae"] == pytest.approx(abs(off), abs=0.15)
    (given,) = [row for row in make_verdict(found).errors if row["by"] == "given"]
    assert given["rows"] == len(scored(own)) >= monitor_settings().min_answered
    assert given["mae"] == pytest.approx(abs(1.25 * (24 + off) - 24), abs=0.7)


def test_there_is_nothing_to_tell_where_no_answer_had_traffic():
    assert "given" not in set(live_errors(log_rides(1.0, in_traffic=False))["by"])


def test_going_back_is_judged_by_own_answers(monkeypatch):
    """Both were equally near; only the given answers of the one that serves were worse."""
    frame = log_rides(1.0)

    class Earlier:
        def answer(self, rides):
            return type("Answers", (), {"duration": frame["true_duration"].to_numpy() + 1.0})

    monkeypatch.setattr(pipeline_world, "recent_rides", lambda *_: frame)
    monkeypatch.setattr(pipeline_world, "load_version", lambda _: (Earlier(), {}))
    world = object.__new__(pipeline_world.PipelineWorld)
    world.prediction_log = None
    gain, rides = world.compare_live(CHAMPION, CHALLENGER)
    assert rides == DAYS * A_DAY
    assert gain.value == pytest.approx(0.0, abs=0.05)
