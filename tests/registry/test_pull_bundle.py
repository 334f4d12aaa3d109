import hashlib
import json
import shutil
from pathlib import Path

import pytest
from cards import with_another_trip
from msgspec.structs import replace

from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, NotFoundError, RegistryError
from taxi_duration.model.bundle import load_bundle, load_card, save_bundle, write_card
from taxi_duration.model.signatures import new_pair
from taxi_duration.registry import tracking
from taxi_duration.registry.pull_bundle import is_gone, pull_bundle, restore_bundle
from taxi_duration.registry.versions import register_bundle

NAME = "green-duration"

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


@pytest.fixture
def client(moved_home):
    return tracking.connect()


@pytest.fixture
def folder(moved_home) -> Path:
    """Where the chain registered version 1."""
    return moved_home / "models" / NAME / "1"


@pytest.fixture
def registered(folder) -> dict[str, bytes]:
    """The files of version 1 as they were registered."""
    return contents(folder)


@pytest.fixture
def lost(registered, moved_home):
    """All of models/ is gone."""
    shutil.rmtree(moved_home / "models")


@pytest.fixture
def stored(moved_home) -> Path:
    """The bundle of version 1 as MLflow keeps it."""
    (card,) = moved_home.glob("tracking/artifacts/models/*/artifacts/artifacts/*/card.json")
    return card.parent


@pytest.fixture
def no_download(monkeypatch):
    def refuse(*_):
        pytest.fail("something was fetched")

    monkeypatch.setattr("taxi_duration.registry.pull_bundle.download_bundle", refuse)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def register_copy(client, folder: Path, candidate: Path, key: bytes | None = None) -> dict:
    """Register an equal model as the next version; return its card."""
    model, card = load_bundle(folder)
    card = {name: card[name] for name in card if name not in ("name", "version", "signature")}
    save_bundle(candidate, model, card, key)
    return register_bundle(client, tracking.start_run(client, "test", {}), "green", candidate)


# --- what comes back ---------------------------------------------------------------------


def test_pulled_bundle_has_the_bytes_that_were_registered(client, lost, registered, folder):
    pulled = pull_bundle(client, f"{NAME}:1")
    assert (pulled.folder, pulled.is_new) == (folder, True)
    assert contents(folder) == registered
    assert load_bundle(folder)[1] == pulled.card


def test_every_kind_of_reference_pulls_without_models(client, registered, moved_home):
    digest = json.loads(registered["card.json"])["model_sha256"]
    for reference in (":1", ":champion", ":latest", f"@sha256:{digest}", f"@sha256:{digest[:8]}"):
        shutil.rmtree(moved_home / "models", ignore_errors=True)
        assert pull_bundle(client, NAME + reference).is_new


def test_bundle_is_pulled_into_the_folder_given(client, registered, tmp_path):
    pulled = pull_bundle(client, f"{NAME}:1", tmp_path / "serving" / "model")
    assert pulled.is_new
    assert contents(tmp_path / "serving" / "model") == registered


def test_bundle_that_is_there_is_up_to_date_and_not_fetched(client, folder, no_download):
    assert pull_bundle(client, f"{NAME}:1") == (load_card(folder), folder, False)


def test_version_that_is_not_registered_is_refused_with_what_there_is(client, lost, moved_home):
    with pytest.raises(NotFoundError, match="green-duration has 1:champion"):
        pull_bundle(client, f"{NAME}:9")
    assert not (moved_home / "models").exists()


# --- what lies there already -------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "card.json").unlink(),  # killed before the card was written
        lambda folder: (folder / "card.json").write_text("{"),
        lambda folder: (folder / "model.bin").unlink(),
        lambda folder: (folder / "model.bin").write_bytes(b"damaged"),
        lambda folder: [path.unlink() for path in folder.iterdir()],
    ],
)
def test_half_or_damaged_bundle_is_made_whole(client, folder, registered, spoil):
    spoil(folder)
    assert pull_bundle(client, f"{NAME}:1").is_new
    assert contents(folder) == registered


