"""Champion and challenger: who answers, who answers in the shadow, and what is logged."""

from __future__ import annotations

import io
import time
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from service_samples import RIDE

from serve.bodies.parquet import PARQUET_TYPES
from serve.core import answering
from taxi_duration.domain.rides import Rides
from taxi_duration.live.arms import arm_of
from taxi_duration.live.deployment import deploy_champion, set_challenger
from taxi_duration.live.spool import SpoolWriter


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


def ask_one(client, rides):
    return [client.post("/predict", json=ride).json for ride in rides]


def ask_explained(client, rides):
    return client.post("/predict?explain=true", json=rides).json


def ask_array(client, rides):
    return client.post("/predict", json=rides).json


def ask_parquet(client, rides):
    body = io.BytesIO()
    times = [{"pickup_datetime": datetime.fromisoformat(ride["pickup_datetime"])} for ride in rides]
    rows = [{**ride, **time} for ride, time in zip(rides, times, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), body)
    return client.post("/predict", data=body.getvalue(), content_type=PARQUET_TYPES[0]).json


def ask_as_mlflow(client, rides):
    answers = client.post("/invocations", json={"dataframe_records": rides}).json
    return [
        {**one, "prediction_id": key}
        for one, key in zip(answers["predictions"], answers["prediction_ids"], strict=True)
    ]


every_path = pytest.mark.parametrize(
    "ask", [ask_one, ask_explained, ask_array, ask_parquet, ask_as_mlflow]
)
MINUTES = ("duration", "p10", "p50", "p90")
ASKED = ("PULocationID", "DOLocationID", "trip_distance", "pickup_at")


def said(model, asked) -> list[tuple[list[float], tuple[int, bool]]]:
    """What a model says to each ride: minutes in the order of MINUTES; support and its use."""
    answers = model.answer(Rides.from_dicts(asked))
    minutes = np.stack([getattr(answers, name) for name in MINUTES], axis=1).tolist()
    of_each = zip(answers.support.tolist(), answers.used_distance.tolist(), strict=True)
    return list(zip(minutes, of_each, strict=True))


@pytest.fixture(params=[1, answering.APART_RIDES], ids=["apart", "in turn"])
def apart(request, monkeypatch):
    """The other version answers an array on a thread of its own, or after the rider's."""
    monkeypatch.setattr(answering, "APART_RIDES", request.param)


@every_path
@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_both_versions_answer_every_ride_and_the_rider_gets_his_arms(
    start, log, models, ask, share
):
    """Whole answers are compared: each of the two models' own, beside each other."""
    asked = [{**ride, "trip_distance": 1.0 + i / 10} for i, ride in enumerate(rides(40))]
    given = ask(start(ab_share=share).test_client(), asked)
    rows = {row["prediction_id"]: row for row in log.answered()}
    arms = {rows[answer["prediction_id"]]["arm"] for answer in given}
    assert arms == {0.0: {"champion"}, 0.5: {"champion", "challenger"}, 1.0: {"challenger"}}[share]
    says = {number: said(models[number], asked) for number in (1, 2)}
    for i, (ride, answer) in enumerate(zip(asked, given, strict=True)):
        row = rows[answer["prediction_id"]]
        theirs = {"champion": 1, "challenger": 2}[row["arm"]]
        assert (row["model"], row["shadow_model"]) == (
            f"green-duration:{theirs}", f"green-duration:{3 - theirs}",
        )  # fmt: skip
        assert row["ride_id"] == (None if ask is ask_parquet else ride["ride_id"])
        assert {name: row[name] for name in ASKED} == {
            "PULocationID": 74, "DOLocationID": 42, "trip_distance": pytest.approx(
                ride["trip_distance"]), "pickup_at": RIDE["pickup_datetime"],
        }  # fmt: skip
        minutes, of_it = says[theirs][i]
        assert (row["support"], row["used_distance"]) == of_it
        assert answer["duration"] == pytest.approx(row["duration"])
        assert [row[name] for name in MINUTES] == pytest.approx(minutes, abs=1e-3)
        minutes, _ = says[3 - theirs][i]
        assert [row[f"shadow_{name}"] for name in MINUTES] == pytest.approx(minutes, abs=1e-3)


def split_in(monkeypatch, model, cores: int) -> list[int]:
    """Split arrays for so many cores; return the list of lengths that the model is asked for."""
    monkeypatch.setattr(answering, "CORE_RIDES", 3)
    monkeypatch.setattr(answering, "usable_cores", lambda: cores)
    asked, answer = [], model.model.answer

    def noted(rides):
        asked.append(len(rides))
        return answer(rides)

    object.__setattr__(model, "model", SimpleNamespace(answer=noted))
    return asked


@pytest.mark.parametrize(
    ("cores", "n", "lengths"),
    [(1, 14, [14]), (2, 5, [5]), (2, 7, [3, 4]), (3, 14, [4, 5, 5]), (64, 14, [3, 3, 4, 4])],
)
def test_the_parts_of_an_array_are_answered_as_the_whole(
    registered, make_app, monkeypatch, cores, n, lengths
):
    deploy_champion(registered[1], "first")
    app = make_app()
    champion = app.extensions["taxi"].holder.serving.champion
    model = champion.model
    asked = [{**ride, "PULocationID": i + 1} for i, ride in enumerate(rides(n))]
    found = split_in(monkeypatch, champion, cores)
    answers = ask_array(app.test_client(), asked)
    assert sorted(found) == lengths
    minutes = [[a["duration"], *a["interval"].values()] for a in answers]
    assert [
        (m, (a["support"], a["used_distance"])) for m, a in zip(minutes, answers, strict=True)
    ] == (said(model, asked))


