"""The loop on the real registry, bundles, log and deployment; only the chain ran before."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.chain.release import mirror_aliases
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version
from taxi_duration.errors import PipelineError, SourceUnreachableError
from taxi_duration.files import read_json
from taxi_duration.live.audit import read_audit
from taxi_duration.live.deployment import deploy_champion, read_deployment
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.monitor import load_version
from taxi_duration.loop.pipeline_world import PipelineWorld
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.state import State, read_state, write_state
from taxi_duration.loop.turn import take_turn
from taxi_duration.model.bundle import load_card, save_bundle
from taxi_duration.registry import tracking

pytestmark = pytest.mark.slow

NAME = "green-duration"
MARCH = Month(2021, 3)


@pytest.fixture
def world(moved_home):
    """The real world on a home with one deployed version, a weak linear model."""
    world = PipelineWorld((), say=print)
    yield world
    world.prediction_log.close()


@pytest.fixture
def challenger(world, fitted):
    """Version 2, registered beside the first: trees, far better."""
    first = load_card(environment.models_dir() / NAME / "1")
    card = {**first, "version": 2, "model_kind": "XGB"}
    card = save_bundle(environment.models_dir() / NAME / "2", fitted("XGB"), card, None)
    world.client.create_model_version(NAME, "models/2")
    return Version.of(card)


def champion():
    return read_deployment().champion


def aliases(client):
    return {name: int(v) for name, v in client.get_registered_model(NAME).aliases.items()}


def live(days=15, a_day=40, split=0.0, spoiled=False):
    """Rides of March as the deployed versions would answer and log them, with their truth."""
    deployment = read_deployment()
    (march,) = prepare_months("green", [MARCH])
    trips = march.trips()
    day = trips["pickup_at"].dt.day
    trips = trips[day <= days].groupby(day[day <= days]).head(a_day).reset_index(drop=True)
    rides = Rides.from_frame(trips)
    roles = {"champion": deployment.champion, "challenger": deployment.challenger}
    minutes = {r: load_version(v)[0].answer(rides) for r, v in roles.items() if v}
    rng = np.random.default_rng(len(trips))
    rows, shadows, feedback = [], [], []
    for i, trip in enumerate(trips.itertuples()):
        arm = "challenger" if rng.random() < split else "champion"
        version, answers = roles[arm], minutes[arm]
        key = f"{time.time_ns()}-{i}"
        answer = {k: float(getattr(answers, k)[i]) for k in ("duration", "p10", "p50", "p90")}
        if spoiled:
            answer = {k: v * 3 for k, v in answer.items()}
        rows.append({
            **answer, "prediction_id": key, "ride_id": None, "asked_at": time.time(),
            "PULocationID": trip.PULocationID, "DOLocationID": trip.DOLocationID,
            "pickup_at": trip.pickup_at.isoformat(timespec="seconds"), "arm": arm,
            "trip_distance": float(trip.trip_distance), "support": int(answers.support[i]),
            "used_distance": bool(answers.used_distance[i]), "latency_ms": 1.0,
            "model": version.ref, "model_sha256": version.sha256,
        })  # fmt: skip
        feedback.append({"prediction_id": key, "duration": float(trip.duration)})
        if deployment.shadow:
            beside = "champion" if arm == "challenger" else "challenger"
            other = minutes[beside]
            shadows.append({
                "prediction_id": key, "model": roles[beside].ref,
                "model_sha256": roles[beside].sha256,
                **{k: float(getattr(other, k)[i]) for k in ("duration", "p10", "p50", "p90")},
            })  # fmt: skip
    log = open_log()
    log.add(rows, shadows)
    log.add_feedback(feedback)
    log.close()


def whats(lines):
    return [line["what"] for line in lines]


@pytest.fixture
def until_march(monkeypatch):
    """March is the last month that is published, and all rides of a story come in one second."""
    published = lambda self, version, months: (m for m in months if m <= MARCH)  # noqa: E731
    monkeypatch.setattr(PipelineWorld, "find_published", published)
    monkeypatch.setattr("taxi_duration.loop.tested_rides.TAKE_UP_SECONDS", 0.0)


@pytest.mark.long
def test_story_from_gate_to_promotion_to_rollback(world, challenger, until_march):
    """Version 2 passes the gate, shadows, is A/B-tested, serves; is spoiled, and goes."""
    write_state(State("gate", month=str(MARCH), challenger=challenger, champion=champion()))
    lines = take_turn(world)
    assert whats(lines)[:3] == [f"pass {NAME}:2", f"refit {NAME}:3", f"shadow {NAME}:3"]
    assert aliases(world.client) == {"champion": 1, "challenger": 3}
    tags = world.client.get_model_version(NAME, "2").tags
    assert tags["gate"] == "passed"
    assert float(tags["gate.error.gain_min"]) > 0

    live()
    assert f"A/B-test {NAME}:3" in whats(take_turn(world))
    live(split=0.2)
    assert f"promote {NAME}:3" in whats(take_turn(world))
    assert champion().number == 3
    assert aliases(world.client) == {"champion": 3, "challenger": 1}
    assert read_state().stage == "baking"

    live(spoiled=True)
    assert f"roll back {NAME}:3 to {NAME}:1" in whats(take_turn(world))
    assert champion().number == 1
    assert aliases(world.client) == {"champion": 1}
    assert read_json(environment.live_dir() / "monitor.json")["verdict"] in ("ok", "watch", "alarm")
    runs = world.client.search_runs([tracking.experiment_id(world.client)], max_results=200)
    decided = {run.data.tags.get("decision") for run in runs}
    assert {f"pass {NAME}:2", f"promote {NAME}:3"} <= decided


@pytest.mark.long
def test_challenger_deleted_in_mlflow_is_tested_and_promoted_all_the_same(
    world, challenger, until_march, caplog
):
    """deployment.json says who serves, from bundles that lie here."""
    write_state(State("gate", month=str(MARCH), challenger=challenger, champion=champion()))
    world.client.delete_model_version(NAME, "2")
    assert f"shadow {NAME}:3" in whats(take_turn(world))
    world.client.delete_model_version(NAME, "3")
    live()
    take_turn(world)
    live(split=0.2)
    assert f"promote {NAME}:3" in whats(take_turn(world))
    assert champion().number == 3
    assert aliases(world.client) == {"challenger": 1}
    assert read_state().unlogged == ()
    assert "green-duration:2 gets no tags" in caplog.text
    assert "there is no alias champion" in caplog.text
    runs = world.client.search_runs([tracking.experiment_id(world.client)], max_results=200)
    assert f"promote {NAME}:3" in {run.data.tags.get("decision") for run in runs}


def spoil_the_store(home):
    for path in (home / "tracking").glob("mlflow.db*"):
        path.write_bytes(b"no database" * 1000)


def test_training_without_mlflows_store_waits_and_counts_as_no_failure(world, moved_home):
    write_state(State("train", month=str(MARCH), champion=champion()))
    spoil_the_store(moved_home)
    for _ in range(auto_settings().max_attempts + 1):
        (line,) = take_turn(PipelineWorld((), say=print))
        assert line["what"] == "wait"
        assert line["why"].startswith("MLflow is needed: MLflow's store tracking/ does not do it")
    assert (read_state().stage, read_state().attempts, read_state().run_id) == ("train", 0, None)


def test_rollback_without_mlflows_store_is_done_and_mirrored_later(
    world, challenger, moved_home, until_march
):
    kept = {p: p.read_bytes() for p in (moved_home / "tracking").glob("mlflow.db*")}
    deploy_champion(challenger, "better")
    write_state(
        State("roll_back", month=str(MARCH), champion=challenger, challenger=version_one(), why="-")
    )
    spoil_the_store(moved_home)
    said = []
    take_turn(PipelineWorld((), say=print), say=said.append)
    assert champion().number == 1
    assert any(line.startswith("MLflow gets this with a later turn: ") for line in said)
    assert read_state().unlogged
    for path, content in kept.items():
        path.write_bytes(content)
    take_turn(PipelineWorld((), say=print))
    assert read_state().unlogged == ()


def version_one():
    return Version.of(load_card(environment.models_dir() / NAME / "1"))


def test_training_whose_folder_was_cleared_away_begins_a_new_run(world, monkeypatch):
    remembered = []

    def no_chain(run, *_):
        raise PipelineError(f"run {run.run_id} came so far")

    monkeypatch.setattr("taxi_duration.loop.pipeline_world.run_chain", no_chain)
    with pytest.raises(PipelineError):
        world.train(check_settings("2021-01", "2021-02"), "20210101-000000-beef", remembered.append)
    (run_id,) = remembered
    assert run_id != "20210101-000000-beef"
    assert (environment.runs_dir() / run_id / "run.json").exists()


def test_alias_that_nobody_deploys_any_more_is_removed(world, challenger):
    world.client.set_registered_model_alias(NAME, "challenger", "2")
    mirror_aliases(world.client)
    assert aliases(world.client) == {"champion": 1}


def test_month_that_is_not_over_is_not_published(world):
    assert list(world.find_published(champion(), [Month(2999, 1), MARCH])) == [MARCH]


def test_real_trips_are_never_followed_by_the_sample(world, monkeypatch):
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("TLC_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("taxi_duration.data.remote.ATTEMPTS", 1)
    with pytest.raises(SourceUnreachableError):
        list(world.find_published(replace(champion(), data_source="tlc"), [MARCH]))


def test_earlier_version_is_asked_again_what_this_one_answered(world, challenger):
    weak = champion()
    deploy_champion(challenger, "better")
    live()
    gain, rides = world.compare_live(challenger, weak)
    assert rides == 600
    assert gain.high < 0


@pytest.mark.long
def test_chain_killed_at_random_moments_is_finished_by_later_turns(moved_home):
    """`kill -9` of the real command, notebooks, MLflow and all."""
    command = [sys.executable, str(environment.PROJECT_ROOT / "pipeline.py"), "auto"]
    for seconds in random.Random(4).sample(range(2, 14), 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr
    assert read_state().stage in ("shadow", "idle")
    keys = Counter(line["key"] for line in read_audit() if line["key"])
    assert set(keys.values()) == {1}
    versions = sorted(path.name for path in (environment.models_dir() / NAME).iterdir())
    passed = any(line["what"].startswith("refit") for line in read_audit())
    assert versions == ["1", "2", "3"][: 3 if passed else 2]
    registered = tracking.connect().search_model_versions(f"name='{NAME}'")
    assert sorted(str(version.version) for version in registered) == versions


def test_a_second_fit_says_what_it_learns_from_before_its_minutes_begin(world, monkeypatch, capsys):
    monkeypatch.setattr(
        "taxi_duration.loop.pipeline_world.refit_version", lambda run, model, card, months: card
    )
    world.refit(champion(), [Month(2021, 1), Month(2021, 2)], None, lambda run_id: None)
    assert f"{NAME}:1 is fitted once more, on 2021-01:2021-02" in capsys.readouterr().out
