import shutil
import socket

import pytest
from mlflow import MlflowClient
from msgspec.structs import replace
from registering import register_by_hand

from taxi_duration.chain import release
from taxi_duration.chain.candidates import winning_candidate
from taxi_duration.chain.release import (
    check_release,
    deploy_winner,
    mirror_aliases,
    promote_version,
    register_winner,
    roll_back_version,
    save_winner,
)
from taxi_duration.chain.run import load_run, new_run
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, NotFoundError
from taxi_duration.evaluation.release_checks import ModelCheckError
from taxi_duration.live.audit import read_audit, user_name
from taxi_duration.live.deployment import read_deployment, read_history, set_challenger
from taxi_duration.model.bundle import load_bundle, load_card, save_bundle
from taxi_duration.registry.aliases import read_alias_history
from taxi_duration.registry.versions import find_bundle, list_versions

NAME = "green-duration"

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


@pytest.fixture
def done_run(moved_home):
    """The chain's own run, which released version 1."""
    (folder,) = (moved_home / "runs").iterdir()
    return load_run(folder.name)


@pytest.fixture
def second_run(moved_home, monkeypatch):
    register_by_hand(monkeypatch)
    return new_run(check_settings("2021-01", "2021-02", "LR"))


def release_winner(run, winner, beats_baselines):
    """Take the steps of notebook 04."""
    card = register_winner(run, winner, check_release(run, winner))
    return deploy_winner(run, card, beats_baselines)


def test_first_winner_is_registered_deployed_and_champion(done_run, moved_home):
    released = done_run.read()["model"]
    assert (released["name"], released["version"], released["aliases"]) == (NAME, 1, ["champion"])
    card = load_card(moved_home / "models" / NAME / "1")
    assert read_deployment().champion.sha256 == card["model_sha256"]


def test_releasing_again_keeps_version_and_deployment(done_run):
    before = read_deployment()
    released = release_winner(done_run, *winning_candidate(done_run))
    assert released["version"] == 1
    assert [row.number for row in list_versions(done_run.client)] == [1]
    assert read_deployment() == before


def test_second_winner_is_registered_and_does_not_replace_the_champion(moved_home):
    second_run = new_run(check_settings("2021-01", "2021-02", "LR"))
    released = release_winner(second_run, *winning_candidate(second_run))
    assert (released["version"], released["aliases"], released["deployed"]) == (2, [], False)
    assert read_deployment().champion.number == 1
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "1"


def test_winner_that_no_lookup_loses_to_is_registered_but_not_deployed(second_run, moved_home):
    shutil.rmtree(moved_home / "deployment")
    winner, _ = winning_candidate(second_run)
    released = release_winner(second_run, winner, beats_baselines=False)
    assert (released["version"], released["deployed"]) == (2, False)
    assert read_deployment() is None


def test_release_killed_before_the_deployment_goes_on(done_run, moved_home):
    shutil.rmtree(moved_home / "deployment")
    released = release_winner(done_run, *winning_candidate(done_run))
    assert (released["version"], released["deployed"]) == (1, True)
    assert read_deployment().champion.number == 1


def test_damaged_winner_is_not_released(second_run):
    winner, beats = winning_candidate(second_run)
    (winner.folder / "model.bin").write_bytes(b"not the model")
    with pytest.raises(BundleError):
        release_winner(second_run, winner, beats)
    assert [row.number for row in list_versions(second_run.client)] == [1]


def test_saving_the_winner_leaves_whole_bytes_and_mends_damaged_ones(second_run):
    winner, _ = winning_candidate(second_run)
    model = winner.folder / "model.bin"
    before, when = model.read_bytes(), model.stat().st_mtime_ns
    assert save_winner(winner) == winner.folder
    assert (model.read_bytes(), model.stat().st_mtime_ns) == (before, when)
    model.write_bytes(before[:-1])
    save_winner(winner)
    assert load_bundle(winner.folder)[0].kind == "LR"


def test_winner_that_fails_a_check_is_not_registered(second_run):
    winner, _ = winning_candidate(second_run)
    checks = check_release(second_run, winner)
    failed = [checks[0]._replace(passed=False, detail="made to fail"), *checks[1:]]
    with pytest.raises(ModelCheckError, match="made to fail"):
        register_winner(second_run, winner, failed)
    assert [row.number for row in list_versions(second_run.client)] == [1]


def test_steps_killed_in_between_and_taken_again_give_one_version(second_run):
    winner, beats = winning_candidate(second_run)
    first = register_winner(second_run, winner, check_release(second_run, winner))
    again = load_run(second_run.run_id)  # killed before the deployment, and started anew
    released = release_winner(again, *winning_candidate(again))
    assert (released["version"], beats) == (first["version"], True)
    assert [row.number for row in list_versions(again.client)] == [2, 1]


def test_signing_can_begin_when_unsigned_versions_are_there(second_run, monkeypatch):
    monkeypatch.setenv("MODEL_SIGNING_KEY", "secret")
    winner, beats = winning_candidate(second_run)
    save_bundle(winner.folder, winner.model, winner.card, b"secret")
    assert release_winner(second_run, winner, beats)["version"] == 2


def test_promoted_version_serves_and_has_the_alias_until_rolled_back(second_run):
    release_winner(second_run, *winning_candidate(second_run))
    promote_version(second_run.client, f"{NAME}:2", "test")
    assert read_deployment().champion.number == 2
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "2"
    assert roll_back_version("test", second_run.client).number == 1
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "1"
    wishes = [(line["who"], line["what"]) for line in read_audit()][-2:]
    assert wishes == [(user_name(), f"promote {NAME}:2"), (user_name(), f"rollback {NAME}:1")]


