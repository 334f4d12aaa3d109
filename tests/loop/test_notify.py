"""What people are told: each thing once, later when it must be, and never instead of a turn."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock
from msgspec.structs import replace
from receiver import receiving
from servers import free_port

from taxi_duration import environment
from taxi_duration.domain.findings import Reason
from taxi_duration.errors import PipelineError, TrackingError
from taxi_duration.live import refusals
from taxi_duration.live.audit import record
from taxi_duration.live.refusals import note_refusal, note_served
from taxi_duration.live.verdict import Verdict, read_verdict, write_verdict
from taxi_duration.loop import notify, targets
from taxi_duration.loop.notify import LOCK_FILE, NOTIFY_FILE, notifying, waiting_messages
from taxi_duration.loop.situation import Step, wait
from taxi_duration.loop.state import State
from taxi_duration.loop.turn import BusyError

NOTHING = Step("nothing", "no month after 2021-02 is published", None)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(targets, "PAUSES", (0.0, 0.01))
    monkeypatch.setattr(notify, "SECONDS", 2.0)


@pytest.fixture
def receiver(home, monkeypatch):
    """The only target, which was named before anything happened."""
    with receiving() as receiver:
        monkeypatch.setenv("NOTIFY_URLS", receiver.url)
        monkeypatch.setenv("PUBLIC_URL", "https://taxi.example/")
        turn()
        yield receiver


def turn(*steps, error=None) -> list[str]:
    """Take a turn of these steps that ends in the error; return what was said."""
    said: list[str] = []
    with notifying(said.append) as hear:
        for step in steps:
            hear(step)
        if error is not None:
            raise error
    return said


def fail(error) -> None:
    """Take a turn that ends in this very error."""
    with pytest.raises(type(error)) as raised:
        turn(error=error)
    assert raised.value is error


def decide(what="promote green-duration:2", why="nearer by 0.2 min", key="5:promote") -> None:
    record(what, why, {}, key)


def verdict(level, days_ago=0.0, **changes) -> None:
    at = datetime.now(UTC) - timedelta(days=days_ago)
    reasons = [] if level == "ok" else [Reason("error", "alarm", "MAE is 7.1, validated was 3.4")]
    write_verdict(replace(
        Verdict(at.isoformat(timespec="seconds"), level, "live log", "green-duration:2",
                900, 700, reasons, [], []), **changes))  # fmt: skip


# --- decisions -----------------------------------------------------------------------------


def test_turns_decisions_are_one_letter_with_the_link_and_are_told_once(receiver):
    decide("retrain on the months before 2021-03", "it is 4 months old", "1:idle")
    decide()
    turn(NOTHING)
    turn(NOTHING)
    (letter,) = receiver.letters
    assert letter["title"] == "Taxi trip duration: decision"
    assert letter["type"] == "info"
    first, second, link = letter["message"].splitlines()
    assert first.endswith("retrain on the months before 2021-03: it is 4 months old")
    assert second.endswith("promote green-duration:2: nearer by 0.2 min")
    assert link == "https://taxi.example/monitor"


def test_a_reason_that_two_decisions_share_is_told_once(receiver):
    for what, why in (("trust", "better"), ("promote", "better"), ("drop", "worse")):
        decide(f"{what} green-duration:2", why, f"5:{what}")
    turn(NOTHING)
    (letter,) = receiver.letters
    told = [line.split(" ", 2)[2] for line in letter["message"].splitlines()[:-1]]
    assert told == ["trust green-duration:2: better", "promote green-duration:2",
                    "drop green-duration:2: worse"]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "kind"),
    [("promote green-duration:2", "success"), ("drop green-duration:2", "warning"),
     ("roll back green-duration:2 to green-duration:1", "warning"),
     ("give up on 2021-03", "warning"),
     ("ask for approval: promote green-duration:2", "warning"),
     ("approve: promote green-duration:2", "success"), ("pause the loop", "info"),
     ("shadow green-duration:2", "info")],
)  # fmt: skip
def test_decision_worries_as_much_as_it_is_worth(receiver, what, kind):
    decide(what)
    turn(NOTHING)
    assert receiver.letters[0]["type"] == kind


def test_look_that_changes_nothing_is_not_told(receiver):
    record("wait", "9 days and 900 rides so far", {}, None)
    turn(wait("9 days and 900 rides so far"))
    assert receiver.letters == []


def test_line_that_vouches_for_a_version_is_not_told(receiver):
    record("register green-duration:2", "made", key="register green-duration:2", sha256={"a": "1"})
    decide()
    turn(NOTHING)
    assert "promote" in receiver.text and "register" not in receiver.text


def test_decisions_before_anybody_was_to_be_told_are_no_news(home, monkeypatch):
    decide()
    with receiving() as receiver:
        monkeypatch.setenv("NOTIFY_URLS", receiver.url)
        turn(NOTHING)
        assert receiver.letters == []
        decide("drop green-duration:3", "worse", "6:drop")
        turn(NOTHING)
    assert "drop green-duration:3" in receiver.text and "promote" not in receiver.text


@pytest.mark.parametrize("stage", ["train", "refit"])
def test_what_was_decided_is_told_before_a_training_begins(receiver, stage):
    with notifying(print) as hear:
        decide("retrain on the months before 2021-03", "alarm", "1:idle")
        hear(Step("retrain on the months before 2021-03", "alarm", State(stage)))
        assert "retrain" in receiver.text
        decide("made green-duration:2", "trained", "2:train")
        hear(Step("made green-duration:2", "trained", State("gate")))
        assert "made" not in receiver.text
    assert [letter["message"].count("retrain") for letter in receiver.letters] == [1, 0]


def test_without_addresses_nothing_is_kept(home, monkeypatch):
    monkeypatch.delenv("NOTIFY_URLS", raising=False)
    decide()
    assert turn(NOTHING) == []
    assert not (home / "deployment" / NOTIFY_FILE).exists()


# --- verdicts ------------------------------------------------------------------------------


def test_verdict_is_told_when_it_changes_and_not_at_every_turn(receiver):
    for level in ("ok", "alarm", "alarm", "watch", "ok", "ok"):
        verdict(level)
        turn(NOTHING)
    told = [(letter["title"].split()[-1], letter["type"]) for letter in receiver.letters]
    assert told == [("ALARM", "failure"), ("WATCH", "warning"), ("OK", "success")]
    assert (
        "green-duration:2 (live log): MAE is 7.1, validated was 3.4 (900 rides, 700 of"
        in (receiver.letters[0]["message"])
    )
    assert "well again; the monitor said watch before" in receiver.letters[2]["message"]


def test_unknown_is_told_once_it_has_lasted_and_what_it_hid_is_told_after_it(receiver, monkeypatch):
    def look(level, days_ago=0.0):
        verdict("ok", days_ago)
        shown = replace(read_verdict(), verdict=level)
        monkeypatch.setattr(notify, "read_verdict", lambda: shown)
        turn(NOTHING)

    look("alarm")
    receiver.letters.clear()
    look("unknown", 2)
    look("alarm")
    look("unknown", 2.5)
    assert receiver.letters == []
    monkeypatch.setattr(notify, "UNKNOWN_DAYS", 2)
    look("unknown")
    look("unknown")
    look("ok")
    assert [letter["title"].split()[-1] for letter in receiver.letters] == ["UNKNOWN", "OK"]
    assert "it is not known how right green-duration:2" in receiver.text
    assert "the monitor said unknown before" in receiver.text


def test_no_verdict_and_a_damaged_one_are_no_news(receiver):
    turn(NOTHING)
    verdict("alarm")
    path = environment.live_dir() / "monitor.json"
    path.write_text(path.read_text()[:40])
    assert turn(NOTHING) == []
    assert receiver.letters == []


# --- the loop itself -----------------------------------------------------------------------


def test_error_is_told_once_until_it_is_another_or_gone(receiver):
    fail(PipelineError("disk full"))
    fail(PipelineError("disk full"))
    fail(KeyError("champion"))
    turn(NOTHING)
    turn(NOTHING)
    told = [letter["message"].splitlines()[0].partition(" ")[2][6:] for letter in receiver.letters]
    assert told == [
        "the loop cannot go on, the next turn tries again: disk full",
        "the loop cannot go on, the next turn tries again: KeyError('champion')",
        "the loop goes on again, after: KeyError('champion')",
    ]
    assert [letter["type"] for letter in receiver.letters] == ["failure", "failure", "success"]


def test_problem_that_counts_more_at_every_turn_is_the_same(receiver):
    for share in ("3.1 % of 900", "3.2 % of 1,024"):
        turn(wait(f"quarantined are {share} rides", is_problem=True))
    turn(wait("all of 1,024 rides are quarantined", is_problem=True))
    assert len(receiver.letters) == 2


def test_error_that_names_a_place_in_memory_is_the_same_in_every_process(receiver):
    fail(PipelineError("no answer from <Connection at 0x7f31a0>"))
    fail(PipelineError("no answer from <Connection at 0x9e77b1>"))
    assert len(receiver.letters) == 1


def test_step_that_cannot_go_on_is_told_as_an_error_is(receiver):
    for _ in range(2):
        turn(wait("MLflow is needed: no connection", is_problem=True))
    turn(wait("9 days so far"))
    assert [letter["type"] for letter in receiver.letters] == ["failure", "success"]
    assert "MLflow is needed: no connection" in receiver.letters[0]["message"]


def test_paused_loop_neither_fails_nor_goes_on(receiver):
    fail(PipelineError("disk full"))
    turn()
    fail(PipelineError("disk full"))
    turn(NOTHING)
    assert [letter["type"] for letter in receiver.letters] == ["failure", "success"]


def test_turn_beside_another_is_no_error(receiver):
    fail(BusyError("another `auto` is at work"))
    assert receiver.letters == []


def test_error_of_many_lines_is_told_in_one_of_bearable_length(receiver):
    fail(PipelineError("02.ipynb failed in cell 7\n  the cell:\n" + "    x = 1\n" * 400))
    line, _ = receiver.text.splitlines()
    assert len(line) < notify.MESSAGE_CHARACTERS + 20
    assert "failed in cell 7 the cell: x = 1" in line


# --- bundles that the service refuses --------------------------------------------------------


def test_refused_bundle_is_told_once_and_again_when_it_happens_again(receiver):
    note_refusal("green-duration:2 is refused: damaged")
    turn(NOTHING)
    turn(NOTHING)
    assert receiver.text.count("green-duration:2 is refused: damaged") == 1
    assert receiver.letters[0]["title"] == "Taxi trip duration: refused bundle"
    note_served()
    time.sleep(0.002)  # refusals are told apart by their time
    note_refusal("green-duration:2 is refused: damaged")
    turn(NOTHING)
    assert receiver.text.count("green-duration:2 is refused: damaged") == 2


def test_refusal_by_a_clock_that_was_ahead_hides_none_that_follows(receiver, monkeypatch):
    with monkeypatch.context() as ahead:
        ahead.setattr(refusals, "iso_now", lambda: "2099-01-01T00:00:00.000+00:00")
        note_refusal("green-duration:2 is refused: damaged")
    turn(NOTHING)
    note_served()
    note_refusal("green-duration:3 is refused: unsigned")
    turn(NOTHING)
    turn(NOTHING)
    assert receiver.text.count("green-duration:2 is refused: damaged") == 1
    assert receiver.text.count("green-duration:3 is refused: unsigned") == 1


def test_refusal_that_ended_before_the_turn_is_told_with_its_end(receiver):
    note_refusal("green-duration:2 is refused: damaged")
    note_served()
    turn(NOTHING)
    assert "damaged (until 20" in receiver.text


# --- targets that do not take it ---------------------------------------------------------------


def test_dead_target_gets_it_when_it_is_alive_and_the_other_not_twice(home, monkeypatch):
    port = free_port()
    with receiving() as alive:
        monkeypatch.setenv("NOTIFY_URLS", f"json://127.0.0.1:{port} {alive.url}")
        turn()
        decide()
        (said,) = turn(NOTHING)
        assert said.startswith("NOTIFY_URLS: address 1 (JSON) gets it with a later turn")
        verdict("alarm")
        turn(NOTHING)
        assert [len(m.waits) for m in waiting_messages()] == [1, 1]
        with receiving(port) as dead:
            assert turn(NOTHING) == []
            turn(NOTHING)
    assert len(alive.letters) == 2
    (letter,) = dead.letters
    assert letter["title"] == "Taxi trip duration: decision, ALARM"
    assert letter["type"] == "failure"
    assert waiting_messages() == []


def test_slow_target_does_not_hold_up_the_turn(receiver, monkeypatch):
    monkeypatch.setattr(notify, "SECONDS", 0.3)
    receiver.seconds = 5.0
    decide()
    started = time.monotonic()
    turn(NOTHING)
    assert time.monotonic() - started < 2.0
    assert len(waiting_messages()) == 1


def test_failure_of_the_turn_is_raised_though_nobody_can_be_told(receiver, monkeypatch):
    monkeypatch.setattr(notify, "read_audit", lambda: 1 / 0)
    fail(TrackingError("no connection"))


def test_address_that_is_wrong_is_said_at_every_turn_and_waits_for_nothing(receiver, monkeypatch):
    monkeypatch.setenv("NOTIFY_URLS", f"{receiver.url}, s3cret-nonsense")
    decide()
    (said,) = turn(NOTHING)
    assert "address 2 of 2" in said and "s3cret" not in said
    assert "promote" in receiver.text
    assert waiting_messages() == []


def test_messages_to_an_address_that_was_taken_out_are_given_up(receiver, monkeypatch):
    receiver.statuses = [500]
    decide()
    turn(NOTHING)
    monkeypatch.setenv("NOTIFY_URLS", f"{receiver.url}/another")
    assert turn(NOTHING) == ["1 messages are given up: too old or too many"]
    assert waiting_messages() == []


def test_what_waits_is_bounded_in_number_and_age(receiver, monkeypatch):
    receiver.statuses = [500]
    monkeypatch.setattr(notify, "KEPT_MESSAGES", 3)
    for number in range(5):
        decide(f"drop green-duration:{number}", "worse", f"{number}:drop")
    turn(NOTHING)
    assert [m.text.split(":")[1] for m in waiting_messages()] == ["2", "3", "4"]
    monkeypatch.setattr(notify, "KEPT_DAYS", -1)
    turn(NOTHING)
    assert waiting_messages() == []


def test_much_that_waited_comes_in_letters_of_bearable_length(receiver):
    for number in range(30):
        decide(f"drop green-duration:{number}", f"{number} worse " * 14, f"{number}:drop")
    turn(NOTHING)
    assert 2 < len(receiver.letters) < 30
    assert all(len(letter["message"]) < 2000 for letter in receiver.letters)
    assert [receiver.text.count(f"drop green-duration:{n}:") for n in range(30)] == [1] * 30


# --- death, disks, neighbours ------------------------------------------------------------------


class Killed(BaseException):
    """Nothing of ours catches it."""


def test_turn_killed_before_it_sends_loses_nothing(receiver, monkeypatch):
    def die(*_):
        raise Killed

    decide()
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(notify, "post", die)
        turn(NOTHING)
    turn(NOTHING)
    assert receiver.text.count("promote green-duration:2") == 1


def test_turn_killed_after_the_target_took_it_tells_it_once_more(receiver, monkeypatch):
    def die(*_):
        raise Killed

    decide()
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(notify, "_without", die)
        turn(NOTHING)
    turn(NOTHING)
    turn(NOTHING)
    assert receiver.text.count("promote green-duration:2") == 2


def test_full_disk_is_told_about(receiver, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notify, "write_json", full)
    with pytest.raises(PipelineError):
        turn(error=PipelineError("disk full"))
    assert "disk full" in receiver.text


@pytest.mark.parametrize("content", ["", "{", '{"decisions": "many"}'])
def test_damaged_file_of_what_was_told_begins_anew(receiver, content):
    decide()
    turn(NOTHING)
    (environment.deployment_dir() / NOTIFY_FILE).write_text(content)
    (said,) = turn(NOTHING)
    assert "begins anew" in said
    decide("drop green-duration:3", "worse", "6:drop")
    assert turn(NOTHING) == []
    assert receiver.text.count("promote") == receiver.text.count("drop") == 1


def test_audit_trail_that_begins_anew_is_followed(receiver):
    decide()
    decide("drop green-duration:3", "worse", "6:drop")
    turn(NOTHING)
    (environment.deployment_dir() / "audit.jsonl").unlink()
    turn(NOTHING)
    decide("promote green-duration:4", "nearer", "7:promote")
    turn(NOTHING)
    assert receiver.text.count("promote green-duration:4") == 1


def test_two_turns_never_tell_at_the_same_time(receiver):
    decide()
    with FileLock(environment.deployment_dir() / LOCK_FILE):
        assert turn(NOTHING) == ["another turn is sending the messages"]
    assert receiver.letters == []
    turn(NOTHING)
    assert len(receiver.letters) == 1
