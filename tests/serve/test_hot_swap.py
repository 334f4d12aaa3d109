"""What is deployed is what serves: swapped when it is good, refused when it is not."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from service_samples import RIDE, make_card

from serve.bodies.parquet import PARQUET_TYPES
from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.files import read_json, write_bytes
from taxi_duration.live.deployment import (
    deploy_champion,
    drop_challenger,
    read_deployment,
    roll_back,
    set_challenger,
)
from taxi_duration.live.refusals import read_refusals
from taxi_duration.model.bundle import write_card
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.intervals import Intervals
from taxi_duration.model.linear import LinearModel, PairVectorizer
from taxi_duration.model.plain_pickle import dumps
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.model.signatures import new_pair


def folder(version: int):
    return environment.models_dir() / "green-duration" / str(version)


@pytest.fixture
def app(registered, make_app):
    """A service that follows the deployment, with version 1 as champion; looks when asked."""
    deploy_champion(registered[1], "first")
    return make_app()


@pytest.fixture
def look(app):
    """Let the service look at the deployment now."""
    return app.extensions["taxi"].holder.refresh


def served(client) -> str:
    return client.post("/predict", json=RIDE).json["model"]


def test_what_its_answers_depend_on_and_is_another_here_is_logged(client, look, registered, caplog):
    """XGBoost only learned the trees: they are walked by our own code."""
    card = read_json(folder(2) / "card.json")
    libraries = {**card["libraries"], "numpy": "1.26.4", "xgboost": "1.0"}
    write_card(folder(2), {**card, "libraries": libraries}, None)
    deploy_champion(registered[2], "better")
    look()
    assert served(client) == "green-duration:2"
    (said,) = (text for text in caplog.messages if "made with" in text)
    assert said.startswith("green-duration:2: it was made with numpy 1.26.4; here are numpy ")
    assert "xgboost" not in said


def test_a_promoted_version_serves(client, look, registered):
    deploy_champion(registered[2], "better")
    assert served(client) == "green-duration:1"
    look()
    assert served(client) == "green-duration:2"


def test_a_rollback_serves_the_version_before(client, look, registered):
    deploy_champion(registered[2], "better")
    look()
    roll_back("worse")
    look()
    assert served(client) == "green-duration:1"


def test_the_watcher_notices_by_itself_within_two_seconds(registered, make_app):
    deploy_champion(registered[1], "first")
    client = make_app({"BACKGROUND": True}).test_client()
    deploy_champion(registered[2], "better")
    deadline = time.monotonic() + 2
    while served(client) != "green-duration:2" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served(client) == "green-duration:2"


def test_a_service_started_with_nothing_takes_the_first_deployment(home, registered, make_app):
    app = make_app()
    client = app.test_client()
    for version in (1, 2):
        shutil.move(folder(version), home / f"later-{version}")
    app.extensions["taxi"].holder.refresh()
    assert client.post("/predict", json=RIDE).status_code == 503
    shutil.move(home / "later-1", folder(1))
    deploy_champion(registered[1], "first")
    app.extensions["taxi"].holder.refresh()
    assert served(client) == "green-duration:1"


def flip_a_bit(version: int) -> None:
    path = folder(version) / "model.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(version: int) -> None:
    path = folder(version) / "model.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_the_card(version: int) -> None:
    (folder(version) / "card.json").unlink()


def lose_everything(version: int) -> None:
    shutil.rmtree(folder(version))


def exchange_the_model(version: int) -> None:
    """A whole and valid bundle, but not the one that was deployed."""
    shutil.copytree(folder(1), folder(version), dirs_exist_ok=True)


def replace_by(content: bytes, version: int) -> None:
    """A bundle with the right digest that is no model of ours."""
    write_bytes(folder(version) / "model.bin", content)
    card = {**make_card(version, "LR"), "model_sha256": hashlib.sha256(content).hexdigest()}
    deploy_champion(Version.of(write_card(folder(version), card, None)), "broken")


def make_it_no_model(version: int) -> None:
    replace_by(dumps({"not": "a model"}), version)


def put_a_foreign_class_in(version: int) -> None:
    replace_by(pickle.dumps(Path("/nowhere"), 3), version)


def give_it_another_card(version: int) -> None:
    """The model of version 1 with a card that was made for another one."""
    exchange_the_model(version)
    card = {**read_json(folder(1) / "card.json"), "created": "2021-04-01T00:00:00+00:00"}
    deploy_champion(write_card(folder(version), {**card, "version": version}, None), "exchanged")


def put_it_under_another_name(version: int) -> None:
    """Deployed as version 2, whole, and its card says that it is version 1."""
    exchange_the_model(version)
    deploy_champion({**read_json(folder(1) / "card.json"), "version": version}, "renamed")


DAMAGES = [
    flip_a_bit,
    cut_in_half,
    lose_the_card,
    lose_everything,
    exchange_the_model,
    make_it_no_model,
    put_a_foreign_class_in,
    give_it_another_card,
    put_it_under_another_name,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_bundle_is_refused_and_the_old_model_serves_on(
    client, look, metric, registered, damage
):
    damage(2)
    if read_deployment().champion.number == 1:
        deploy_champion(registered[2], "bad")
    look()
    assert served(client) == "green-duration:1"
    assert metric("taxi_reload_failures_total") == 1
    assert metric("taxi_deployment_refused") == 1
    assert "green-duration:2 is refused" in client.get("/model").json["trouble"]
    assert client.get("/ready").status_code == 200


# Each of these was loaded, class by allowed class, when bundles named classes.
HOSTILE = {
    # BUILD with slot state on a class of the running service: arrays were answered 500 after it.
    "class patched": b"\x80\x03ctaxi_duration.model.intervals\nIntervals\n"
    b"N}X\x09\0\0\0quantilesNs\x86b.",
    # An array of objects over forged bytes: pointers to nowhere, the end of every worker.
    "forged objects": b"\x80\x03cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\nX\x02\0\0\0O8"
    b"\x85RB\x08\0\0\0AAAAAAAAtR.",
    "function called": b"\x80\x03cos\nabort\n)R.",
}
CLASSES = (DurationModel, Intervals, LinearModel, PairVectorizer, RidePredictor)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_changes_nothing_of_what_serves(client, look, metric, registered, name):
    def asked() -> list[object]:
        """What one ride, many and a Parquet file are answered, but for ids and times."""
        rides = {"PULocationID": [74, 75], "DOLocationID": [42, 166], "trip_distance": [2.0, None]}
        body = io.BytesIO()
        pq.write_table(pa.table(rides), body)
        answers = [
            client.post("/predict", json=RIDE),
            client.post("/predict", json=[RIDE, {**RIDE, "trip_distance": None}]),
            client.post("/predict", data=body.getvalue(), content_type=PARQUET_TYPES[0]),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        rides = [answers[0].json, *answers[1].json, *answers[2].json]
        return [[ride[name] for name in ("duration", "interval", "model")] for ride in rides]

    before, classes = asked(), [dict(vars(one)) for one in CLASSES]
    replace_by(HOSTILE[name], 2)
    look()
    assert asked() == before
    assert [dict(vars(one)) for one in CLASSES] == classes
    assert "green-duration:2 is refused" in client.get("/model").json["trouble"]
    assert metric("taxi_reload_failures_total") == 1


def test_a_bundle_of_the_older_format_says_what_to_do(client, look, registered, models):
    replace_by(pickle.dumps(models[2]), 2)
    look()
    assert served(client) == "green-duration:1"
    assert "train the model again: `python pipeline.py run`" in client.get("/model").json["trouble"]


def test_a_model_that_answers_no_number_is_refused_in_warming_up(
    client, look, registered, monkeypatch
):
    class Silent(RidePredictor):
        def answer(self, *question):
            return super().answer(*question)._replace(p90=float("nan"))

    monkeypatch.setattr("serve.core.bundle_reading.RidePredictor", Silent)
    deploy_champion(registered[2], "silent")
    look()
    assert served(client) == "green-duration:1"
    assert "it does not answer" in client.get("/model").json["trouble"]


def test_a_model_that_fails_on_many_rides_is_refused_in_warming_up(
    client, look, registered, monkeypatch
):
    def fail(self, rides):
        raise IndexError("no such row")

    with monkeypatch.context() as patch:
        patch.setattr(DurationModel, "answer", fail)
        deploy_champion(registered[2], "silent")
        look()
    assert served(client) == "green-duration:1"
    assert "it does not answer" in client.get("/model").json["trouble"]


def test_the_watcher_tries_a_refused_bundle_again_though_nobody_deploys(
    registered, make_app, monkeypatch
):
    monkeypatch.setattr("serve.core.served_models.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("serve.core.served_models.WATCH_SECONDS", 0.05)
    content = (folder(2) / "model.bin").read_bytes()
    deploy_champion(registered[1], "first")
    client = make_app({"BACKGROUND": True}).test_client()
    flip_a_bit(2)
    deploy_champion(registered[2], "its files come later")
    deadline = time.monotonic() + 30
    while client.get("/model").json["trouble"] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served(client) == "green-duration:1"
    (folder(2) / "model.bin").write_bytes(content)
    while served(client) != "green-duration:2" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served(client) == "green-duration:2"
    assert client.get("/model").json["trouble"] is None


def test_a_refusal_is_counted_once_however_often_it_is_met(client, look, metric, registered):
    flip_a_bit(2)
    deploy_champion(registered[2], "bad")
    for _ in range(4):
        look()
    assert metric("taxi_reload_failures_total") == 1


def test_a_refused_bundle_serves_once_it_is_mended(client, look, metric, registered):
    content = (folder(2) / "model.bin").read_bytes()
    flip_a_bit(2)
    deploy_champion(registered[2], "bad")
    look()
    (folder(2) / "model.bin").write_bytes(content)
    look()
    assert served(client) == "green-duration:2"
    assert metric("taxi_deployment_refused") == 0


def test_a_refusal_is_noted_for_the_loop_with_its_end(client, look, registered):
    content = (folder(2) / "model.bin").read_bytes()
    flip_a_bit(2)
    deploy_champion(registered[2], "bad")
    for _ in range(3):
        look()
    (refusal,) = read_refusals()
    assert refusal.problem == client.get("/model").json["trouble"]
    assert refusal.until is None
    (folder(2) / "model.bin").write_bytes(content)
    look()
    assert read_refusals()[0].until is not None


@pytest.mark.parametrize("key", ["secret", new_pair()[1]], ids=["secret", "public"])
def test_an_unsigned_bundle_is_refused_where_signatures_are_asked(
    client, look, registered, monkeypatch, key
):
    monkeypatch.setenv("MODEL_SIGNING_KEY", key)
    deploy_champion(registered[2], "unsigned")
    look()
    assert served(client) == "green-duration:1"
    assert "not signed" in client.get("/model").json["trouble"]


def test_what_the_private_key_signed_serves_where_the_public_one_is_set(
    client, look, registered, monkeypatch
):
    private, public = new_pair()
    monkeypatch.setenv("MODEL_SIGNING_KEY", public)
    card = read_json(folder(2) / "card.json")
    write_card(folder(2), card, new_pair()[0].encode())  # somebody else's
    deploy_champion(registered[2], "forged")
    look()
    assert served(client) == "green-duration:1"
    assert "wrong signature" in client.get("/model").json["trouble"]
    write_card(folder(2), card, private.encode())
    look()
    assert served(client) == "green-duration:2"
    assert client.get("/model").json["trouble"] is None


@pytest.mark.parametrize(
    "content", ["", "{", "null", "[]", "{}", '{"champion": 5}', '{"champion": {"name": "x"}}']
)
def test_a_spoilt_deployment_file_changes_nothing(client, look, content):
    (environment.deployment_dir() / "deployment.json").write_text(content)
    look()
    assert served(client) == "green-duration:1"


@pytest.mark.parametrize("share", ["half", None, [0.5], 7, -1, True])
def test_a_share_that_is_none_is_refused(client, look, registered, share):
    set_challenger(registered[2], "test", ab_share=0.5)
    path = environment.deployment_dir() / "deployment.json"
    path.write_text(json.dumps({**read_deployment().as_dict(), "ab_share": share}))
    look()
    assert served(client) == "green-duration:1"
    assert "ab_share" in client.get("/model").json["trouble"]


def test_a_worker_that_starts_on_a_bad_champion_serves_the_one_before(registered, make_app):
    deploy_champion(registered[1], "first")
    deploy_champion(registered[2], "bad")
    flip_a_bit(2)
    app = make_app()
    assert served(app.test_client()) == "green-duration:1"
    assert "green-duration:2 is refused" in app.extensions["taxi"].holder.problem


def test_a_bad_challenger_leaves_the_champion_alone(client, look, registered):
    flip_a_bit(2)
    set_challenger(registered[2], "test", ab_share=1.0)
    look()
    assert served(client) == "green-duration:1"
    assert "challenger green-duration:2 is refused" in client.get("/model").json["trouble"]


def test_dropping_the_challenger_ends_the_problem(client, look, registered):
    flip_a_bit(2)
    set_challenger(registered[2], "test", ab_share=1.0)
    look()
    drop_challenger("cannot be loaded")
    look()
    assert client.get("/model").json["trouble"] is None


def test_promoting_the_challenger_loads_nothing_again(app, look, registered):
    set_challenger(registered[2], "test", shadow=True)
    look()
    before = app.extensions["taxi"].holder.serving.challenger.predictor
    deploy_champion(registered[2], "won")
    look()
    assert app.extensions["taxi"].holder.serving.champion.predictor is before


def test_reloads_are_counted(look, metric, registered):
    before = metric("taxi_reloads_total")
    deploy_champion(registered[2], "better")
    look()
    look()
    assert metric("taxi_reloads_total") == before + 1


def test_a_single_bundle_serves_without_a_deployment(home, registered, make_app):
    shutil.rmtree(folder(2))
    assert read_deployment() is None
    assert served(make_app().test_client()) == "green-duration:1"


def test_a_bundle_mounted_as_the_folder_itself_serves(home, registered, make_app, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(folder(2)))
    assert served(make_app().test_client()) == "green-duration:2"


def test_several_bundles_without_a_deployment_are_not_guessed_at(registered, make_app):
    response = make_app().test_client().post("/predict", json=RIDE)
    assert response.status_code == 503
    assert "promote" in response.json["error"]["message"]


def test_deployment_is_read_from_its_own_folder(registered, make_app, monkeypatch, tmp_path):
    deploy_champion(registered[1], "first")
    shutil.move(environment.deployment_dir(), tmp_path / "elsewhere")
    monkeypatch.setenv("DEPLOYMENT_DIR", str(tmp_path / "elsewhere"))
    assert json.loads((tmp_path / "elsewhere" / "deployment.json").read_text())["champion"]
    assert served(make_app().test_client()) == "green-duration:1"
