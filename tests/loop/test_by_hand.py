"""What a person does to a test: it ends, whatever the loop was about to do."""

from __future__ import annotations

import pytest
from filelock import FileLock
from msgspec.structs import replace
from test_turn import FakeWorld, serving, version, whats

from taxi_duration.errors import ContentError, DeploymentError, NotFoundError
from taxi_duration.live.audit import read_audit, user_name
from taxi_duration.live.deployment import (
    deploy_champion,
    drop_challenger,
    read_deployment,
    read_history,
    set_challenger,
)
from taxi_duration.loop import by_hand
from taxi_duration.loop.by_hand import end_test
from taxi_duration.loop.state import State, Unlogged, read_state, write_state
from taxi_duration.loop.turn import LOCK_FILE, take_turn


@pytest.fixture
def deployed(home):
    deploy_champion(version(1), "the first")
    return home


@pytest.fixture
def tested(deployed):
    """Version 2 is in the shadow of version 1, by the loop."""
    take_turn(FakeWorld(feedback_days=0))
    return deployed


def drops() -> list[dict]:
    return [line for line in read_audit() if line["what"].startswith("drop")]


def test_challenger_leaves_and_its_month_is_dealt_with(tested):
    assert end_test("odd answers") == version(2)
    assert read_deployment().challenger is None and serving() == 1
    assert (read_history()[-1].action, read_history()[-1].reason) == ("drop", "odd answers")
    (line,) = drops()
    assert (line["who"], line["what"], line["why"]) == (
        user_name(), "drop green-duration:2", "odd answers",
    )  # fmt: skip
    state = read_state()
    assert (state.stage, state.looked_at, state.challenger) == ("idle", "2021-03", None)


def test_next_turn_does_not_begin_the_test_again_and_mlflow_hears_of_the_drop(tested):
    world = FakeWorld(feedback_days=0)
    end_test("odd answers")
    assert whats(take_turn(world)) == ["nothing"]
    assert ("drop green-duration:2", 2) in world.logged
    assert read_deployment().challenger is None


def test_what_the_loop_knows_of_months_outlives_a_test(tested):
    write_state(replace(read_state(), republished=("a" * 64,), unlogged=(Unlogged("k", None),)))
    end_test("odd answers")
    state = read_state()
    assert state.republished == ("a" * 64,)
    assert len(state.unlogged) == 2 and state.unlogged[0] == Unlogged("k", None)


def test_second_drop_changes_nothing(tested):
    end_test("odd answers")
    before = (read_state(), read_history(), read_audit())
    assert end_test("again") is None
    assert (read_state(), read_history(), read_audit()) == before


@pytest.mark.parametrize("done", ["nothing", "line", "deployment"])
def test_drop_killed_at_any_point_is_finished_by_the_next_with_one_line(tested, monkeypatch, done):
    class Killed(BaseException):
        """As `kill -9`, but for this process."""

    def die(*args, **kwargs):
        raise Killed

    name = {"nothing": "record", "line": "drop_challenger", "deployment": "write_state"}[done]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(by_hand, name, die)
        end_test("odd answers")
    assert end_test("odd answers") == version(2)
    assert len(drops()) == 1
    assert [change.action for change in read_history()].count("drop") == 1
    assert read_state().stage == "idle"
    assert read_deployment().challenger is None


def test_challenger_that_a_person_set_and_no_turn_saw_leaves_too(deployed):
    set_challenger(version(7), "by hand", ab_share=0.5)
    assert end_test("enough") == version(7)
    assert read_deployment().challenger is None
    assert read_state() == State()
    set_challenger(version(7), "once more", ab_share=0.5)
    assert end_test("enough") == version(7)
    assert len(drops()) == 2


def test_decided_promotion_that_was_not_done_yet_is_ended(tested):
    write_state(State("promote", challenger=version(2), champion=version(1), month="2021-03"))
    assert end_test("no") == version(2)
    take_turn(FakeWorld(published=()))
    assert serving() == 1


def test_promotion_that_was_done_is_not_undone(deployed):
    write_state(State("promote", challenger=version(2), champion=version(1), month="2021-03"))
    deploy_champion(version(2), "better")
    assert end_test("too late") is None
    assert serving() == 2
    assert read_state().stage == "promote"


def test_baking_of_a_new_champion_is_ended_and_it_stays(deployed):
    deploy_champion(version(2), "better", bake=True)
    write_state(State("baking", challenger=version(1), champion=version(2)))
    assert end_test("it is well") == version(1)
    assert (serving(), read_deployment().challenger) == (2, None)
    assert read_state().stage == "idle"


@pytest.mark.parametrize("stage", ["train", "gate", "refit", "roll_back"])
def test_what_is_no_test_goes_on(deployed, stage):
    state = State(stage, month="2021-03", challenger=version(2), champion=version(1))
    write_state(state)
    assert end_test("enough") is None
    assert read_state() == state


def test_turn_at_work_is_not_waited_for_and_finds_the_test_ended(tested, monkeypatch):
    monkeypatch.setattr(by_hand, "LOCK_SECONDS", 0)
    state = read_state()
    with FileLock(tested / "deployment" / LOCK_FILE):
        assert end_test("now") == version(2)
    assert read_deployment().challenger is None
    assert read_state() == state
    assert whats(take_turn(FakeWorld())) == ["leave green-duration:2"]


def test_state_that_cannot_be_read_does_not_keep_the_challenger(tested):
    (tested / "deployment" / "auto.json").write_text("{")
    with pytest.raises(ContentError, match=r"auto\.json"):
        end_test("enough")
    assert read_deployment().challenger is None


def test_test_that_ended_otherwise_is_ended_in_the_state_too(tested):
    drop_challenger("by another tool")
    assert end_test("enough") == version(2)
    assert read_state().stage == "idle"


def test_nothing_deployed_is_an_error(home):
    with pytest.raises(NotFoundError, match="nothing is deployed"):
        end_test("enough")


def test_deployment_that_cannot_be_read_is_an_error_that_says_what_to_do(deployed):
    (deployed / "deployment" / "deployment.json").write_text("{")
    with pytest.raises(DeploymentError, match="promote"):
        end_test("enough")
