"""A private PostgreSQL server that tests may stop and start."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import free_port


class Postgres:
    """The server and where it keeps its files."""

    def __init__(self, binary: Path, folder: Path, runs_as: dict[str, Any]) -> None:
        self._binary, self._folder, self._runs_as = binary, folder, runs_as
        self._port = free_port()
        self.url = f"postgresql://taxi@127.0.0.1:{self._port}/postgres"
        subprocess.run(
            [binary, "-D", folder / "data", "-A", "trust", "-U", "taxi", "--no-sync"], check=True,
            capture_output=True, cwd=folder, **runs_as,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._server = subprocess.Popen(
            [self._binary.with_name("postgres"), "-D", self._folder / "data", "-p",
             str(self._port), "-k", self._folder, "-c", "listen_addresses=127.0.0.1", "-F"],
            cwd=self._folder, stderr=subprocess.DEVNULL, **self._runs_as,
        )  # fmt: skip
        for _ in range(300):
            with suppress(psycopg.OperationalError):  # not there yet, or starting up
                psycopg.connect(self.url).close()
                return
            time.sleep(0.1)
        pytest.fail("PostgreSQL does not start")

    def stop(self) -> None:
        """Stop it at once; who is connected loses the connection."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(timeout=20)


@contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Run a server until the block ends; skips where there are no binaries.

    Args:
        folder: for its files, unless it may not run as who we are.
    """
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    binary = shutil.which("initdb") or (versions and str(versions[-1]))
    if not binary:
        pytest.skip("PostgreSQL's server is not on this machine (Debian: postgresql)")
    runs_as: dict[str, Any] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user `postgres` to run a private server as")
        folder = Path(f"/var/tmp/taxi-postgres-{os.getpid()}-{time.time_ns()}")
        folder.mkdir()
        os.chown(folder, user.pw_uid, user.pw_gid)
        runs_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    server = Postgres(Path(binary), folder, runs_as)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
