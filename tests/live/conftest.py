"""Logs on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from taxi_duration.live.prediction_log import PredictionLog, open_log


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[str]:
    """Address of a private PostgreSQL server; skips where there are no binaries."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    binary = shutil.which("initdb") or (versions and str(versions[-1]))
    if not binary:
        pytest.skip("PostgreSQL's server is not on this machine (Debian: postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    runs_as: dict = {}
    if os.getuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user `postgres` to run a private server as")
        folder = Path(f"/var/tmp/taxi-postgres-{os.getpid()}")
        folder.mkdir()
        os.chown(folder, user.pw_uid, user.pw_gid)
        runs_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    subprocess.run([binary, "-D", data, "-A", "trust", "-U", "taxi", "--no-sync"], check=True,
                   capture_output=True, cwd=folder, **runs_as)  # fmt: skip
    server = subprocess.Popen(
        [Path(binary).with_name("postgres"), "-D", data, "-p", str(port), "-k", folder,
         "-c", "listen_addresses=127.0.0.1", "-F"],
        cwd=folder, stderr=subprocess.DEVNULL, **runs_as,
    )  # fmt: skip
    address = f"postgresql://taxi@127.0.0.1:{port}/postgres"
    for _ in range(300):
        with suppress(psycopg.OperationalError):  # not there yet, or starting up
            psycopg.connect(address).close()
            break
        time.sleep(0.1)
    yield address
    server.send_signal(signal.SIGINT)
    server.wait(timeout=20)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'live' / 'predictions.db'}"
    address = request.getfixturevalue("postgres")
    from sqlalchemy import create_engine

    from taxi_duration.live.log_tables import metadata

    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
    metadata.drop_all(engine)
    engine.dispose()
    return address


@pytest.fixture
def log(url, tmp_path) -> Iterator[PredictionLog]:
    log = open_log(url, tmp_path / "live" / "spool")
    yield log
    log.close()


@pytest.fixture
def local(tmp_path) -> Iterator[PredictionLog]:
    """A log on SQLite, where the kind of store does not matter."""
    log = open_log(f"sqlite:///{tmp_path / 'live' / 'predictions.db'}", tmp_path / "live" / "spool")
    yield log
    log.close()
