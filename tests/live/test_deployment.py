"""deployment.json: who serves, who challenges, and the way back."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
import time
from unittest.mock import Mock

import pytest

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.errors import DeploymentError, NotFoundError, SettingError
from taxi_duration.files import read_json, write_json
from taxi_duration.live.audit import read_audit
from taxi_duration.live.deployment import (
    HISTORY_FILE,
    MAX_EARLIER,
    Deployment,
    deploy_champion,
    deploy_first,
    drop_challenger,
    read_deployment,
    read_history,
    roll_back,
    set_challenger,
    who_serves,
)


def version(number: int) -> Version:
    return Version("green-duration", number, f"{number:064d}", "sample")


def entry(number: int) -> dict:
    """A version as it stands in the files."""
    return {
        "name": "green-duration",
        "version": number,
        "model_sha256": f"{number:064d}",
        "data_source": "sample",
    }


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test deploys in a home of its own."""


def champion() -> int:
    return read_deployment().champion.number


def test_the_first_to_be_deployed_makes_room_for_no_other_first():
    deploy_first(version(1), "the first")
    before = read_deployment()
    assert deploy_first(version(2), "the first, it thinks") == before == read_deployment()
    assert [change.champion.number for change in read_history()] == [1]


def test_nothing_is_deployed_in_a_fresh_home():
    assert read_deployment() is None
    assert read_history() == []


def test_first_champion_has_nothing_before_it():
    deployment = deploy_champion(version(1), "first")
    assert (deployment.champion, deployment.previous) == (version(1), None)
    assert deployment == read_deployment()


def test_promoting_the_champion_again_changes_nothing():
    first = deploy_champion(version(1), "first")
    assert deploy_champion(version(1), "again") == first
    assert len(read_history()) == 1


def test_rollback_puts_the_champion_before_back():
    deploy_champion(version(1), "first")
    deploy_champion(version(2), "better")
    assert roll_back("worse after all").champion.number == 1


def test_second_rollback_goes_one_further_back():
    for number in (1, 2, 3):
        deploy_champion(version(number), "next")
    roll_back("3 is bad")
    assert read_deployment().previous.number == 1
    roll_back("2 is bad too")
    assert champion() == 1


def test_rollback_never_returns_to_what_was_rolled_back():
    for number in (1, 2, 3):
        deploy_champion(version(number), "next")
    roll_back("3 is bad")
    deploy_champion(version(4), "mended")
    roll_back("4 is bad")
    assert champion() == 2


def test_rollback_without_an_earlier_champion_is_refused():
    with pytest.raises(NotFoundError, match="no earlier champion"):
        roll_back("nothing there")
    deploy_champion(version(1), "first")
    with pytest.raises(NotFoundError, match="no earlier champion"):
        roll_back("only one")
    assert champion() == 1


def test_the_way_back_is_bounded():
    for number in range(1, MAX_EARLIER + 5):
        deploy_champion(version(number), "next")
    assert len(read_deployment().earlier) == MAX_EARLIER


SPOILED = ["", "{", "[]", "null", "{}", '{"champion": null}', '{"champion": {"name": "x"}}']


@pytest.mark.parametrize("content", SPOILED)
def test_a_spoiled_deployment_is_named_with_what_mends_it(content):
    deploy_champion(version(1), "first")
    (environment.deployment_dir() / "deployment.json").write_text(content)
    with pytest.raises(DeploymentError, match=r"deployment\.json cannot be read .* promote"):
        read_deployment()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("champion", {**entry(1), "version": "1"}, "champion.version is '1', expected is `int`"),
        ("champion", {**entry(1), "version": 0}, "champion.version is 0"),
        ("champion", {**entry(1), "name": "../x"}, "champion.name is '../x'"),
        ("champion", {**entry(1), "model_sha256": "abc"}, "champion.model_sha256 is 'abc'"),
        ("champion", {**entry(1), "data_source": 3}, "champion.data_source is 3"),
        ("challenger", "green-duration:2", "challenger is 'green-duration:2', expected is `object"),
        ("challenger", {"version": 2}, "challenger: object missing required field `name`"),
        ("ab_share", float("nan"), "ab_share is nan, expected is `float` >= 0"),
        ("ab_share", -0.1, "ab_share is -0.1, expected is `float` >= 0"),
        ("ab_share", 1.1, "ab_share is 1.1, expected is `float` <= 1"),
        ("ab_share", True, "ab_share is True, expected is `float`"),
        ("ab_share", "0.2", "ab_share is '0.2', expected is `float`"),
        ("ab_share", None, "ab_share is None, expected is `float`"),
        ("shadow", 1, "shadow is 1, expected is `bool`"),
        ("earlier", [entry(1), {**entry(2), "version": "2"}], "earlier[1].version is '2'"),
        ("earlier", {}, "earlier is {}, expected is `array`"),
        ("updated", 1614556800, "updated is 1614556800, expected is `str`"),
    ],
)
def test_deployment_with_a_wrong_value_is_refused_by_its_field(field, value, said):
    deploy_champion(version(1), "first")
    path = environment.deployment_dir() / "deployment.json"
    path.write_text(json.dumps({**read_json(path), field: value}))
    with pytest.raises(DeploymentError, match=r"`python pipeline\.py promote") as error:
        read_deployment()
    assert said in str(error.value)