@pytest.fixture
def away():
    """A client of a tracking server that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_version_is_rolled_back_while_the_tracking_server_is_away(
    second_run, away, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    release_winner(second_run, *winning_candidate(second_run))
    promote_version(second_run.client, f"{NAME}:2", "test")
    assert roll_back_version("test", away).number == 1
    assert read_deployment().champion.number == 1
    assert "aliases are not" in caplog.text
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "2"  # until it is back
    mirror_aliases(second_run.client)
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "1"


def test_promoting_ends_a_test_and_names_what_was_tested(second_run):
    release_winner(second_run, *winning_candidate(second_run))
    first = read_deployment().champion
    second = Version.of(load_card(find_bundle(second_run.client, f"{NAME}:2")))
    third = replace(second, number=3, sha256="3" * 64)
    set_challenger(third, "test", ab_share=0.2)
    assert promote_version(second_run.client, f"{NAME}:2", "better") == (second, third)
    assert (read_deployment().challenger, read_deployment().is_baking) == (first, True)
    set_challenger(first, "test", ab_share=0.2)
    assert promote_version(second_run.client, f"{NAME}:1", "it is") == (first, None)
    assert promote_version(second_run.client, f"{NAME}:1", "again") == (first, None)


def test_promoting_the_champion_itself_ends_the_test_too(second_run):
    release_winner(second_run, *winning_candidate(second_run))
    first = read_deployment().champion
    second = Version.of(load_card(find_bundle(second_run.client, f"{NAME}:2")))
    set_challenger(second, "test", ab_share=0.2, shadow=True)
    mirror_aliases(second_run.client)
    assert promote_version(second_run.client, f"{NAME}:1", "enough") == (first, second)
    assert (read_deployment().challenger, read_deployment().ab_share) == (None, 0.0)
    assert (read_history()[-1].action, read_history()[-1].reason) == (
        "drop", f"{NAME}:1 is to answer every rider: enough",
    )  # fmt: skip
    with pytest.raises(NotFoundError):
        find_bundle(second_run.client, f"{NAME}:challenger")


def test_version_deleted_in_mlflow_serves_on_without_an_alias(second_run, caplog):
    release_winner(second_run, *winning_candidate(second_run))
    promote_version(second_run.client, f"{NAME}:2", "test")
    second_run.client.delete_model_version(NAME, "2")
    second_run.client.set_registered_model_alias(NAME, "champion", "1")  # somebody mends it wrongly
    for _ in range(2):
        mirror_aliases(second_run.client)
    assert second_run.client.get_registered_model(NAME).aliases == {"challenger": 1}  # it bakes
    assert read_deployment().champion.number == 2
    assert "there is no alias champion" in caplog.text
    champions = [line for line in read_alias_history() if line["alias"] == "champion"]
    assert [line["version"] for line in champions][-2:] == [2, None]
    assert roll_back_version("test", second_run.client).number == 1
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "1"


def test_name_deleted_in_mlflow_serves_on(second_run, caplog):
    second_run.client.delete_registered_model(NAME)
    mirror_aliases(second_run.client)
    assert read_deployment().champion.number == 1
    assert "there is no alias champion" in caplog.text


def test_a_version_is_rolled_back_though_the_store_is_no_database(second_run, moved_home, caplog):
    release_winner(second_run, *winning_candidate(second_run))
    promote_version(second_run.client, f"{NAME}:2", "test")
    for path in (moved_home / "tracking").glob("mlflow.db*"):
        path.write_bytes(b"no database" * 1000)
    assert roll_back_version("test").number == 1
    assert read_deployment().champion.number == 1
    assert "file is not a database" in caplog.text


def test_damaged_version_is_not_promoted(second_run, moved_home):
    release_winner(second_run, *winning_candidate(second_run))
    model = moved_home / "models" / NAME / "2" / "model.bin"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BundleError):
        promote_version(second_run.client, f"{NAME}:2", "test")
    assert read_deployment().champion.number == 1


def test_promoting_a_version_that_is_not_there_names_those_that_are(done_run):
    with pytest.raises(NotFoundError, match=r"green-duration:9 .* has 1:champion"):
        promote_version(done_run.client, f"{NAME}:9", "test")


def test_run_that_ends_with_another_leaves_the_first_that_was_deployed_meanwhile(
    second_run, moved_home, monkeypatch
):
    """Both looked before either had deployed."""
    before = read_deployment()
    monkeypatch.setattr(release, "read_deployment", lambda: None)
    released = release_winner(second_run, *winning_candidate(second_run))
    assert (released["version"], released["deployed"]) == (2, False)
    assert read_deployment() == before


def test_aliases_follow_a_promotion_that_comes_while_they_are_set(moved_home, monkeypatch):
    """The slower of the two would leave MLflow with a champion that serves no more."""
    second_run = new_run(check_settings("2021-01", "2021-02", "LR"))
    release_winner(second_run, *winning_candidate(second_run))
    mirror = release._mirror

    def overtaken(client, deployment):
        if deployment.champion.number == 1:
            promote_version(second_run.client, f"{NAME}:2", "meanwhile")
        mirror(client, deployment)

    monkeypatch.setattr(release, "_mirror", overtaken)
    mirror_aliases(second_run.client)
    assert read_deployment().champion.number == 2
    assert find_bundle(second_run.client, f"{NAME}:champion").name == "2"
    assert find_bundle(second_run.client, f"{NAME}:challenger").name == "1"
