"""Champion and challenger: who answers, who answers in the shadow, and what is logged."""

from __future__ import annotations

import pytest
from service_samples import RIDE

from taxi_duration.live.arms import arm_of
from taxi_duration.live.deployment import deploy_champion, set_challenger


@pytest.fixture
def start(registered, make_app):
    """Start a service with version 2 challenging version 1."""

    def start(**test):
        deploy_champion(registered[1], "first")
        set_challenger(registered[2], "test", **test)
        return make_app()

    return start


def rides(n: int) -> list[dict]:
    return [{**RIDE, "ride_id": f"ride-{i}"} for i in range(n)]


def test_arms_are_those_of_the_hash_of_the_ride_id(start, registered):
    client = start(ab_share=0.5).test_client()
    answers = [client.post("/predict", json=ride).json for ride in rides(60)]
    salt = registered[2].sha256
    assert [a["arm"] for a in answers] == [arm_of(f"ride-{i}", 0.5, salt) for i in range(60)]
    assert {a["arm"] for a in answers} == {"champion", "challenger"}


def test_an_array_is_split_as_its_rides_would_be_alone(start):
    client = start(ab_share=0.5).test_client()
    single = [client.post("/predict", json=ride).json for ride in rides(60)]
    many = client.post("/predict", json=rides(60)).json
    assert [a["model"] for a in many] == [a["model"] for a in single]
    assert [a["duration"] for a in many] == pytest.approx([a["duration"] for a in single], abs=1e-4)


def test_the_arm_says_which_model_answered(start):
    answers = start(ab_share=0.5).test_client().post("/predict", json=rides(60)).json
    assert {(a["arm"], a["model"]) for a in answers} == {
        ("champion", "green-duration:1"),
        ("challenger", "green-duration:2"),
    }


def test_the_log_keeps_the_arm(start, log):
    answers = start(ab_share=0.5).test_client().post("/predict", json=rides(30)).json
    rows = {row["prediction_id"]: row for row in log.answered()}
    assert all(rows[a["prediction_id"]]["arm"] == a["arm"] for a in answers)
    assert all(rows[a["prediction_id"]]["model"] == a["model"] for a in answers)


@pytest.mark.parametrize(("share", "arm"), [(0.0, "champion"), (1.0, "challenger")])
def test_shares_of_nothing_and_of_all(start, share, arm):
    client = start(ab_share=share).test_client()
    answers = client.post("/predict", json=[RIDE] * 30).json
    assert {a["arm"] for a in answers} == {arm}


@pytest.mark.parametrize("content", [RIDE, [RIDE, RIDE, RIDE]])
def test_shadow_answers_are_logged_and_not_given(start, log, models, content):
    response = start(shadow=True).test_client().post("/predict", json=content).json
    answers = response if isinstance(response, list) else [response]
    rows = list(log.answered())
    assert {a["model"] for a in answers} == {"green-duration:1"}
    assert [row["shadow_model"] for row in rows] == ["green-duration:2"] * len(answers)
    assert all(row["shadow_duration"] != row["duration"] for row in rows)


def test_rides_of_the_challenger_have_no_shadow(start, log):
    start(ab_share=1.0, shadow=True).test_client().post("/predict", json=RIDE)
    assert [row["shadow_model"] for row in log.answered()] == [None]


class Broken:
    """A challenger that passes its checks and then fails."""

    def answer(self, *_):
        raise RuntimeError("out of order")


@pytest.mark.parametrize("content", [RIDE, [RIDE, RIDE]])
@pytest.mark.parametrize("test", [{"ab_share": 1.0}, {"shadow": True}])
def test_a_challenger_that_fails_costs_nobody_an_answer(start, content, test):
    app = start(**test)
    challenger = app.extensions["taxi"].holder.serving.challenger
    object.__setattr__(challenger, "predictor", Broken())
    object.__setattr__(challenger, "model", Broken())
    client = app.test_client()
    response = client.post("/predict", json=content)
    answers = response.json if isinstance(response.json, list) else [response.json]
    assert response.status_code == 200
    assert {a["arm"] for a in answers} == {"champion"}
    line = 'taxi_model_failures_total{arm="challenger",version="green-duration:2"} 1.0'
    assert line in client.get("/metrics").text


def test_metrics_are_by_arm(start):
    client = start(ab_share=1.0).test_client()
    client.post("/predict", json=[RIDE] * 5)
    line = 'taxi_predictions_total{arm="challenger",version="green-duration:2"} 5.0'
    assert line in client.get("/metrics").text
