"""Runs the project's own commands as a user would, in a home of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

# Fits on one thread, the same to the bit: where several workers share two cores, threads that wait
# for each other make a fit on small tables take ten times as long.
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT"), "1")


def run_pipeline(home: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python pipeline.py` with a home of its own; small sample unless `env` says else."""
    settings = {"TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000", **env}
    return subprocess.run(
        [sys.executable, str(PROJECT / "pipeline.py"), *args], cwd=home.parent, check=False,
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
