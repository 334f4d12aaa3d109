"""Kernels that start while the notebook before theirs computes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import PROJECT

# In a process of its own: what it forks begins with the modules of its main file.
STORY = """
import os, psutil, signal
from jupyter_core.utils import run_sync
from taxi_duration.chain.kernels import kernels_ahead

if __name__ == "__main__":
    with kernels_ahead() as kernels:
        kernels.start()
        kernels.start()
        (first,) = (c.pid for p in psutil.Process().children() for c in p.children())
        os.kill(first, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first)])
        taken = kernels.take()
        assert taken.provisioner.pid != first
        client = taken.client()
        client.start_channels()
        run_sync(client.wait_for_ready)(timeout=60)
        client.stop_channels()
        kernels.start()
        (waits,) = (
            c.pid for p in psutil.Process().children() for c in p.children()
            if c.pid != taken.provisioner.pid
        )
        run_sync(taken.shutdown_kernel)()
        assert psutil.pid_exists(waits) and not psutil.pid_exists(taken.provisioner.pid or 0)
    assert not psutil.pid_exists(waits)
    print("as told")
"""


@pytest.mark.slow
def test_kernel_waits_for_who_takes_it_is_replaced_when_killed_and_ended_when_not_taken(tmp_path):
    script = tmp_path / "story.py"
    script.write_text(STORY)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=PROJECT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "as told\n"), done.stderr
