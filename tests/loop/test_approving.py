"""A person's approval: what waits for it, for how long, and what it is good for."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from test_turn import WRONG, FakeWorld, serving, version, whats

from taxi_duration.errors import ContentError, NotFoundError, SettingError
from taxi_duration.files import read_json, write_json
from taxi_duration.live.audit import read_audit, user_name
from taxi_duration.live.deployment import deploy_champion, read_deployment, set_challenger
from taxi_duration.loop import approving
from taxi_duration.loop.approving import approve, read_approval, waiting
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.state import State, read_state, write_state
from taxi_duration.loop.turn import take_turn


@pytest.fixture
def deployed(home, monkeypatch):
    monkeypatch.setenv("AUTO_APPROVE", "manual")
    deploy_champion(version(1), "the first")
    return home


def path_of(home):
    return home / "deployment" / "approval.json"


def asked() -> list[str]:
    return [what for what in whats(read_audit()) if what.startswith("ask ")]


def test_shadow_needs_no_word_and_riders_do(deployed):
    for _ in range(3):
        lines = take_turn(FakeWorld())
    assert whats(lines) == ["wait"]
    assert "pipeline.py approve" in lines[0]["why"]
    assert read_state().stage == "shadow"
    assert (read_deployment().shadow, read_deployment().ab_share) == (True, 0.0)
    assert asked() == ["ask for approval: A/B-test green-duration:2"]


def test_word_lets_the_next_turn_do_the_one_thing_and_the_next_thing_waits_again(deployed):
    world = FakeWorld()
    take_turn(world)
    approve("green-duration:2")
    assert "A/B-test green-duration:2" in whats(take_turn(world))
    assert (serving(), read_deployment().ab_share) == (1, auto_settings().ab_share)
    assert waiting().what == "promote green-duration:2"
    take_turn(world)
    assert serving() == 1
    approve(None)
    assert "promote green-duration:2" in whats(take_turn(world))
    assert serving() == 2
    assert waiting() is None
    assert len(asked()) == 2


def test_word_stands_in_the_trail_with_who_gave_it(deployed):
    take_turn(FakeWorld())
    given = approve(None)
    assert approve(None) == given  # safe to repeat
    (line,) = [line for line in read_audit() if line["what"].startswith("approve")]
    assert (line["who"], line["what"]) == (user_name(), "approve: A/B-test green-duration:2")
    assert line["why"] == given.why


def test_word_killed_before_its_line_gets_it_when_repeated(deployed):
    take_turn(FakeWorld())
    approve(None)
    audit = deployed / "deployment" / "audit.jsonl"
    audit.write_text("".join(audit.read_text().splitlines(keepends=True)[:-1]))
    approve(None)
    assert len([what for what in whats(read_audit()) if what.startswith("approve")]) == 1


def test_nothing_waits_and_nothing_can_be_approved(deployed):
    with pytest.raises(NotFoundError, match="nothing waits"):
        approve(None)
    take_turn(FakeWorld(feedback_days=0))  # in the shadow, undecided
    with pytest.raises(NotFoundError, match="nothing waits"):
        approve("green-duration:2")


def test_another_version_is_refused(deployed):
    take_turn(FakeWorld())
    with pytest.raises(SettingError, match=r"green-duration:1 does not wait .*green-duration:2"):
        approve("green-duration:1")
    assert read_approval().who is None


def test_challenger_whose_luck_turns_while_it_waits_is_dropped(deployed):
    world = FakeWorld()
    take_turn(world)
    approve(None)
    world.shadow_gain = -0.5
    assert "drop green-duration:2" in whats(take_turn(world))
    with pytest.raises(NotFoundError):
        approve(None)


def test_evidence_that_falls_takes_back_the_question_and_the_word(deployed):
    world = FakeWorld()
    take_turn(world)
    approve(None)
    world.feedback_days = 5  # too few to decide
    assert "is being tested" in take_turn(world)[0]["why"]
    assert read_approval() is None
    world.feedback_days = 12
    take_turn(world)
    assert read_deployment().ab_share == 0.0
    assert waiting().who is None


def test_wrong_champion_is_rolled_back_without_a_word(deployed):
    deploy_champion(version(2), "new")
    set_challenger(version(3), "by hand", shadow=True)
    world = FakeWorld(published=())
    world.live_health = lambda model: world._health("live log", model, ())
    take_turn(world)
    assert waiting().version == version(3)
    take_turn(FakeWorld(live_reasons=(WRONG,), published=()))
    assert serving() == 1
    assert waiting() is None


@pytest.mark.parametrize("stage", ["start_ab", "promote"])
def test_act_that_was_decided_before_words_were_asked_for_waits_too(deployed, stage):
    share = 0.2 if stage == "promote" else 0.0
    set_challenger(version(2), "by the loop", ab_share=share)
    state = State(stage, serial=7, challenger=version(2), champion=version(1), why="nearer")
    write_state(state)
    (line,) = take_turn(FakeWorld(published=()))
    assert line["what"] == "wait"
    assert read_state() == state
    approve("green-duration:2")
    take_turn(FakeWorld(published=(), feedback_days=0))
    done = {"start_ab": (1, auto_settings().ab_share), "promote": (2, 0.0)}
    assert (serving(), read_deployment().ab_share) == done[stage]


def test_rollback_goes_on_while_an_act_waits(deployed):
    deploy_champion(version(2), "new")
    write_state(State("promote", serial=7, challenger=version(3), champion=version(2)))
    take_turn(FakeWorld(live_reasons=(WRONG,), published=()))
    assert serving() == 1


def test_share_that_a_person_gave_needs_no_second_word(deployed):
    set_challenger(version(7), "by hand", ab_share=0.3, shadow=True)
    take_turn(FakeWorld(published=()))
    assert waiting().what == "promote green-duration:7"
    assert read_deployment().ab_share == 0.3


def test_challenger_that_nobody_approves_is_dropped_in_the_end(deployed):
    world = FakeWorld(published=())
    set_challenger(version(7), "by hand", shadow=True)
    world.time = datetime.now(UTC).timestamp()
    take_turn(world)
    world.time += (auto_settings().max_test_days - 1) * 86400
    take_turn(world)
    assert read_deployment().challenger == version(7)
    world.time += 2 * 86400
    assert "drop green-duration:7" in whats(take_turn(world))
    assert "nobody approved" in read_audit()[-2]["why"] + read_audit()[-1]["why"]


@contextmanager
def clock_shows(monkeypatch, year):
    """A host whose clock is years off asks for approval, or gives it."""
    with monkeypatch.context() as clock:
        clock.setattr(approving, "iso_now", lambda: f"{year}-01-01T00:00:00.000+00:00")
        yield


def test_time_of_approval_runs_from_now_when_a_clock_was_ahead(deployed, monkeypatch):
    world = FakeWorld(published=())
    set_challenger(version(7), "by hand", shadow=True)
    world.time = datetime.now(UTC).timestamp()
    with clock_shows(monkeypatch, 2099):
        take_turn(world)
    assert read_approval().since[:4] == "2099"
    take_turn(world)
    assert read_approval().since[:4] < "2099"
    assert approve(None).who == user_name()


def test_word_given_while_a_clock_was_ahead_is_good(deployed, monkeypatch):
    world = FakeWorld(published=())
    set_challenger(version(7), "by hand", shadow=True)
    with clock_shows(monkeypatch, 2099):
        take_turn(world)
        approve(None)
    take_turn(world)
    assert read_deployment().ab_share > 0


def test_approval_is_not_waited_for_longer_than_the_stage_lasts(deployed, monkeypatch):
    """A clock that was behind when it was asked for says nothing of how long that is ago."""
    world = FakeWorld(published=())
    set_challenger(version(7), "by hand", shadow=True)
    world.time = datetime.now(UTC).timestamp()
    with clock_shows(monkeypatch, 1970):
        take_turn(world)
    assert whats(take_turn(world)) == ["wait"]
    assert read_deployment().challenger == version(7)


def test_old_word_is_not_good_for_a_later_decision_about_the_same_version(deployed):
    world = FakeWorld()
    take_turn(world)
    approve(None)
    word = read_json(path_of(deployed))
    take_turn(world)  # begins the A/B test
    state = read_state()
    write_state(replace(state, stage="shadow"))  # somebody begins it anew
    set_challenger(version(2), "anew", shadow=True)
    write_json(path_of(deployed), word)
    take_turn(world)
    assert read_deployment().ab_share == 0.0


def test_without_the_setting_nothing_waits(deployed, monkeypatch):
    monkeypatch.setenv("AUTO_APPROVE", "auto")
    take_turn(FakeWorld())
    assert serving() == 2
    assert asked() == [] and not path_of(deployed).exists()


def test_what_waited_goes_on_when_the_setting_is_taken_back(deployed, monkeypatch):
    take_turn(FakeWorld())
    monkeypatch.delenv("AUTO_APPROVE")
    take_turn(FakeWorld())
    assert serving() == 2


@pytest.mark.parametrize("content", ["", "[]", '{"stage": "start_ab"}'])
def test_word_that_cannot_be_read_lets_nothing_through(deployed, content):
    take_turn(FakeWorld())
    path_of(deployed).write_text(content)
    with pytest.raises(ContentError, match=r"approval\.json cannot be read .*asks again"):
        take_turn(FakeWorld())
    assert read_deployment().ab_share == 0.0
    path_of(deployed).unlink()
    take_turn(FakeWorld())
    assert waiting().who is None
