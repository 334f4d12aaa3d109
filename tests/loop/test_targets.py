"""Whom to tell: addresses are read, letters arrive, and no secret gets out."""

from __future__ import annotations

import logging
import time

import pytest
from receiver import receiving
from servers import free_port

from taxi_duration.loop import targets
from taxi_duration.loop.targets import Letter, post, read_targets

LETTER = Letter("Taxi trip duration: ALARM", "MAE is twice the validation's", "failure")
SECOND = Letter("Taxi trip duration: decision", "promote green-duration:2", "success")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(targets, "PAUSES", (0.0, 0.01, 0.02))


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def addresses(monkeypatch):
    """Set NOTIFY_URLS and read it."""

    def read(*urls):
        monkeypatch.setenv("NOTIFY_URLS", ", ".join(urls))
        return read_targets()

    return read


def send(found, *letters, seconds=5.0):
    """Problems by position, none for who took everything."""
    posted = list(post({target.key: letters for target in found}, found, seconds))
    positions = {target.key: target.position for target in found}
    return {positions[p.key]: p.problem for p in posted if p.problem}, posted


def test_nobody_is_named_by_default(monkeypatch):
    monkeypatch.delenv("NOTIFY_URLS", raising=False)
    assert read_targets() == ([], [])


def test_letters_arrive_whole_once_and_in_order(addresses, receiver):
    found, problems = addresses(receiver.url)
    assert (problems, [target.name for target in found]) == ([], ["address 1 (JSON)"])
    failed, posted = send(found, LETTER, SECOND)
    assert failed == {}
    assert [p.letter for p in posted] == [LETTER, SECOND]
    assert receiver.letters == [
        {"version": "1.0", "title": letter.title, "message": letter.text, "attachments": [],
         "type": letter.kind}
        for letter in (LETTER, SECOND)
    ]  # fmt: skip


def test_same_address_twice_is_one_target(addresses, receiver):
    found, _ = addresses(receiver.url, receiver.url)
    assert len(found) == 1


@pytest.mark.parametrize("first", ["dead", "alive"])
def test_dead_target_does_not_keep_the_letter_from_another(addresses, receiver, first):
    urls = [f"json://127.0.0.1:{free_port()}", receiver.url]
    found, _ = addresses(*(urls if first == "dead" else urls[::-1]))
    failed, _ = send(found, LETTER)
    assert failed == {1 if first == "dead" else 2: "it did not answer, or refused"}
    assert len(receiver.letters) == 1


def test_target_that_is_back_within_the_turn_gets_it_then(addresses, receiver):
    receiver.statuses = [500, 503, 200]
    failed, _ = send(addresses(receiver.url)[0], LETTER)
    assert failed == {}
    assert len(receiver.letters) == 3


def test_target_that_refuses_is_named_with_its_status_and_gets_no_later_letter(addresses, receiver):
    receiver.statuses = [503]
    failed, posted = send(addresses(receiver.url)[0], LETTER, SECOND)
    assert failed == {1: "it answered 503"}
    assert [p.letter for p in posted] == [LETTER]
    assert {letter["title"] for letter in receiver.letters} == {LETTER.title}


def test_slow_target_holds_nobody_up(addresses, receiver):
    with receiving() as slow:
        slow.seconds = 5.0
        found, _ = addresses(slow.url, receiver.url)
        started = time.monotonic()
        failed, _ = send(found, LETTER, seconds=0.5)
        assert time.monotonic() - started < 2.0
    assert failed == {1: "it did not answer within 0.5 s"}
    assert len(receiver.letters) == 1


def test_target_that_takes_its_time_gets_it_once(addresses, receiver):
    """Apprise alone gives up after four seconds, and would send again."""
    found, _ = addresses(receiver.url, f"{receiver.url}/other?rto=3")
    assert [t.service.socket_read_timeout for t in found] == [targets.READ_SECONDS, 3.0]


def test_plugin_that_breaks_is_named_without_its_words(addresses, receiver, monkeypatch):
    found, _ = addresses(receiver.url)
    monkeypatch.setattr(targets.Target, "send", lambda *_: 1 / 0)
    assert send(found, LETTER)[0] == {1: "it failed with ZeroDivisionError"}


# --- secrets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    ["no-such-service://s3cret@host", "s3cret", "json://", "slack://s3cret"],
)
def test_bad_address_is_named_by_its_place_alone_and_the_others_are_told(
    addresses, receiver, bad, caplog, capsys
):
    found, (problem,) = addresses("json://127.0.0.1:9/other", bad, receiver.url)
    assert "address 2 of 3" in problem
    assert [target.position for target in found] == [1, 3]
    assert send(found[1:], LETTER)[0] == {}
    for said in (problem, caplog.text, *capsys.readouterr()):
        assert "s3cret" not in said


@pytest.mark.parametrize("status", [200, 500])
def test_secrets_of_an_address_get_into_no_log(addresses, receiver, status, caplog, capsys):
    caplog.set_level(logging.INFO)
    receiver.statuses = [status]
    found, _ = addresses(f"json://me:s3cret@127.0.0.1:{receiver.port}/hooks/t0ken",
                         f"json://me:s3cret@127.0.0.1:{free_port()}/hooks/t0ken")  # fmt: skip
    failed, _ = send(found, LETTER)
    assert 2 in failed
    for said in (*failed.values(), *(t.name + t.key for t in found), caplog.text,
                 *capsys.readouterr()):  # fmt: skip
        assert "s3cret" not in said and "t0ken" not in said
