"""How long the doctor takes, well and beside servers that hang; what a run needs of a machine.

    python benchmarks/doctor.py            seconds of `pipeline.py doctor`
    python benchmarks/doctor.py --run      also memory and disk of `pipeline.py run` (minutes)

TLC_URL names the months of the run; other options go to it, such as `--model XGB`.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PIPELINE = [sys.executable, str(Path(__file__).resolve().parents[1] / "pipeline.py")]
TIMES = 5
LOOK_SECONDS = 0.2


def seconds_of_doctor(**settings: str) -> float:
    """Median of the whole command's time."""
    took = []
    for _ in range(TIMES):
        started = time.perf_counter()
        subprocess.run([*PIPELINE, "doctor"], env={**os.environ, **settings}, check=False,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def needs_of_run(home: str, options: list[str]) -> tuple[float, float]:
    """Peak memory that a run's processes have for themselves, and disk it fills; both in MB."""
    run = subprocess.Popen([*PIPELINE, "run", *options], env={**os.environ, "TAXI_HOME": home})
    peak = 0
    while run.poll() is None:
        own = 0
        for process in psutil.Process().children(recursive=True):
            try:
                own += process.memory_full_info().uss
            except psutil.Error:  # it ended at this moment
                continue
        peak = max(peak, own)
        time.sleep(LOOK_SECONDS)
    if run.returncode:
        sys.exit(f"the run ended with {run.returncode}")
    disk = sum(path.stat().st_size for path in Path(home).rglob("*") if path.is_file())
    return peak / 1e6, disk / 1e6


def main() -> None:
    """Print a line for each figure."""
    with tempfile.TemporaryDirectory() as home, socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        print(f"doctor, all well             {seconds_of_doctor(TAXI_HOME=home):5.2f} s")
        hung = seconds_of_doctor(
            TAXI_HOME=home, TLC_URL=f"http://{place}", MLFLOW_TRACKING_URI=f"http://{place}",
            LOG_URL=f"postgresql://taxi@{place}/taxi", HTTPS_PROXY=f"http://{place}",
        )  # fmt: skip
        print(f"doctor, servers that hang    {hung:5.2f} s")
        if "--run" in sys.argv:
            options = [word for word in sys.argv[1:] if word != "--run"]
            memory, disk = needs_of_run(home, options)
            print(f"run: {memory:,.0f} MB of memory, {disk:,.0f} MB of disk")


if __name__ == "__main__":
    main()
