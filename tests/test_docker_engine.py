"""What tests on a Docker engine rely on: a command that takes too long leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from docker_engine import is_fine, run, wait_until


def is_running(process: int) -> bool:
    try:
        stat = Path("/proc", str(process), "stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_command_that_takes_too_long_ends_with_all_that_it_began(tmp_path):
    pid = tmp_path / "pid"
    slow = ("sh", "-c", f"sleep 300 & echo $! >{pid}; wait")
    with pytest.raises(subprocess.TimeoutExpired):
        run(slow, os.environ, timeout=5)
    wait_until(lambda: not is_running(int(pid.read_text())), "it is gone", 30)


def test_what_a_command_said_is_in_the_error():
    with pytest.raises(AssertionError, match=r"(?s)sh -c .*\nout\nerr\n"):
        run(("sh", "-c", "echo out; echo err >&2; exit 3"), os.environ)


def test_an_engine_that_does_not_answer_is_none():
    assert is_fine(("true",), os.environ)
    assert not is_fine(("sleep", "300"), os.environ, timeout=0.2)