def test_an_array_with_a_shadow_leaves_the_cores_to_both(start, monkeypatch):
    monkeypatch.setattr(answering, "APART_RIDES", 1)
    app = start(shadow=True)
    found = split_in(monkeypatch, app.extensions["taxi"].holder.serving.champion, 2)
    ask_array(app.test_client(), rides(14))
    assert found == [14]


def test_a_challenger_that_fails_in_one_part_gives_none(start, monkeypatch, log):
    app = start(ab_share=1.0)
    challenger = app.extensions["taxi"].holder.serving.challenger
    answer = challenger.model.answer

    def fails(asked):
        if asked.PULocationID[0] > 1:
            raise RuntimeError("no such zone")
        return answer(asked)

    split_in(monkeypatch, challenger, 2)
    object.__setattr__(challenger, "model", SimpleNamespace(answer=fails))
    asked = [{**ride, "PULocationID": i + 1} for i, ride in enumerate(rides(14))]
    answers = ask_array(app.test_client(), asked)
    assert {a["arm"] for a in answers} == {"champion"}
    assert log.counts()["predictions"] == 14


@every_path
def test_without_a_shadow_only_the_riders_model_answers(start, log, ask):
    ask(start(ab_share=0.5, shadow=False).test_client(), rides(10))
    counts = log.counts()
    assert (counts["predictions"], counts["shadow_answers"]) == (10, 0)


class Broken:
    """A model that passes its checks and then fails."""

    def answer(self, *_):
        raise RuntimeError("out of order")


def break_model(app, role):
    loaded = getattr(app.extensions["taxi"].holder.serving, role)
    object.__setattr__(loaded, "predictor", Broken())
    object.__setattr__(loaded, "model", Broken())


def failures(log, registered) -> list[tuple]:
    pair = (registered[1].sha256, registered[2].sha256)
    return [
        (row["model"], row["arm"], row["failed_as"], row["shadow_model"])
        for row in log.answered(pair=pair)
    ]


@every_path
@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(("share", "failed_as"), [(1.0, "challenger"), (0.0, "shadow")])
def test_challenger_that_fails_costs_nobody_an_answer_and_is_logged_as_its_own_failure(
    start, log, registered, ask, share, failed_as
):
    app = start(ab_share=share)
    break_model(app, "challenger")
    client = app.test_client()
    assert len(ask(client, rides(3))) == 3
    assert failures(log, registered) == [("green-duration:1", "champion", failed_as, None)] * 3
    text = client.get("/metrics").text
    assert 'taxi_model_failures_total{arm="challenger",version="green-duration:2"} 3.0' in text
    assert 'taxi_model_failures_total{arm="champion",version="green-duration:1"} 0.0' in text


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("ask", [ask_one, ask_array])
def test_champion_that_fails_in_the_shadow_is_logged_as_its_own_failure(
    start, log, registered, ask
):
    app = start(ab_share=1.0)
    break_model(app, "champion")
    client = app.test_client()
    assert len(ask(client, rides(2))) == 2
    assert failures(log, registered) == [("green-duration:2", "challenger", "shadow", None)] * 2
    line = 'taxi_model_failures_total{arm="champion",version="green-duration:1"} 2.0'
    assert line in client.get("/metrics").text


def test_time_of_an_answer_is_that_of_its_own_arm(start, log):
    """A slow challenger is not hidden in a request of both arms, nor charged to the champion."""

    class Slow:
        def __init__(self, model):
            self.model = model

        def answer(self, rides):
            time.sleep(0.1)
            return self.model.answer(rides)

    app = start(ab_share=0.5)
    challenger = app.extensions["taxi"].holder.serving.challenger
    object.__setattr__(challenger, "model", Slow(challenger.model))
    started = time.perf_counter()
    ask_array(app.test_client(), rides(20))
    whole = 1000 * (time.perf_counter() - started)
    took = {row["arm"]: row["latency_ms"] for row in log.answered()}
    theirs = sum(row["arm"] == "challenger" for row in log.answered())
    assert 100 <= took["challenger"] * theirs <= whole  # each ride has its share of it
    assert took["champion"] * (20 - theirs) < 100


def test_metrics_are_by_arm(start):
    client = start(ab_share=1.0).test_client()
    client.post("/predict", json=[RIDE] * 5)
    line = 'taxi_predictions_total{arm="challenger",version="green-duration:2"} 5.0'
    assert line in client.get("/metrics").text


def test_the_other_versions_answers_to_an_array_are_written_as_columns(start, log, monkeypatch):
    """Counted in lines: not one for each ride."""
    lines = []
    write = SpoolWriter.write
    monkeypatch.setattr(
        SpoolWriter, "write", lambda self, content: lines.append(content) or write(self, content)
    )
    ask_array(start(ab_share=0.5).test_client(), rides(200))
    (content,) = lines
    assert sorted(line[:1] for line in content.splitlines()) == [b"c", b"c", b"m", b"m"]
    assert log.counts()["shadow_answers"] == 200


def test_ids_of_an_array_ascend_and_differ_and_are_by_chance():
    first, second = answering.new_ids(1000), answering.new_ids(1000)
    assert first == sorted(first)
    assert len({*first, *second}) == 2000
    assert {len(bytes.fromhex(one)) for one in first} == {16}
    # Of 20,000 digits by chance each of the sixteen comes some 1,250 times.
    digits = "".join(one[12:] for one in first)
    assert min(digits.count(digit) for digit in "0123456789abcdef") > 1000
