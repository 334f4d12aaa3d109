"""A fit of XGB in one process, against one on a Dask cluster of this machine's cores, in turn.

    python benchmarks/dask_engine.py --rows 5000000 --times 3

Months are yellow ones of the built-in generator: two to fit on, of half the rows each, and one of
them more to score. Each fit is a process of its own, in a home of its own that knows only the
months' files: it prepares them, makes the sums and fits with intervals. On a machine of two cores
the cluster has two workers of one thread, and the other process boosts on two threads.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from timed_fit import timed_fit

from taxi_duration.data.sources import fetch_months
from taxi_duration.domain.months import parse_months

SERVICE, TRAIN, VALIDATE = "yellow", "2019-01:2019-02", "2019-03"
ENGINES = ("local", "dask")
RIDES = 1_000_000  # scored


@click.command()
@click.option("--rows", default=5_000_000, show_default=True, help="To fit on.")
@click.option("--times", default=3, show_default=True, help="Of each; medians are printed.")
@click.option("--kind", default="XGB", show_default=True)
@click.option("--one", hidden=True, is_flag=True, help="Fit once, by ENGINE, and print figures.")
def main(rows: int, times: int, kind: str, one: bool) -> None:
    """Print seconds and error by engine, and their ratios."""
    if one:
        print(json.dumps(fit_once(kind)))
        return
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="taxi-dask-") as folder:
        os.environ |= {"DATA": "sample", "SAMPLE_ROWS": str(rows // 2), "BOOST_ROWS": "all",
                       "TAXI_HOME": folder}  # fmt: skip
        fetch_months(SERVICE, parse_months(f"{TRAIN.split(':')[0]}:{VALIDATE}"))
        for _ in range(times):
            for engine in ENGINES:
                found[engine].append(in_own_process(engine, kind, Path(folder)))
                print(engine, {name: round(v, 4) for name, v in found[engine][-1].items()})
    for name in found["local"][0]:
        local, dask = (statistics.median(f[name] for f in found[engine]) for engine in ENGINES)
        print(f"{name:<10} local {local:10.3f}   dask {dask:10.3f}   ratio {dask / local:.3f}")


def in_own_process(engine: str, kind: str, months: Path) -> dict[str, float]:
    """Return what `fit_once` measures, and the seconds and CPU seconds of the whole process."""
    with tempfile.TemporaryDirectory(prefix="taxi-dask-") as home:
        shutil.copytree(
            months / "data" / "sample", Path(home, "data", "sample"), copy_function=os.link
        )
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--one", "--kind", kind], check=True, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "ENGINE": engine, "TAXI_HOME": home},
        )  # fmt: skip
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout.splitlines()[-1]), "all": seconds, "CPU": cpu}


def fit_once(kind: str) -> dict[str, float]:
    """Return seconds of preparation and fit, and the RMSE on the month after, minutes."""
    found = timed_fit(kind, SERVICE, TRAIN, VALIDATE, most=RIDES)
    return {"prepare": found["prepare"], "fit": found["fit"], "RMSE": found["rmse"]}


if __name__ == "__main__":
    main()