def test_files_keep_their_form():
    deploy_champion(version(1), "first")
    deploy_champion(version(2), "second")
    at = set_challenger(version(3), "test", ab_share=0.25, shadow=True).updated
    served = {"champion": entry(2), "challenger": entry(3), "ab_share": 0.25, "shadow": True}
    folder = environment.deployment_dir()
    content = read_json(folder / "deployment.json")
    assert content == {"updated": at, **served, "previous": entry(1), "earlier": [entry(1)]}
    assert list(content) == ["updated", *served, "previous", "earlier"]
    *_, before, line = (folder / HISTORY_FILE).read_text().splitlines()
    line, digest = json.loads(line), hashlib.sha256(before.encode()).hexdigest()
    reason = {"reason": "test", "sha256_before": digest}
    assert line == {"at": at, "action": "challenge", **served, **reason}
    assert list(line) == ["at", "action", *served, *reason]


def test_deployment_of_an_operators_hand_needs_a_champion_only():
    path = environment.deployment_dir() / "deployment.json"
    write_json(path, {"champion": entry(1), "note": "by hand"})
    assert read_deployment() == Deployment(version(1))


def test_rollback_mends_a_spoiled_deployment_from_the_history():
    for number in (1, 2, 3, 4):
        deploy_champion(version(number), "next")
    roll_back("4 was bad")
    set_challenger(version(5), "test", shadow=True)
    (environment.deployment_dir() / "deployment.json").write_text("{")
    assert roll_back("3 is bad too").champion.number == 2
    assert read_deployment().earlier == (version(1),)
    assert read_deployment().challenger is None


def test_deployment_that_cannot_be_read_at_the_moment_is_not_taken_for_a_spoiled_one(monkeypatch):
    """The history knows no way back to a test: writing it anew would end the test unasked."""
    deploy_champion(version(1), "first")
    set_challenger(version(2), "test", ab_share=0.5)
    before = read_deployment()

    def fail(*of):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr("taxi_duration.live.deployment.read_json", fail)
        with pytest.raises(DeploymentError, match="Input/output"):
            drop_challenger("not wanted")
    assert read_deployment() == before


def test_change_that_a_person_wants_is_one_line_of_the_audit_trail_with_who():
    deploy_champion(version(1), "first", who="ann")
    set_challenger(version(2), "try it", ab_share=0.1, who="bob")
    drop_challenger("enough", who="bob")
    deploy_champion(version(2), "it is better", bake=True, who="ann")
    for _ in range(2):  # the second one changes nothing
        deploy_champion(version(2), "it is better", bake=True, who="ann")
    roll_back("it is not", who="bob")
    drop_challenger("nothing is under test", who="bob")
    assert [(line["who"], line["what"], line["why"]) for line in read_audit()] == [
        ("ann", "promote green-duration:1", "first"),
        ("bob", "challenge green-duration:2", "try it"),
        ("bob", "drop green-duration:2", "enough"),
        ("ann", "promote green-duration:2", "it is better"),
        ("bob", "rollback green-duration:1", "it is not"),
    ]


def test_wish_repeated_after_a_crash_is_one_line_and_another_persons_its_own(monkeypatch):
    deploy_champion(version(1), "first")
    with monkeypatch.context() as crash:
        crash.setattr("taxi_duration.live.deployment.append_json_line", Mock(side_effect=OSError))
        for reason in ("better", "better", "I said so"):
            with pytest.raises(OSError):
                deploy_champion(version(2), reason, who="ann")
    deploy_champion(version(2), "better", who="ann")
    assert [line["why"] for line in read_audit()] == ["better", "I said so"]


def test_promote_mends_a_spoiled_deployment_and_keeps_the_way_back():
    deploy_champion(version(1), "first")
    (environment.deployment_dir() / "deployment.json").write_text("{")
    deploy_champion(version(2), "mend")
    assert champion() == 2
    assert roll_back("back").champion.number == 1


