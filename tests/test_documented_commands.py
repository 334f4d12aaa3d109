"""Every command of README and docs that can run without network is run, as it is written.

In a fresh clone with an environment of its own. Changed are only the ports, so that nothing that
runs on this machine is asked, and PREDICTION_ID, which the reader fills in too. What the commands
leave open is set small: the sample, few rows, MODEL=LR, one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import clean_environment, clone, give_venv, shell
from documented import CANNOT, SERVERS, Server, all_commands, server_of, why_not
from pages import PROJECT, Page
from servers import answers, free_port

SMALL = {"DATA": "sample", "SAMPLE_ROWS": "3000", "MODEL": "LR"}
WEATHER = "hour,rain_mm,snow_cm,parade\n2021-01-05T08:00,1.5,0,0\n2021-02-01T17:00,0,12,1\n"


@pytest.mark.parametrize("pattern", [*CANNOT, *SERVERS])
def test_every_exception_is_about_a_command_that_there_is(pattern):
    text = "\n".join(page_and_command[1] for page_and_command in all_commands())
    inline = (PROJECT / "README.md").read_text()
    assert re.search(rf"(?m)^{pattern}", text) or re.search(rf"`{pattern}", inline)


class Reader:
    """Types what the documentation says, in one clone.

    Args:
        folder: the clone.
        environment: to begin with; what a command exports stays.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.exported = folder.with_name("exported")
        self.exported.touch()
        self.port = free_port()  # of the service
        self.service: subprocess.Popen | None = None
        self.prediction = "none yet"

    def type(self, command: str) -> None:
        """Run a command as it is written, but for port and id."""
        command = command.replace("PREDICTION_ID", self.prediction)
        command = re.sub(r"(localhost|127\.0\.0\.1):9696", rf"\1:{self.port}", command)
        if command.startswith("python pipeline.py replay"):
            command = command.replace("replay", f"replay --url http://127.0.0.1:{self.port}")
        server = server_of(command)
        if server is not None:
            self._serve(command, server)
            return
        said = shell(self._with_exports(command), self.folder, self.environment)
        if found := re.search(r'"prediction_id":"(\w+)"', said):
            self.prediction = found[1]

    def _with_exports(self, command: str) -> str:
        return f". {self.exported}\n{command}\nexport -p >{self.exported}"

    def _serve(self, command: str, server: Server) -> None:
        """Start a server and wait for it; the service stays, others are stopped at once."""
        if server.stays:
            self.stop()
            with self._running(command, self.port, server, {server.setting: str(self.port)}) as run:
                self.service = run
            return
        port = free_port()
        command = command.replace(f"{server.setting} {server.port}", f"{server.setting} {port}")
        with self._running(command, port, server, {}) as run:
            interrupt(run)

    @contextlib.contextmanager
    def _running(
        self, command: str, port: int, server: Server, settings: dict[str, str]
    ) -> Iterator[subprocess.Popen]:
        """A server that answers; stopped when it does not."""
        output = self.folder.with_name("served")
        with output.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-euc", f". {self.exported}\n{command}"], cwd=self.folder,
                env={**self.environment, **settings}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}{server.ping}"):
                late = time.monotonic() > deadline or process.poll() is not None
                assert not late, f"{command}: {output.read_text()[-3000:]}"
                time.sleep(0.2)
            yield process
        except BaseException:
            interrupt(process)
            raise

    def stop(self) -> None:
        """Stop the service."""
        if self.service is not None:
            interrupt(self.service)
            self.service = None


def interrupt(process: subprocess.Popen) -> None:
    """Press Ctrl-C, and be sure that nothing of it goes on."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def reader(tmp_path, uv_cache):
    if shutil.which("curl") is None or shutil.which("make") is None:
        pytest.skip("curl and make are needed to follow the documentation")
    folder = clone(tmp_path / "clone")
    give_venv(folder)
    (folder / "data" / "weather.csv").write_text(WEATHER)  # the reader's own, in extending.md
    reader = Reader(folder, clean_environment(folder, uv_cache, **SMALL))
    yield reader
    reader.stop()
    shutil.rmtree(folder / ".venv")


@pytest.mark.first
@pytest.mark.long
def test_documented_commands_run_in_a_fresh_clone_and_leave_it_clean(reader):
    for page, command in all_commands():
        if why_not(command) is None:
            started = time.perf_counter()
            try:
                reader.type(command)
            except AssertionError as error:
                pytest.fail(f"{page}: {error}")
            print(f"{time.perf_counter() - started:6.1f} s  {page}: {command}")
    (snippet,) = Page(PROJECT / "README.md").blocks("python")
    said = shell(f"python - <<'EOF'\n{snippet}\nEOF", reader.folder, reader.environment)
    assert "duration" in said and "p90" in said
    left = shell("git status --porcelain", reader.folder, reader.environment)
    assert not left, f"the clone is no longer clean (mlflow.db, mlruns?):\n{left}"
    ids = json.loads(shell(f"curl -s localhost:{reader.port}/monitor/data", reader.folder,
                           reader.environment))  # fmt: skip
    assert ids["serving"]
