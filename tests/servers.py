"""Starts servers for a test, MLflow's and ours, on a free port of this machine, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from commands import PROJECT

PATIENCE = 300.0  # seconds until a server that does not answer is a failure; a busy machine is slow


@contextlib.contextmanager
def mlflow_process(args: list[str], ping: str, cwd: Path, **env: str) -> Iterator[str]:
    """Run `mlflow ARGS` with one worker until the block ends; yield its address.

    Args:
        args: of the command, without host, port and workers.
        ping: path that answers 200 as soon as the server is ready.
        cwd: working directory.
        env: variables to set for it.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", *args, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow calls uvicorn by name, as from an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [*command, "--workers", "1"], cwd=cwd, start_new_session=True,
        env={**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true",
             "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **env},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + PATIENCE
    try:
        while not answers(address + ping):
            assert process.poll() is None, f"mlflow {args[0]} ended with {process.poll()}"
            assert time.monotonic() < until, f"mlflow {args[0]} does not answer"
            time.sleep(0.2)
        yield address
    finally:
        # Its workers are in its group; the group is gone when all of them ended by themselves.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def service_process(folder: Path, **env: str) -> Iterator[str]:
    """Run `python -m serve`, as it is deployed, until the block ends; yield its address.

    Args:
        folder: gets `serve.log`.
        env: variables to set for it.
    """
    port = free_port()
    with (folder / "serve.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve"], cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "HOST": "127.0.0.1", "PORT": str(port), **env},
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + PATIENCE
    try:
        while not answers(address + "/ready"):
            late = time.monotonic() > until
            assert process.poll() is None and not late, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=40)


def ask(url: str, content: object = None) -> tuple[int, str]:
    """Ask on a connection of its own, so that every worker gets its turn."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_port() -> int:
    """Return a port on which nobody listened a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    """Return whether an address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
