"""The chain with MLflow's artifacts and a month's answers on S3, which moto's server plays."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from commands import run_pipeline
from s3_server import s3_bucket
from servers import mlflow_process

from taxi_duration.files import sha256_file

pytestmark = pytest.mark.long


@pytest.fixture
def bucket():
    """An S3 server with a bucket `store`; yields what lists its keys."""
    with s3_bucket("store") as keys:
        yield keys


def test_run_registers_pulls_and_scores_with_everything_on_s3(bucket, tmp_path):
    home = tmp_path / "home"
    server = ["server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
              "--artifacts-destination", "s3://store/mlflow"]  # fmt: skip
    with mlflow_process(server, "/health", tmp_path) as address:

        def run(*words: str) -> str:
            done = run_pipeline(home, *words, MODEL="LR", MLFLOW_TRACKING_URI=address)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run()
        bundle = home / "models" / "green-duration" / "1"
        digest = json.loads((bundle / "card.json").read_text())["model_sha256"]
        kept = [key for key in bucket() if key.startswith("mlflow/")]
        for name in ("model.bin", "card.json"):
            assert any(key.rpartition("/")[2] == name for key in kept), name
        shutil.rmtree(home / "models")
        assert "was pulled into" in run("pull", "green-duration:champion")
        assert sha256_file(bundle / "model.bin") == digest
        run("score", "--data", "2021-03", "--to", "s3://store/scored/2021-03.parquet")
        assert "scored/2021-03.parquet" in bucket()
    assert not (home / "tracking").exists() or not list((home / "tracking").rglob("*.bin"))
    assert all(re.match(r"(mlflow|scored)/", key) for key in bucket())