@pytest.mark.parametrize("change", [
    lambda: deploy_champion(version(1), "mend"),
    lambda: drop_challenger("mend"),
])  # fmt: skip
def test_a_spoiled_deployment_is_written_anew_also_when_its_only_champion_stays(change):
    deploy_champion(version(1), "first")
    (environment.deployment_dir() / "deployment.json").write_text("{")
    assert change().champion == version(1)
    assert read_deployment().champion == version(1)
    assert [line.reason for line in read_history()] == ["first", "mend"]


def test_a_folder_in_place_of_the_deployment_is_named_without_a_remedy_that_fails():
    (environment.deployment_dir() / "deployment.json").mkdir(parents=True)
    with pytest.raises(DeploymentError, match="a file that this user can read") as error:
        deploy_champion(version(1), "first")
    assert "promote" not in str(error.value)


def test_a_deployment_written_without_earlier_can_be_rolled_back():
    deploy_champion(version(1), "first")
    deployment = deploy_champion(version(2), "next").as_dict()
    del deployment["earlier"]
    path = environment.deployment_dir() / "deployment.json"
    path.write_text(json.dumps(deployment))
    assert roll_back("old file").champion.number == 1


def test_challenger_is_set_beside_the_champion():
    deploy_champion(version(1), "first")
    deployment = set_challenger(version(2), "passed the gate", ab_share=0.25, shadow=True)
    assert (deployment.champion, deployment.challenger) == (version(1), version(2))
    assert (deployment.ab_share, deployment.shadow) == (0.25, True)


def test_setting_the_same_challenger_again_changes_nothing():
    deploy_champion(version(1), "first")
    first = set_challenger(version(2), "passed", ab_share=0.5)
    assert set_challenger(version(2), "again", ab_share=0.5) == first
    assert len(read_history()) == 2


def test_share_of_a_challenger_can_be_changed():
    deploy_champion(version(1), "first")
    set_challenger(version(2), "shadow first", shadow=True)
    assert set_challenger(version(2), "now A/B", ab_share=0.5, shadow=False).ab_share == 0.5
    assert read_history()[-1].shadow is False


def test_both_versions_of_a_test_answer_every_ride_unless_told_otherwise():
    deploy_champion(version(1), "first")
    assert set_challenger(version(2), "test", ab_share=0.5).shadow is True


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside_zero_to_one_is_refused(share):
    deploy_champion(version(1), "first")
    with pytest.raises(SettingError, match="0 to 1"):
        set_challenger(version(2), "too much", ab_share=share)


def test_challenger_without_a_champion_is_refused():
    with pytest.raises(NotFoundError, match="champion to beat"):
        set_challenger(version(1), "too early")


def test_champion_cannot_challenge_itself():
    deploy_champion(version(1), "first")
    with pytest.raises(SettingError, match="challenge itself"):
        set_challenger(version(1), "mistake")


def test_dropped_challenger_leaves_the_champion_and_the_way_back():
    deploy_champion(version(1), "first")
    deploy_champion(version(2), "second")
    set_challenger(version(3), "test", ab_share=0.5)
    deployment = drop_challenger("worse")
    assert (deployment.challenger, deployment.ab_share) == (None, 0.0)
    assert deployment.previous.number == 1


def test_dropping_no_challenger_changes_nothing():
    with pytest.raises(NotFoundError, match="nothing is deployed"):
        drop_challenger("nothing at all")
    deploy_champion(version(1), "first")
    drop_challenger("none there")
    assert len(read_history()) == 1


@pytest.mark.parametrize(
    "move", [lambda: deploy_champion(version(3), "won"), lambda: roll_back("x")]
)
def test_a_new_champion_ends_the_test(move):
    deploy_champion(version(1), "first")
    deploy_champion(version(2), "second")
    set_challenger(version(3), "test", ab_share=0.5, shadow=True)
    deployment = move()
    assert (deployment.challenger, deployment.ab_share, deployment.shadow) == (None, 0.0, False)


def test_history_tells_every_change_and_its_reason():
    deploy_champion(version(1), "first")
    set_challenger(version(2), "test", ab_share=0.5)
    drop_challenger("worse")
    history = read_history()
    assert [line.action for line in history] == ["promote", "challenge", "drop"]
    assert [line.reason for line in history] == ["first", "test", "worse"]
    assert history[1].challenger == version(2)


def test_history_survives_a_line_cut_by_a_crash():
    deploy_champion(version(1), "first")
    with (environment.deployment_dir() / HISTORY_FILE).open("a") as file:
        file.write('{"at": "2021-01-01", "champion": {"version": 2}')
    deploy_champion(version(2), "second")
    assert [line.reason for line in read_history()] == ["first", "second"]


