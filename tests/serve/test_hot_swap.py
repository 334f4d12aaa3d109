"""What is deployed is what serves: swapped when it is good, refused when it is not."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import time
from pathlib import Path

import pytest
from service_samples import RIDE, make_card

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.files import write_bytes
from taxi_duration.live.deployment import (
    deploy_champion,
    drop_challenger,
    read_deployment,
    roll_back,
    set_challenger,
)
from taxi_duration.model.bundle import write_card


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


def replace_by(content: object, version: int) -> None:
    """A bundle with the right digest that is no model of ours."""
    pickled = pickle.dumps(content)
    write_bytes(folder(version) / "model.bin", pickled)
    card = {**make_card(version, "LR"), "model_sha256": hashlib.sha256(pickled).hexdigest()}
    deploy_champion(Version.of(write_card(folder(version), card, None)), "broken")


def make_it_no_model(version: int) -> None:
    replace_by({"not": "a model"}, version)


def put_a_foreign_class_in(version: int) -> None:
    replace_by(Path("/nowhere"), version)


DAMAGES = [
    flip_a_bit,
    cut_in_half,
    lose_the_card,
    lose_everything,
    exchange_the_model,
    make_it_no_model,
    put_a_foreign_class_in,
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


def test_an_unsigned_bundle_is_refused_where_signatures_are_asked(
    client, look, registered, monkeypatch
):
    monkeypatch.setenv("MODEL_SIGNING_KEY", "secret")
    deploy_champion(registered[2], "unsigned")
    look()
    assert served(client) == "green-duration:1"
    assert "not signed" in client.get("/model").json["trouble"]


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
