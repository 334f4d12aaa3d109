"""A Docker engine for tests, and a compose project of their own on it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from commands import PROJECT
from servers import free_port

T = TypeVar("T")

# Starts an engine where none runs, see there; beside the checkout, as the months are.
SCRIPT = PROJECT.parent / "shared" / "container" / "engine"
SOCKET = Path(os.environ.get("ENGINE_HOME", "/var/tmp/engine"), "docker.sock")
STACK = "taxi-test-"  # how names of tests' stacks begin
OF_PROJECT = "label=com.docker.compose.project="
OF_SERVICE = "label=com.docker.compose.service="


@dataclass(frozen=True)
class Engine:
    """A running Docker engine: how compose is called on it, and the environment that names it."""

    compose: tuple[str, ...]
    env: Mapping[str, str]

    def docker(self, *args: str, timeout: float = 60) -> str:
        """Run `docker ARGS` and return what it said."""
        return run(("docker", *args), self.env, timeout).stdout


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """The engine that answers here, else one that is started and stopped again; skips without."""
    here = dict(os.environ)
    compose = compose_command(here)
    if compose and is_up(here):
        yield Engine(compose, here)
        return
    if not os.access(SCRIPT, os.X_OK) or os.getuid() != 0:
        pytest.skip("no Docker engine with compose answers here, and nothing here starts one")
    ours = {**here, "DOCKER_HOST": f"unix://{SOCKET}"}
    was_up = is_up(ours)
    try:
        if problem := start_engine(ours):
            pytest.skip(f"the engine does not start: {problem}")
        engine = Engine((str(SCRIPT), "compose"), ours)
        if not was_up:
            remove_stacks(engine)
        yield engine
    finally:
        if not was_up:
            run((str(SCRIPT), "stop"), ours, check=False)
            wait_until(lambda: not is_up(ours), "the engine is stopped", 60)


def start_engine(env: Mapping[str, str]) -> str:
    """Start the engine, and make the images that stand in for public ones; say what went wrong."""
    try:
        done = run((str(SCRIPT), "start"), env, timeout=900, check=False)
    except subprocess.TimeoutExpired as late:
        return str(late)
    return "" if done.returncode == 0 and is_up(env) else done.stderr[-300:] or "no answer"


def remove_stacks(engine: Engine) -> None:
    """Remove the stacks of tests that were killed: they would come up with the engine."""
    for listing, remove in (
        (("ps", "-aq", "--filter", f"name={STACK}"), ("rm", "--force")),
        (("volume", "ls", "-q", "--filter", f"name={STACK}"), ("volume", "rm")),
        (("network", "ls", "-q", "--filter", f"name={STACK}"), ("network", "rm")),
        (("images", "-q", f"{STACK}*/*"), ("rmi", "--force")),
    ):
        if found := set(engine.docker(*listing).split()):
            engine.docker(*remove, *found, timeout=120)


def compose_command(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command for compose that is on this machine; nothing when none is."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) and is_fine((*command, "version"), env):
            return command
    return ()


def is_up(env: Mapping[str, str]) -> bool:
    """Return whether a Docker engine answers."""
    return bool(shutil.which("docker")) and is_fine(("docker", "info"), env)


def is_fine(command: tuple[str, ...], env: Mapping[str, str], timeout: float = 60) -> bool:
    """Return whether a command ends without an error, and in time."""
    with suppress(subprocess.TimeoutExpired):
        return run(command, env, timeout, check=False).returncode == 0
    return False


def run(
    command: tuple[str, ...], env: Mapping[str, str], timeout: float = 60, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's root; its output is in the error when it must not fail.

    One that takes longer, or is interrupted, is killed with all that it began.
    """
    with subprocess.Popen(
        command, cwd=PROJECT, env=env, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=timeout)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    done = subprocess.CompletedProcess(command, process.returncode, *said)
    tail = said[0][-3000:] + said[1][-3000:]
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{tail}"
    return done