def test_a_line_whose_time_is_none_is_no_change():
    deploy_champion(version(1), "first")
    path = environment.deployment_dir() / HISTORY_FILE
    line = {**json.loads(path.read_text()), "at": "yesterday"}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    assert [line.reason for line in read_history()] == ["first"]


def test_changes_at_the_same_time_are_all_kept():
    deploy_champion(version(1), "first")
    threads = [
        threading.Thread(target=deploy_champion, args=(version(v), "race")) for v in range(2, 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deployment = read_deployment()
    served = [each.number for each in (*deployment.earlier, deployment.champion)]
    assert sorted(served) == [1, 2, 3, 4, 5, 6, 7]
    assert len(read_history()) == 7


def test_nobody_serves_before_the_first_deployment():
    assert who_serves() == {}


def test_champion_serves_all_since_it_was_promoted():
    at = deploy_champion(version(1), "first").updated
    assert who_serves() == {"green-duration:1": f"champion, 100% since {at[:19]}"}


def test_both_have_their_shares_since_the_challenger_took_its_own():
    promoted = deploy_champion(version(1), "first").updated[:19]
    time.sleep(1.1)  # dates are told to the second
    set_at = set_challenger(version(2), "test", ab_share=0.25).updated[:19]
    assert promoted < set_at
    assert who_serves() == {
        "green-duration:1": f"champion, 75% since {set_at}",
        "green-duration:2": f"challenger, 25% and shadow since {set_at}",
    }


@pytest.mark.parametrize(
    ("test", "does"),
    [
        ({"shadow": True}, "challenger, shadow"),
        ({"ab_share": 0.2, "shadow": False}, "challenger, 20%"),
        ({"ab_share": 0.2, "shadow": True}, "challenger, 20% and shadow"),
        ({"shadow": False}, "challenger, 0%"),
    ],
)
def test_share_and_shadow_of_a_challenger_are_told_apart(test, does):
    deploy_champion(version(1), "first")
    at = set_challenger(version(2), "test", **test).updated[:19]
    share = test.get("ab_share", 0.0)
    serving = who_serves()
    assert serving["green-duration:2"] == f"{does} since {at}"
    assert serving["green-duration:1"].startswith(f"champion, {1 - share:.0%} since ")


def test_new_champion_bakes_beside_the_one_before():
    deploy_champion(version(1), "first")
    set_challenger(version(2), "test", ab_share=0.5)
    deployment = deploy_champion(version(2), "won", bake=True)
    assert (deployment.champion, deployment.challenger) == (version(2), version(1))
    assert (deployment.ab_share, deployment.shadow, deployment.is_baking) == (0.0, True, True)
    assert deployment.earlier == (version(1),)
    at = deployment.updated[:19]
    assert who_serves() == {
        "green-duration:2": f"champion, 100% (baking) since {at}",
        "green-duration:1": f"earlier champion, shadow since {at}",
    }
    assert [line.action for line in read_history()] == ["promote", "challenge", "promote"]


def test_first_champion_has_nothing_to_bake_beside():
    assert deploy_champion(version(1), "first", bake=True).challenger is None


def test_promoting_the_baking_champion_again_changes_nothing():
    deploy_champion(version(1), "first")
    first = deploy_champion(version(2), "won", bake=True)
    assert deploy_champion(version(2), "again", bake=True) == first
    assert drop_challenger("baked").is_baking is False
    assert deploy_champion(version(2), "again", bake=True).challenger is None


@pytest.mark.parametrize(
    "test",
    [
        {"challenger": version(3)},  # not the one before
        {"challenger": version(1), "ab_share": 0.2},  # gets riders: a test to bring it back
        {"challenger": version(1), "shadow": False},
    ],
)
def test_test_that_is_no_baking_is_told_apart(test):
    deploy_champion(version(1), "first")
    deploy_champion(version(2), "second")
    assert set_challenger(reason="by hand", **test).is_baking is False


def test_rollback_ends_the_baking():
    deploy_champion(version(1), "first")
    deploy_champion(version(2), "won", bake=True)
    assert roll_back("worse") == read_deployment()
    assert (champion(), read_deployment().challenger) == (1, None)


def test_share_without_a_challenger_is_nobodys():
    path = environment.deployment_dir() / "deployment.json"
    write_json(path, {"champion": entry(1), "ab_share": 0.2, "updated": "2021-03-01T00:00:00.000"})
    assert who_serves() == {"green-duration:1": "champion, 100% since 2021-03-01T00:00:00"}