def test_another_model_is_not_overwritten(client, folder, no_download):
    model, card = load_bundle(folder)
    save_bundle(folder, with_another_trip(model), card, None)
    theirs = contents(folder)
    with pytest.raises(RegistryError, match="models/green-duration/1 holds another model") as error:
        pull_bundle(client, f"{NAME}:1")
    assert "--to" in str(error.value)
    assert contents(folder) == theirs


def test_model_without_a_card_is_not_overwritten(client, tmp_path, no_download):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "model.bin").write_bytes(b"a model")
    with pytest.raises(RegistryError, match="holds another model"):
        pull_bundle(client, f"{NAME}:1", theirs)
    assert contents(theirs) == {"model.bin": b"a model"}


def test_version_with_an_equal_model_is_not_taken_for_the_other(client, folder, tmp_path):
    register_copy(client, folder, tmp_path / "candidates" / "LR")
    with pytest.raises(RegistryError, match="another model than green-duration:2"):
        pull_bundle(client, f"{NAME}:2", folder)
    assert load_card(folder)["version"] == 1


def test_kill_before_the_card_leaves_nothing_that_passes_for_a_bundle(
    client, lost, registered, folder, monkeypatch
):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("taxi_duration.registry.versions.write_card", die)
        pull_bundle(client, f"{NAME}:1")
    assert list(contents(folder)) == ["model.bin"]
    assert pull_bundle(client, f"{NAME}:1").is_new
    assert contents(folder) == registered


def test_folder_that_cannot_be_written_is_named(client, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RegistryError, match="cannot be written"):
        pull_bundle(client, f"{NAME}:1", tmp_path / "file" / "model")


# --- what must not come back -------------------------------------------------------------


def test_damaged_artifact_is_refused(client, lost, stored, folder):
    (stored / "model.bin").write_bytes(b"\x80" + (stored / "model.bin").read_bytes()[1:-1])
    with pytest.raises(BundleError, match="green-duration:1 as it was fetched is refused"):
        pull_bundle(client, f"{NAME}:1")
    assert not folder.exists()


def test_exchanged_artifact_is_refused_though_its_own_card_fits_it(client, lost, stored, folder):
    model, card = load_bundle(stored)
    save_bundle(stored, with_another_trip(model), card, None)
    with pytest.raises(BundleError, match="damaged or exchanged"):
        pull_bundle(client, f"{NAME}:1")
    assert not folder.exists()


def test_artifact_that_calls_a_function_is_never_unpickled(client, lost, stored, folder):
    content = b"cos\nsystem\n(S'exit 1'\ntR."
    (stored / "model.bin").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    write_card(stored, {**load_card(stored), "model_sha256": digest}, None)
    client.set_model_version_tag(NAME, "1", "model_sha256", digest)
    with pytest.raises(BundleError, match="no pickle of plain values"):
        pull_bundle(client, f"{NAME}:1")
    assert not folder.exists()


def test_artifact_that_is_gone_is_told(client, lost, stored):
    shutil.rmtree(stored.parent)
    with pytest.raises(RegistryError, match="green-duration:1 cannot be fetched"):
        pull_bundle(client, f"{NAME}:1")


def test_model_that_somebody_registered_without_a_bundle_is_told(client, lost, stored):
    (stored / "card.json").unlink()
    with pytest.raises(BundleError, match="registered with 0 bundles"):
        pull_bundle(client, f"{NAME}:1")


def test_registration_that_did_not_finish_is_told(client, lost):
    client.delete_model_version_tag(NAME, "1", "model_sha256")
    with pytest.raises(RegistryError, match="registration did not finish"):
        pull_bundle(client, f"{NAME}:1")


# --- signatures --------------------------------------------------------------------------


@pytest.fixture
def signed(client, folder, tmp_path, monkeypatch) -> Path:
    """Where version 2 lies, registered with a key."""
    monkeypatch.setenv("MODEL_SIGNING_KEY", "secret")
    register_copy(client, folder, tmp_path / "candidates" / "LR", b"secret")
    return folder.with_name("2")


def test_signed_version_comes_back_signed(client, signed):
    before = contents(signed)
    shutil.rmtree(signed)
    pull_bundle(client, f"{NAME}:2")
    assert contents(signed) == before
    load_bundle(signed, b"secret")


