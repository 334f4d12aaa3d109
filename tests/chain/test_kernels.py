"""Kernels that start while the notebook before theirs computes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from commands import PROJECT
from jupyter_core.utils import run_sync

from taxi_duration.chain.kernels import PrivateKernelManager

# In a process of its own: what it forks begins with the modules of its main file.
STORY = """
import os, psutil, signal, time
from jupyter_core.utils import run_sync
from taxi_duration.chain.kernels import kernels_ahead

def kernels_here():
    return {c.pid for p in psutil.Process().children() for c in p.children()}

if __name__ == "__main__":
    with kernels_ahead() as kernels:
        kernels.start()
        kernels.start()
        (first,) = kernels_here()
        os.kill(first, signal.SIGKILL)
        while run_sync(kernels._next.is_alive)():
            time.sleep(0.01)
        taken = kernels.take()
        assert taken.provisioner.pid != first
        client = taken.client()
        client.start_channels()
        run_sync(client.wait_for_ready)(timeout=60)
        client.stop_channels()
        kernels.start()
        (waits,) = kernels_here() - {taken.provisioner.pid}
        run_sync(taken.shutdown_kernel)()
        assert kernels_here() == {waits}
    assert kernels_here() == set()
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


@pytest.mark.slow
def test_users_own_kernel_of_that_name_is_not_taken(tmp_path):
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text("{")
    script = tmp_path / "story.py"
    script.write_text(STORY)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=PROJECT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "JUPYTER_PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "as told\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "says nothing for 1 seconds")]
)
def test_kernel_that_does_not_become_ready_is_told(number, said):
    kernel = PrivateKernelManager(kernel_name="python3")
    run_sync(kernel.start_kernel)()
    kernel.provisioner.process.send_signal(number)
    client = kernel.client()
    client.start_channels()
    try:
        with pytest.raises(RuntimeError, match=said):
            run_sync(client.wait_for_ready)(timeout=1)
    finally:
        client.stop_channels()
        run_sync(kernel.shutdown_kernel)(now=True)
