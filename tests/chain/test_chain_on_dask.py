"""The chain on a cluster: a lost worker stops it in a sentence, and a resumed run finishes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import clusters
import psutil
import pytest
from commands import PROJECT

from taxi_duration.files import read_json

pytestmark = pytest.mark.long


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    return {
        "ENGINE": "dask", "DATA": "sample", "SAMPLE_ROWS": "8000", "MODEL": "XGB",
        "ATLAS": "none", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def start(environment, *args):
    return subprocess.Popen(
        [sys.executable, "pipeline.py", *args], cwd=PROJECT, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def read_until(process, words: str) -> str:
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"it ended before it said {words!r}:\n{said}")


def test_a_worker_killed_while_boosting_and_then_resumed(environment, tmp_path):
    with clusters.cluster(tmp_path / "cluster", workers=2, nanny=True) as made:
        environment["DASK_SCHEDULER"] = made.address
        process = start(environment)
        said = read_until(process, "boost on worker")
        clusters.kill(made.worker_at(said.split()[-1]))
        said += process.communicate(timeout=120)[0]
        assert process.returncode == 1, said
        assert re.search(r"ClusterError: boosting ended: worker tcp:\S+ was lost", said)
        run_id = re.search(r"run (\S+): green", said)[1]
        made.add_worker(nanny=True)
        process = start(environment, "run", "--resume", run_id)
        said = process.communicate(timeout=600)[0]
        assert process.returncode == 0, said
        assert "[1/4] 01_read_data was done before" in said
    results = read_json(tmp_path / "home" / "runs" / run_id / "leaderboard.json")
    assert results["winner"] == "XGB" and results["beats_baselines"]


def test_a_killed_pipeline_leaves_no_worker(environment):
    process = start(environment)
    read_until(process, "boost on")
    below = psutil.Process(process.pid).children(recursive=True)
    workers = [p for p in psutil.process_iter(["cmdline"]) if is_of(p, below)]
    assert workers
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs([*workers, *below], timeout=60)
    assert not alive and gone


def is_of(process, below) -> bool:
    """True for a worker of a kernel of this run: kernels are forked from a server of its own."""
    words = " ".join(process.info["cmdline"] or ())
    try:
        return "spawn_main" in words and any(parent in below for parent in process.parents())
    except psutil.NoSuchProcess:
        return False
