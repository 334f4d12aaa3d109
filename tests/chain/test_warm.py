"""The warm process: what it has in memory, and what is forked from it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile

import pytest
from commands import PROJECT

STORY = """
import os, signal
from concurrent.futures.process import BrokenProcessPool
from taxi_duration.chain.warm import _worker, begin_warm, call_warm, start_warming
from tests.chain.test_warm import (
    collector_here, kernel_here, kill_oneself, modules_here, pid_here
)

if __name__ == "__main__":
    start_warming()
    first, second = call_warm(pid_here), call_warm(pid_here)
    assert first == second != os.getpid()
    try:
        call_warm(kill_oneself)
    except BrokenProcessPool:
        pass
    assert call_warm(pid_here) not in (first, os.getpid())
    os.kill(call_warm(pid_here), signal.SIGKILL)
    pool = _worker()
    while _worker() is pool:  # until its end is noticed
        begin_warm(pid_here)
    assert call_warm(collector_here) == (True, True)
    print(call_warm(modules_here), call_warm(kernel_here))
"""


def pid_here() -> int:
    return os.getpid()


def kill_oneself() -> None:
    os.kill(os.getpid(), 9)


def collector_here() -> tuple[bool, bool]:
    """Whether garbage is collected, and what was imported left alone by it."""
    return gc.isenabled(), gc.get_freeze_count() > 100_000


def modules_here() -> list[str]:
    """What the first use of MLflow's store still imports of tables and databases."""
    from taxi_duration.registry import tracking

    before = set(sys.modules)
    tracking.connect().search_registered_models(max_results=1)
    return sorted(name for name in set(sys.modules) - before if "sqlalchemy" in name)


def kernel_here() -> list[str]:
    """What becoming a kernel still imports of its debugger, which is most of what it could."""
    from ipykernel.kernelapp import IPKernelApp

    before = set(sys.modules)
    with tempfile.TemporaryDirectory() as folder:
        sockets = ["--transport=ipc", f"--ip={folder}/socket"]
        IPKernelApp.instance().initialize(["-f", f"{folder}/kernel.json", *sockets])
    return sorted(name for name in set(sys.modules) - before if "debugpy" in name)


@pytest.mark.long
def test_calls_share_a_process_that_has_all_imported_and_is_replaced_when_killed(home, tmp_path):
    script = tmp_path / "story.py"
    script.write_text(STORY)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=PROJECT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] []"
