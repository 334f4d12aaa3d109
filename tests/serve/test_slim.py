"""What the image keeps of its packages is enough: the service answers from nothing else."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from locks import read_lock
from running import PROJECT, free_port
from service_samples import RIDE

from taxi_duration import environment
from taxi_duration.live.deployment import deploy_champion

pytestmark = pytest.mark.long  # packages of 130 MB are copied and compiled

JSON, PARQUET = "application/json", "application/vnd.apache.parquet"
# As the Dockerfile copies them.
OURS = (
    *(path.name for path in (PROJECT / "taxi_duration").glob("*.py")),
    "domain",
    "model",
    "live",
)
PAGES = ("/", "/ready", "/model", "/metrics", "/monitor", "/monitor/data", "/openapi.json", "/docs",
         "/zones", "/ping")  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """Folders as the image has them: packages of the lock in `site`, made slim, and `app`."""
    folder = tmp_path_factory.mktemp("image")
    for pin in read_lock("serve/requirements.txt"):
        for file in distribution(pin.name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = folder / "site" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
    for name in OURS:
        source, target = PROJECT / "taxi_duration" / name, folder / "site" / "taxi_duration" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    shutil.copytree(PROJECT / "serve", folder / "app" / "serve")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", PROJECT / "serve" / "slim.sh", folder / "site"], env={"PATH": path}, check=True
    )
    return folder


def run_in(image: Path, *command: str, **env: str) -> subprocess.Popen[str]:
    """Start Python with the packages of the image and no others."""
    settings = {"PYTHONPATH": str(image / "site"), "PATH": os.defpath, **env}
    return subprocess.Popen(
        [sys.executable, "-S", *command], cwd=image / "app", env=settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture
def ask(image, home, registered):
    """Ask the slim service; it must answer with 200."""
    deploy_champion(registered[1], "first")
    port = free_port()
    folders = {"DATA_DIR": environment.data_dir(), "MODELS_DIR": environment.models_dir(),
               "DEPLOYMENT_DIR": environment.deployment_dir()}  # fmt: skip
    env = {name: str(path) for name, path in folders.items()}
    service = run_in(image, "-m", "serve", PORT=str(port), HOME=str(home), WORKERS="1", **env)

    def ask(path: str, body: bytes | None = None, kind: str = JSON) -> Any:
        url = f"http://127.0.0.1:{port}{path}"
        request = urllib.request.Request(url, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    try:
        for _ in range(600):
            try:
                ask("/health")
                break
            except OSError:
                assert service.poll() is None, service.stdout.read()
                time.sleep(0.1)
        yield ask
    finally:
        service.terminate()
        service.communicate(timeout=60)


def test_every_form_of_request_is_answered(ask):
    rides = [RIDE, {**RIDE, "trip_distance": None}]
    first = ask("/predict", json.dumps(RIDE).encode())
    assert len(ask("/predict", json.dumps(rides).encode())) == 2
    assert ask("/predict?explain=true", json.dumps(RIDE).encode())["duration"] == first["duration"]
    file = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([{name: RIDE[name] for name in RIDE if name[0] != "p"}]), file
    )
    assert ask("/predict", file.getvalue(), PARQUET)[0]["duration"] > 0
    csv = "PULocationID,DOLocationID,trip_distance\n74,42,4.5\n"
    assert len(ask("/invocations", csv.encode(), "text/csv")["predictions"]) == 1
    told = {"prediction_id": first["prediction_id"], "duration": 20.0}
    assert ask("/feedback", json.dumps(told).encode())
    for page in PAGES:
        assert ask(page)


def test_every_package_that_answers_now_and_then_is_whole(image):
    """Those that no request above needs: of PostgreSQL, signatures, the archive."""
    script = """
import io, numpy as np, psycopg, sqlalchemy as sa
from arro3.io import read_parquet, write_parquet
from nacl.signing import SigningKey
from taxi_duration.live import archive_files, log_archive
assert psycopg.pq.__impl__ == "binary" and psycopg.pq.version() > 150_000
sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none").dialect
key = SigningKey.generate()
key.verify_key.verify(key.sign(b"card"))
assert np.unique([2, 1, 2]).tolist() == [1, 2] and np.median([1.0, np.nan, 2.0]) != 1
assert np.linalg.solve(np.eye(2), np.ones(2)).tolist() == [1.0, 1.0]
print("whole")
"""
    process = run_in(image, "-c", script)
    assert process.communicate(timeout=120)[0].splitlines()[-1] == "whole"


def test_what_is_taken_out_is_gone(image):
    site = image / "site"
    for gone in ("numpy/random", "numpy/f2py", "sqlalchemy/orm", "cffi"):
        assert not (site / gone).exists()
    assert (site / "numpy" / "ma").is_dir()
    sources = [path for path in site.rglob("*.py") if "taxi_duration" not in path.parts]
    assert sources == []
