"""Bundles that the service refused, as the loop finds them."""

from __future__ import annotations

import pytest

from taxi_duration.live.refusals import KEPT, note_refusal, note_served, read_refusals


def problems():
    return [(refusal.problem, refusal.until is None) for refusal in read_refusals()]


def test_nothing_was_refused_yet(home):
    note_served()
    assert read_refusals() == []
    assert not (home / "data").exists()


def test_refusal_that_many_workers_meet_is_noted_once(home):
    for _ in range(3):
        note_refusal("2 is damaged")
    assert problems() == [("2 is damaged", True)]


def test_refusal_after_a_good_one_is_another(home):
    note_refusal("2 is damaged")
    note_served()
    note_served()
    ended = read_refusals()[0].until
    assert ended is not None
    note_refusal("2 is damaged")
    assert problems() == [("2 is damaged", False), ("2 is damaged", True)]
    assert read_refusals()[0].until == ended


def test_another_refusal_follows_while_the_first_lasts(home):
    note_refusal("2 is damaged")
    note_refusal("3 is unsigned")
    assert problems() == [("2 is damaged", True), ("3 is unsigned", True)]
    first, second = read_refusals()
    assert first.at <= second.at


def test_only_the_newest_are_kept(home):
    for number in range(KEPT + 3):
        note_refusal(f"{number} is damaged")
    assert [p for p, _ in problems()] == [f"{n} is damaged" for n in range(3, KEPT + 3)]


@pytest.mark.parametrize("content", ["", "{", '[{"at": 3}]', "{}"])
def test_damaged_file_is_begun_anew(home, content):
    note_refusal("2 is damaged")
    (home / "data" / "live" / "refused.json").write_text(content)
    assert read_refusals() == []
    note_refusal("3 is damaged")
    assert problems() == [("3 is damaged", True)]


def test_disk_that_takes_nothing_does_not_stop_the_service(home, caplog):
    (home / "data").mkdir(parents=True)
    (home / "data" / "live").write_text("a file where the folder should be")
    note_refusal("2 is damaged")
    note_served()
    assert "cannot be" in caplog.text
