import shutil

import pytest
from cards import with_another_trip
from msgspec.structs import replace
from servers import free_port

from taxi_duration.domain.rides import Rides
from taxi_duration.errors import (
    BundleError,
    NotFoundError,
    RegistryError,
    SettingError,
    TrackingError,
)
from taxi_duration.model.bundle import load_bundle, load_card, save_bundle
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import (
    find_bundle,
    find_version,
    list_versions,
    register_bundle,
)

NAME = "green-duration"
RIDE = {"PULocationID": 74, "DOLocationID": 42, "trip_distance": 3.0,
        "pickup_datetime": "2021-01-05T09:00:00"}  # fmt: skip

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


@pytest.fixture
def client(moved_home):
    return tracking.connect()


@pytest.fixture
def first(client) -> dict:
    """The card of the version that the chain registered."""
    return load_card(find_bundle(client, f"{NAME}:1"))


@pytest.fixture
def bundle(first, moved_home, tmp_path):
    """Another model than the registered one, as a run's candidate."""
    model, _ = load_bundle(moved_home / "models" / NAME / "1")
    card = {key: first[key] for key in first if key not in ("name", "version")}
    save_bundle(tmp_path / "candidates" / "LR", with_another_trip(model), card, None)
    return tmp_path / "candidates" / "LR"


def new_parent(client) -> str:
    return tracking.start_run(client, "test", {})


def test_next_bundle_becomes_the_next_version_and_the_first_stays(client, first, bundle):
    card = register_bundle(client, new_parent(client), "green", bundle)
    assert (card["name"], card["version"]) == (NAME, 2)
    assert load_card(find_bundle(client, f"{NAME}:2")) == card
    assert load_card(find_bundle(client, f"{NAME}:1")) == first
    assert card["model_sha256"] != first["model_sha256"]


def test_mlflow_says_nothing_of_its_own_of_a_registration(client, bundle, capsys):
    register_bundle(client, new_parent(client), "green", bundle)
    assert capsys.readouterr() == ("", "")


def test_registering_the_same_run_again_keeps_its_version(client, bundle):
    parent = new_parent(client)
    cards = [register_bundle(client, parent, "green", bundle) for _ in range(2)]
    assert cards[0] == cards[1]
    assert [row.number for row in list_versions(client, NAME)] == [2, 1]


def test_registration_killed_before_the_bundle_was_copied_goes_on(client, bundle, moved_home):
    parent = new_parent(client)
    register_bundle(client, parent, "green", bundle)
    shutil.rmtree(moved_home / "models" / NAME / "2")
    assert register_bundle(client, parent, "green", bundle)["version"] == 2
    assert (moved_home / "models" / NAME / "2" / "model.bin").exists()


def test_lost_tracking_store_never_makes_a_version_overwrite_another_model(
    first, bundle, moved_home, tmp_path, monkeypatch
):
    shutil.rmtree(moved_home / "tracking")
    # MLflow keeps one connection per address in a process: the same address would be dead.
    moved_home = moved_home.rename(tmp_path / "home without tracking")
    monkeypatch.setenv("TAXI_HOME", str(moved_home))
    client = tracking.connect()
    parent = new_parent(client)
    card = register_bundle(client, parent, "green", bundle)
    assert card["version"] == 2
    assert load_bundle(moved_home / "models" / NAME / "1")[1] == first
    assert register_bundle(client, parent, "green", bundle) == card
    assert [row.number for row in list_versions(client, NAME)] == [2]


def test_damaged_bundle_is_not_registered(client, bundle):
    (bundle / "model.bin").write_bytes(b"\x80" + (bundle / "model.bin").read_bytes()[1:-1])
    with pytest.raises(BundleError):
        register_bundle(client, new_parent(client), "green", bundle)
    assert [row.number for row in list_versions(client, NAME)] == [1]


