"""Seeded histories of deployment, log and loop on a disk that fails; see `simulation`."""

from __future__ import annotations

import os

import pytest
from simulation.history import BrokenPromiseError, History, play

FEW = 60  # histories: about two seconds
A_MINUTE = 2000  # that one process plays


def test_nothing_acknowledged_is_lost_whatever_fails_and_dies():
    stories = []
    play(range(FEW), lambda history: stories.append(history.machine.story))
    told = "\n".join(line for story in stories for line in story)
    for happened in ("kill -9", "the power fails", "No space left", "Read-only", "Input/output",
                     "the clock goes back", "is cut", "promote green", "drop green",
                     "distrust green"):  # fmt: skip
        assert happened in told


@pytest.mark.faults
@pytest.mark.long
def test_histories_of_minutes_keep_every_promise(reliability):
    minutes = min(5, int(os.environ.get("FAULT_MINUTES", "1")))
    histories = A_MINUTE * minutes
    play(range(FEW, FEW + histories))
    reliability("histories of the simulation, each with crashes and faults", histories, 0, 0, None)


def test_the_same_seed_tells_the_same_story():
    stories = []

    def told(history: History) -> None:
        text = "\n".join(history.machine.story)
        stories.append(text.replace(history.machine.root, ""))

    for _ in range(2):
        play(range(7, 9), told)
    assert stories[:2] == stories[2:]


@pytest.mark.parametrize("mended", ["sync_folder", "_sync"])
def test_faults_that_were_mended_are_found_again(monkeypatch, mended):
    """A simulation that finds nothing proves nothing."""
    monkeypatch.setattr(f"taxi_duration.files.{mended}", lambda path: None)
    with pytest.raises(BrokenPromiseError):
        play(range(10 * FEW))
