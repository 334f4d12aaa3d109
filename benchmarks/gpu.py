"""Fits of XGB on this machine's processor and on its GPU, in turn: seconds, error, and whether the
same fit comes out twice.

    python benchmarks/gpu.py --train 2021-06:2022-05 --val 2022-06 [--times 3]
    DATA=sample SAMPLE_ROWS=4000000 BOOST_ROWS=all python benchmarks/gpu.py --service yellow \
        --train 2019-01:2019-02 --val 2019-03

A fit is a whole one, with the rehearsals of its intervals. Each is a process of its own; preparing
months and loading the libraries is not counted, what a GPU needs before its first work is.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import click
from peak_memory import peak_bytes
from timed_fit import timed_fit

from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import parse_months

DEVICES = ("cpu", "cuda")
RIDES = 500_000  # scored


@click.command()
@click.option("--service", default="green", show_default=True)
@click.option("--train", default="2021-06:2022-05", show_default=True)
@click.option("--val", default="2022-06", show_default=True)
@click.option("--times", default=3, show_default=True, help="Of each; medians are printed.")
@click.option("--one", hidden=True, is_flag=True, help="Fit once, by DEVICE, and print figures.")
def main(service: str, train: str, val: str, times: int, one: bool) -> None:
    """Print what each device takes, and their ratio."""
    if one:
        print(json.dumps(fit_once(service, train, val)))
        return
    for tags in (train, val):
        prepare_months(service, parse_months(tags))
    found: dict[str, list[dict]] = {device: [] for device in DEVICES}
    asked = [sys.executable, __file__, "--one", f"--service={service}", f"--train={train}",
             f"--val={val}"]  # fmt: skip
    for _ in range(times):
        for device in DEVICES:
            said = subprocess.run(
                asked, check=True, text=True, stdout=subprocess.PIPE,
                env={**os.environ, "DEVICE": device},
            ).stdout  # fmt: skip
            found[device].append(json.loads(said.splitlines()[-1]))
            print(device, found[device][-1], flush=True)
    for device, runs in found.items():
        print(f"{device}: {len({run['answers'] for run in runs})} different of {times} fits")
    for name in ("seconds", "cpu_seconds", "gb", "rmse", "rmse_none"):
        cpu, gpu = (statistics.median(run[name] for run in found[device]) for device in DEVICES)
        print(f"{name:<12} cpu {cpu:10.4f}   cuda {gpu:10.4f}   ratio {gpu / cpu:.4f}")


def fit_once(service: str, train: str, val: str) -> dict[str, object]:
    """Fit in this process, and score later trips with their distance and without."""
    found = timed_fit("XGB", service, train, val, most=RIDES)
    return {
        "rows": found["rows"], "seconds": round(found["fit"], 2),
        "cpu_seconds": round(found["cpu_seconds"], 1), "gb": round(peak_bytes() / 1e9, 2),
        **{name: found[name] for name in ("rmse", "rmse_none", "answers")},
    }  # fmt: skip


if __name__ == "__main__":
    main()