def test_registered_version_is_signed_when_there_is_a_key(client, bundle, moved_home, monkeypatch):
    model, card = load_bundle(bundle)
    save_bundle(bundle, model, card, b"secret")
    monkeypatch.setenv("MODEL_SIGNING_KEY", "secret")
    register_bundle(client, new_parent(client), "green", bundle)
    load_bundle(moved_home / "models" / NAME / "2", b"secret")
    with pytest.raises(BundleError, match="wrong signature"):
        load_bundle(moved_home / "models" / NAME / "2", b"another")


def test_every_kind_of_reference_finds_the_bundle(client, first, moved_home):
    folder = moved_home / "models" / NAME / "1"
    digest = first["model_sha256"]
    references = (":1", ":champion", ":latest", f"@sha256:{digest}", f"@sha256:{digest[:12]}")
    assert {find_bundle(client, NAME + reference) for reference in references} == {folder}


@pytest.mark.parametrize("reference", [":9", ":challenger", "@sha256:00000000"])
def test_unknown_reference_is_refused_with_what_there_is(client, reference):
    with pytest.raises(NotFoundError, match=r"green-duration has 1:champion"):
        find_bundle(client, NAME + reference)


def test_model_of_a_service_without_versions_is_not_found(client):
    with pytest.raises(NotFoundError, match="no versions"):
        find_bundle(client, "yellow-duration:latest")
    with pytest.raises(SettingError):
        find_bundle(client, "green")


def test_version_without_its_bundle_is_found_and_has_to_be_pulled(client, first, moved_home):
    shutil.rmtree(moved_home / "models")
    digest = first["model_sha256"]
    for reference in (":1", ":champion", ":latest", f"@sha256:{digest[:12]}"):
        assert find_version(client, NAME + reference).number == 1
        with pytest.raises(NotFoundError, match=r"`python pipeline\.py pull green-duration:1`"):
            find_bundle(client, NAME + reference)


def test_bundle_of_another_model_is_not_given_out(client, bundle, moved_home):
    shutil.copytree(bundle, moved_home / "models" / NAME / "1", dirs_exist_ok=True)
    with pytest.raises(RegistryError, match="models/green-duration/1 holds another model"):
        find_bundle(client, f"{NAME}:1")


def test_versions_are_listed_with_the_facts_of_their_cards(client, first):
    (row,) = list_versions(client)
    assert (row.name, row.number, row.aliases) == (NAME, 1, ("champion",))
    assert (row.train, row.validation, row.data_source) == ("2021-01", "2021-02", "sample")
    assert row.rmse == first["metrics"]["with_distance"]["rmse"]


def test_versions_are_listed_from_the_registry_when_models_is_lost(client, bundle, moved_home):
    register_bundle(client, new_parent(client), "green", bundle)
    before = list_versions(client)
    shutil.rmtree(moved_home / "models")
    (second, _) = list_versions(client)
    assert second == replace(before[0], bundle="missing")


def test_damaged_card_does_not_hide_the_versions(client, first, moved_home):
    (moved_home / "models" / NAME / "1" / "card.json").write_text('{"name": "green-du')
    (row,) = list_versions(client)
    assert (row.bundle, row.sha256) == ("damaged", first["model_sha256"])


def test_card_of_another_model_is_not_taken_for_the_versions(client, first, bundle, moved_home):
    shutil.copytree(bundle, moved_home / "models" / NAME / "1", dirs_exist_ok=True)
    (row,) = list_versions(client)
    assert (row.bundle, row.sha256) == ("another model", first["model_sha256"])


def test_server_that_does_not_answer_is_told(moved_home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="Connection refused"):
        list_versions(tracking.connect())


def test_mlflows_version_answers_as_the_bundle_does(client, bundle):
    import mlflow

    register_bundle(client, new_parent(client), "green", bundle)
    served = mlflow.pyfunc.load_model(f"models:/{NAME}/2").unwrap_python_model().model
    own, _ = load_bundle(bundle)
    rides = Rides.from_dicts([RIDE])
    assert served.answer(rides).p90 == own.answer(rides).p90
