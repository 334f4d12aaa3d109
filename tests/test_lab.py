"""`make lab` starts for root too, and says address, token and port; notebooks are quiet in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from commands import PROJECT
from servers import answers

BIN = Path(sys.executable).parent
ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)/lab\?token=\w+")


def recipe() -> list[str]:
    """What `make lab` runs, with this Python's programs."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.installed", "lab"], cwd=PROJECT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = shlex.split(done.stdout)
    assert words[0] == ".venv/bin/jupyter"
    return [str(BIN / "jupyter"), *words[1:]]


def test_root_may_start_it_and_a_container_may_publish_it():
    words = recipe()
    assert "--allow-root" in words
    assert words[-1] == "--ip=${HOST:-localhost}"  # the shell's matter; this machine unless asked


@pytest.mark.long
def test_it_says_an_address_that_opens_also_when_8888_is_taken(tmp_path):
    command = shlex.join(recipe()[:-1]) + ' --ip="${HOST:-localhost}"'
    env = {**os.environ, "BROWSER": "true", "HOME": str(tmp_path), "PATH": f"{BIN}:/usr/bin:/bin"}
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another program has it already
            other.bind(("127.0.0.1", 8888))
            other.listen()
        lab = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=PROJECT, env=env, text=True,
                               stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
        try:
            said = ""
            for line in lab.stderr:
                said += line
                if found := re.search(
                    r"http://(?:127\.0\.0\.1|localhost):(\d+)/lab\?token=\w+", line
                ):
                    break
            assert found and found[1] != "8888", said
            while not answers(found[0]):
                assert lab.poll() is None, lab.stderr.read()
            assert "8888 is already in use" in said
        finally:
            os.killpg(lab.pid, signal.SIGTERM)
            lab.wait()


@pytest.mark.long
@pytest.mark.parametrize("name", ["01_read_data", "04_save_model"])
def test_notebook_is_quiet_in_a_kernel_of_jupyterlab(moved_home, tmp_path, name):
    """No bars of downloads, no red warning of tqdm."""
    target = tmp_path / "seen.ipynb"
    subprocess.run(
        [BIN / "jupyter", "nbconvert", "--to", "notebook", "--execute", "--output", target,
         PROJECT / "notebooks" / f"{name}.ipynb"],
        check=True, capture_output=True, cwd=tmp_path,
        env={**os.environ, "MODEL": "LR", "HOME": str(tmp_path)},
    )  # fmt: skip
    cells = json.loads(target.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    red = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")
    assert not re.search(r"Warning|\d%\|", red), red
    assert not [output for output in outputs if "it/s" in json.dumps(output)]