def wait_until(look: Callable[[], T], what: str, seconds: float, why: Callable[[], str] = str) -> T:
    """Return the first thing found that is true.

    Args:
        look: finds it.
        what: that there should be; the test fails with it when there is none in time.
        why: tells what the failure may come from.
    """
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            pytest.fail(f"not so within {seconds:.0f} s: {what}\n{why()}")
        time.sleep(0.5)
    return found


class Stack:
    """compose.yaml under a name, on ports, with images and passwords of its own.

    Args:
        folder: for its settings.
        override: what is said otherwise than in compose.yaml, as compose's files say it.
        settings: as in a `.env`.
    """

    def __init__(
        self, engine: Engine, folder: Path, override: dict[str, Any], **settings: str
    ) -> None:
        self.engine = engine
        self.name = f"{STACK}{os.getpid()}"
        self.ports = {name: free_port() for name in ("SERVE", "MLFLOW", "PROMETHEUS", "LAB")}
        self.settings = {
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "IMAGES": f"{self.name}/",  # nobody's: built here, and gone with the stack
            **settings,
        }
        self._files = ("-f", "compose.yaml", "-f", str(folder / "override.yaml"))
        (folder / "override.yaml").write_text(yaml.safe_dump(override))
        # A `.env` of whoever tests here would be read without one that is named.
        self._settings_file = folder / "settings.env"
        self._settings_file.write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))

    def compose(self, *args: str, timeout: float = 300) -> str:
        """Run `docker compose ARGS` on the stack and return what it said."""
        named = ("--env-file", str(self._settings_file), "-p", self.name, *self._files)
        env = {k: v for k, v in self.engine.env.items() if k not in self.settings}
        return run((*self.engine.compose, *named, *args), env, timeout).stdout

    def url(self, server: str, path: str) -> str:
        """Return an address on this machine: of SERVE, MLFLOW, PROMETHEUS or LAB."""
        return f"http://127.0.0.1:{self.ports[server]}{path}"

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self._own("ps", "-aq", "--filter", OF_SERVICE + service)[0]

    def state(self, service: str) -> str:
        """Return how a service is: its health where it is told, else running or exited."""
        form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        return self.engine.docker("inspect", "-f", form, self.container(service)).strip()

    def address(self, container: str) -> str:
        """Return a container's address on the stack's network."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.engine.docker("inspect", "-f", form, container).strip()

    def logs(self, service: str) -> str:
        """Return the last that a service's container said."""
        done = run(("docker", "logs", "--tail", "40", self.container(service)), self.engine.env)
        return done.stdout + done.stderr

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query on the prediction log, asked in PostgreSQL's container."""
        said = self.engine.docker(
            "exec", "-e", f"PGPASSWORD={self.settings['POSTGRES_PASSWORD']}",
            self.container("postgres"), "psql", "-U", "taxi", "-d", "taxi", "-At",
            "-c", f"SELECT row_to_json(found) FROM ({query}) AS found",
        )  # fmt: skip
        return [json.loads(line) for line in said.splitlines()]

    def left(self) -> list[str]:
        """Return ids of all that the engine has of the stack."""
        kinds = (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q"))
        images = self.engine.docker("images", "-q", f"{self.name}/*").split()
        return [one for kind in kinds for one in self._own(*kind)] + images

    def down(self) -> None:
        """Take all of it away, whatever state it is in."""
        everything = (
            "--profile",
            "dask",
            "--profile",
            "lab",
            "down",
            "--volumes",
            "--remove-orphans",
        )
        self.compose(*everything, "--timeout", "5")
        for image in set(self.engine.docker("images", "-q", f"{self.name}/*").split()):
            self.engine.docker("rmi", "--force", image)

    def _own(self, *listing: str) -> list[str]:
        return self.engine.docker(*listing, "--filter", OF_PROJECT + self.name).split()