def test_signed_version_needs_the_key_to_be_pulled(client, signed, monkeypatch):
    shutil.rmtree(signed)
    monkeypatch.delenv("MODEL_SIGNING_KEY")
    with pytest.raises(BundleError, match="set MODEL_SIGNING_KEY"):
        pull_bundle(client, f"{NAME}:2")
    assert not signed.exists()


def test_version_signed_with_a_pair_is_not_half_pulled_with_the_public_key(
    client, folder, tmp_path, monkeypatch
):
    private, public = new_pair()
    monkeypatch.setenv("MODEL_SIGNING_KEY", private)
    register_copy(client, folder, tmp_path / "candidates" / "LR", private.encode())
    shutil.rmtree(folder.with_name("2"))
    monkeypatch.setenv("MODEL_SIGNING_KEY", public)
    with pytest.raises(BundleError, match="the private one"):
        pull_bundle(client, f"{NAME}:2")
    assert not folder.with_name("2").exists()
    monkeypatch.setenv("MODEL_SIGNING_KEY", private)
    pull_bundle(client, f"{NAME}:2")
    load_bundle(folder.with_name("2"), public.encode())


@pytest.mark.parametrize(("version", "said"), [("2", "wrong signature"), ("1", "not signed")])
def test_signature_of_another_key_or_none_is_refused(client, signed, monkeypatch, version, said):
    shutil.rmtree(signed.parent)
    monkeypatch.setenv("MODEL_SIGNING_KEY", "another")
    with pytest.raises(BundleError, match=said):
        pull_bundle(client, f"{NAME}:{version}")
    assert not signed.parent.exists()


# --- a server ----------------------------------------------------------------------------


@pytest.mark.long
def test_version_comes_back_from_a_server_to_an_empty_host(
    server, folder, moved_home, tmp_path, monkeypatch
):
    card = register_copy(tracking.connect(), folder, tmp_path / "candidates" / "LR")
    before = contents(folder)
    assert list(server.glob("artifacts/**/model.bin"))
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "host"))
    pulled = pull_bundle(tracking.connect(), f"{NAME}@sha256:{card['model_sha256']}")
    assert pulled.folder == tmp_path / "host" / "models" / NAME / "1"
    assert contents(pulled.folder) == before
    assert not (tmp_path / "host" / "tracking").exists()


# --- what the loop pulls again by itself -------------------------------------------------


@pytest.fixture
def deployed(registered) -> Version:
    return Version.of(json.loads(registered["card.json"]))


@pytest.mark.parametrize("part", ["model.bin", "card.json", None])
def test_deployed_bundle_that_is_gone_is_restored_to_the_byte(
    client, deployed, registered, folder, part
):
    if part:
        (folder / part).unlink()
    else:
        shutil.rmtree(folder)
    assert is_gone(deployed)
    assert restore_bundle(lambda: client, deployed)
    assert contents(folder) == registered
    assert not is_gone(deployed)


def test_bundle_that_is_there_is_not_asked_for(deployed, folder):
    (folder / "model.bin").write_bytes(b"damaged, which is another matter")
    assert not restore_bundle(lambda: pytest.fail("MLflow was asked"), deployed)


def test_version_of_another_digest_is_never_put_in_the_deployed_ones_place(
    client, deployed, lost, moved_home, no_download
):
    """The registry was lost and counts from 1 again: its version 1 is another model."""
    with pytest.raises(BundleError, match=r"is gone .* cannot be pulled: the registry has sha256"):
        restore_bundle(lambda: client, replace(deployed, sha256="f" * 64))
    assert not (moved_home / "models").exists()


def test_version_that_the_registry_does_not_know_is_one_clear_sentence(client, deployed, lost):
    with pytest.raises(BundleError) as error:
        restore_bundle(lambda: client, replace(deployed, number=9))
    assert str(error.value).startswith(f"the bundle of {NAME}:9 (sha256:{deployed.sha256[:12]}…)")
    assert "green-duration has 1:champion" in str(error.value)


def test_registry_that_is_away_is_one_clear_sentence(deployed, lost, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(BundleError, match="is gone from disk and cannot be pulled") as error:
        restore_bundle(tracking.connect, deployed)
    assert "\n" not in str(error.value)
