"""What MLflow keeps of the history, and what it answers when it is asked about a version."""

from __future__ import annotations

import pytest

from taxi_duration.errors import TrackingError
from taxi_duration.live.deployment import history_lines, read_deployment, set_challenger
from taxi_duration.model.bundle import card_digest, load_card
from taxi_duration.registry import tracking
from taxi_duration.registry.witness import Witness, ask_mlflow, copy_history, history_tag

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

NAME = "green-duration"


@pytest.fixture
def client(moved_home):
    return tracking.connect()


def copies(client) -> dict[str, str]:
    tags = client.get_registered_model(NAME).tags
    return {tag: value for tag, value in tags.items() if tag.startswith("history.")}


def expected() -> dict[str, str]:
    return {history_tag(change.at): line.sha256 for line, change in history_lines()}


def test_time_of_a_line_is_spelt_in_letters_that_mlflow_allows():
    assert history_tag("2021-03-01T09:05:07.123+00:00") == "history.20210301T090507.123"


def test_first_deployment_is_in_mlflow_and_later_lines_are_added_once(client):
    assert copies(client) == expected()
    champion = read_deployment().champion
    set_challenger(champion.__class__(NAME, 2, "2" * 64, "sample"), "test")
    assert len(copies(client)) == 1
    for _ in range(2):
        copy_history(client, NAME)
        assert copies(client) == expected()
    assert len(copies(client)) == 2


def test_a_copy_is_never_replaced(client, moved_home, caplog):
    before = copies(client)
    path = moved_home / "deployment" / "history.jsonl"
    path.write_text(path.read_text().replace("first model", "forged model"))
    copy_history(client, NAME)
    assert copies(client) == before
    assert "line 1 differs" in caplog.text


def test_mlflow_tells_all_that_it_knows_of_a_version(client, moved_home):
    card = load_card(moved_home / "models" / NAME / "1")
    said = ask_mlflow(NAME, "1", "LR")
    assert said.tags["model_sha256"] == card["model_sha256"]
    assert said.parent.tags["run_id"] == card["run_id"]
    assert said.child.tags["model_kind"] == "LR"
    assert said.child.metrics["with_distance.rmse"] == card["metrics"]["with_distance"]["rmse"]
    assert set(said.months) == {("training", "2021-01"), ("validation", "2021-02")}
    (train,) = card["months"]["train"]
    assert said.months["training", "2021-01"]["sha256"] == train["sha256"]
    assert said.months["training", "2021-01"]["url"] is None
    assert said.history == expected()
    assert (said.model_sha256, said.card_sha256) == (card["model_sha256"], card_digest(card))


def test_version_that_mlflow_does_not_know_is_told_apart_from_silence(client):
    assert ask_mlflow(NAME, "9", "LR") == Witness(history=expected())
    assert ask_mlflow("yellow-duration", "1", "LR") == Witness()


def test_store_that_is_not_there_is_not_made_by_asking(home):
    with pytest.raises(TrackingError, match="is not there"):
        ask_mlflow(NAME, "1", "LR")
    assert not (home / "tracking").exists()
