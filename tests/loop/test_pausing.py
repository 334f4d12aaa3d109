"""The brake: what a paused loop does not do, and how a pause begins and ends."""

from __future__ import annotations

import pytest
from test_turn import WRONG, FakeWorld, serving, version

from taxi_duration.errors import ContentError
from taxi_duration.files import read_json, write_json
from taxi_duration.live.audit import read_audit, user_name
from taxi_duration.live.deployment import deploy_champion, read_deployment, read_history
from taxi_duration.loop.pausing import pause, read_pause, resume
from taxi_duration.loop.state import State, read_state
from taxi_duration.loop.turn import take_turn


@pytest.fixture
def deployed(home):
    deploy_champion(version(1), "the first")
    return home


def marks() -> list[tuple[str, str, str]]:
    return [(line["who"], line["what"], line["why"]) for line in read_audit()]


def test_paused_turn_says_so_and_does_nothing_else(deployed):
    pause("street fair")
    before = (read_deployment(), read_history(), read_audit())
    said: list[str] = []
    assert take_turn(FakeWorld(), say=said.append) == []
    assert (read_deployment(), read_history(), read_audit()) == before
    assert read_state() == State()
    (line,) = said
    assert f"by {user_name()}: street fair" in line and "auto resume" in line


def test_resumed_loop_does_what_it_would_have_done(deployed):
    pause("street fair")
    take_turn(FakeWorld())
    assert resume()
    take_turn(FakeWorld())
    assert serving() == 2


def test_pause_in_the_middle_of_a_turn_keeps_the_next_step_from_beginning(deployed):
    world = FakeWorld()
    train = world.train

    def train_and_pause(*args):
        pause("somebody looked")
        return train(*args)

    world.train = train_and_pause
    lines = take_turn(world)
    assert [line["what"] for line in lines] == [
        "retrain on the months before 2021-03", "made green-duration:2",
    ]  # fmt: skip
    assert read_state().stage == "gate"
    assert read_deployment().challenger is None
    resume()
    take_turn(world)
    assert serving() == 2


def test_paused_turn_looks_and_says_which_rollback_is_due_but_does_not_roll_back(deployed):
    deploy_champion(version(2), "new")
    pause("feedback is not to be trusted")
    said: list[str] = []
    take_turn(FakeWorld(live_reasons=(WRONG,)), say=said.append)
    assert "it would distrust green-duration:2 as `rollback` does" in said[0]
    assert serving() == 2


def test_paused_turn_without_a_deployment_only_says_that_it_is_paused(home):
    pause("not yet")
    said: list[str] = []
    take_turn(FakeWorld(), say=said.append)
    assert len(said) == 1 and "not yet" in said[0]


def test_pause_and_resume_leave_a_line_each_with_who_and_why(home):
    pause("street fair")
    resume()
    (began, ended) = marks()
    assert began == (user_name(), "pause the loop", "street fair")
    assert ended[:2] == (user_name(), "resume the loop")
    assert "street fair" in ended[2]


def test_second_pause_changes_nothing_and_says_so(home):
    first, is_new = pause("street fair")
    assert is_new
    assert pause("another reason") == (first, False)
    assert read_pause() == first
    assert len(read_audit()) == 1


def test_resume_without_a_pause_leaves_no_line(home):
    assert not resume()
    assert read_audit() == []


def test_pause_killed_before_its_line_gets_it_from_the_next(home):
    pause("street fair")
    (home / "deployment" / "audit.jsonl").unlink()
    pause("again")
    assert [line["why"] for line in read_audit()] == ["street fair"]


def test_resume_killed_before_the_act_leaves_one_line(home):
    pause("street fair")
    content = read_json(home / "deployment" / "paused.json")
    resume()
    write_json(home / "deployment" / "paused.json", content)  # the file was not removed yet
    resume()
    assert [line["what"] for line in read_audit()] == ["pause the loop", "resume the loop"]
    assert read_pause() is None


@pytest.mark.parametrize("content", ["", "[]", '{"at": "now"}'])
def test_pause_that_cannot_be_read_keeps_the_loop_paused_until_resumed(deployed, content):
    path = deployed / "deployment" / "paused.json"
    path.write_text(content)
    with pytest.raises(ContentError, match=r"paused\.json cannot be read .*auto resume"):
        take_turn(FakeWorld())
    assert serving() == 1 and read_state() == State()
    assert resume()
    assert "cannot be read" in read_audit()[-1]["why"]
    take_turn(FakeWorld())
    assert serving() == 2


def test_paused_turn_names_a_champion_that_cannot_be_read_and_pulls_nothing(deployed):
    pause("street fair")
    said: list[str] = []
    world = FakeWorld(damaged=(1,), gone=(1,))
    take_turn(world, say=said.append)
    assert "green-duration:1 is damaged" in said[0]
    assert world.gone == (1,)
