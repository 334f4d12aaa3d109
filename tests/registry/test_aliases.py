import json

import pytest

from taxi_duration import environment
from taxi_duration.errors import NotFoundError, SettingError
from taxi_duration.live.deployment import read_history
from taxi_duration.model.bundle import load_card
from taxi_duration.registry import tracking
from taxi_duration.registry.aliases import (
    ALIAS_FILE,
    read_alias_history,
    set_alias,
    tag_version,
    untag_version,
)
from taxi_duration.registry.versions import find_version

NAME = "green-duration"

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


@pytest.fixture
def client(moved_home):
    """A registry with two versions; the first is the champion."""
    client = tracking.connect()
    first = client.get_model_version(NAME, "1")
    client.create_model_version(NAME, first.source, run_id=first.run_id, model_id=first.model_id)
    return client


def moves(alias: str) -> list[tuple]:
    return [(e["before"], e["version"]) for e in read_alias_history() if e["alias"] == alias]


def test_alias_moves_and_goes(client):
    assert tag_version(client, f"{NAME}:1", "stable") == (NAME, "stable", 1, None)
    assert tag_version(client, f"{NAME}:2", "stable") == (NAME, "stable", 2, 1)
    assert find_version(client, f"{NAME}:stable").number == 2
    assert untag_version(client, f"{NAME}:stable") == (NAME, "stable", None, 2)
    with pytest.raises(NotFoundError):
        find_version(client, f"{NAME}:stable")


def test_every_kind_of_reference_can_be_tagged(client, moved_home):
    digest = load_card(moved_home / "models" / NAME / "1")["model_sha256"]
    for label, expected in ((":2", 2), (":champion", 1), (":latest", 2), (f"@sha256:{digest}", 1)):
        assert tag_version(client, NAME + label, "stable").version == expected


def test_several_aliases_may_mean_one_version(client):
    tag_version(client, f"{NAME}:1", "stable")
    tag_version(client, f"{NAME}:stable", "winter")
    assert find_version(client, f"{NAME}:1").aliases == ("champion", "stable", "winter")


def test_every_change_is_kept_with_its_time_and_who_made_it(client):
    tag_version(client, f"{NAME}:1", "stable")
    tag_version(client, f"{NAME}:2", "stable")
    untag_version(client, f"{NAME}:stable")
    assert moves("stable") == [(None, 1), (1, 2), (2, None)]
    (line, *_) = [line for line in read_alias_history() if line["alias"] == "stable"]
    assert line["at"].endswith("+00:00") and line["who"] and line["name"] == NAME


def test_tagging_again_changes_nothing_and_leaves_no_line(client):
    for _ in range(2):
        change = tag_version(client, f"{NAME}:1", "stable")
    assert change.before == change.version == 1
    assert moves("stable") == [(None, 1)]


def test_aliases_that_follow_the_deployment_are_kept_too(client):
    set_alias(client, NAME, "champion", 2)
    assert moves("champion") == [(None, 1), (1, 2)]


def test_changes_of_aliases_are_no_lines_of_who_served(client):
    before = read_history()
    tag_version(client, f"{NAME}:2", "stable")
    assert read_history() == before


def test_line_cut_by_a_crash_spoils_neither_the_history_nor_the_next_line(client):
    tag_version(client, f"{NAME}:1", "stable")
    with (environment.deployment_dir() / ALIAS_FILE).open("a") as file:
        file.write(json.dumps({"at": "2021-03-01", "alias": "stable"})[:-9])
    tag_version(client, f"{NAME}:2", "stable")
    assert moves("stable") == [(None, 1), (1, 2)]


def test_version_that_is_not_there_is_not_tagged(client):
    with pytest.raises(NotFoundError, match=r"green-duration:9 .* has 2, 1:champion"):
        tag_version(client, f"{NAME}:9", "stable")
    assert moves("stable") == []


@pytest.mark.parametrize("alias", ["champion", "challenger", "latest", "7"])
def test_alias_that_is_not_a_users_is_not_given(client, alias):
    before = read_alias_history()
    with pytest.raises(SettingError):
        tag_version(client, f"{NAME}:2", alias)
    assert read_alias_history() == before


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        (f"{NAME}:champion", SettingError, "promote"),
        (f"{NAME}:latest", SettingError, "not allowed"),
        (f"{NAME}:1", SettingError, "not an alias; write NAME:ALIAS"),
        (f"{NAME}@sha256:01234567", SettingError, "not an alias; write NAME:ALIAS"),
        (f"{NAME}:stable", NotFoundError, "has 2, 1:champion"),
    ],
)
def test_only_a_users_alias_is_taken_away(client, reference, error, said):
    with pytest.raises(error, match=said):
        untag_version(client, reference)
    assert find_version(client, f"{NAME}:champion").number == 1


def test_no_change_yet_is_an_empty_history(home):
    assert read_alias_history() == []
