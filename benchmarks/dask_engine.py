"""A fit of XGB in one process, against one on a Dask cluster of this machine's cores, in turn.

    python benchmarks/dask_engine.py --rows 5000000 --times 3
    python benchmarks/dask_engine.py --year           # a whole `pipeline.py run`, memory too

Months are yellow ones of the built-in generator: two to fit on, of half the rows each, and one of
them more to score. Each fit is a process of its own, in a home of its own that knows only the
months' files: it prepares them, makes the sums and fits with intervals. On a machine of two cores
the cluster has two workers of one thread, and the other process boosts on two threads.

With --year a run learns from twelve months of 3 million rows each and is scored on the next one:
seconds, CPU seconds and the highest memory of all its processes together.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from results import PROJECT
from scale import watch
from timed_fit import timed_fit

from taxi_duration.data.sources import fetch_months
from taxi_duration.domain.months import parse_months
from taxi_duration.files import read_json

SERVICE, TRAIN, VALIDATE = "yellow", "2019-01:2019-02", "2019-03"
ENGINES = ("local", "dask")
RIDES = 1_000_000  # scored
YEAR, AFTER_YEAR, MONTH_ROWS = "2019-01:2019-12", "2020-01", 3_000_000
YEAR_MINUTES = 240.0  # at most


@click.command()
@click.option("--rows", default=5_000_000, show_default=True, help="To fit on.")
@click.option("--times", default=3, show_default=True, help="Of each; medians are printed.")
@click.option("--kind", default="XGB", show_default=True)
@click.option("--year", is_flag=True, help="A whole run on twelve months of 3 million rows, once.")
@click.option("--one", hidden=True, is_flag=True, help="Fit once, by ENGINE, and print figures.")
def main(rows: int, times: int, kind: str, year: bool, one: bool) -> None:
    """Print seconds and error by engine, and their ratios."""
    if one:
        print(json.dumps(fit_once(kind)))
        return
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    measured = run_year if year else in_own_process
    with tempfile.TemporaryDirectory(prefix="taxi-dask-") as folder:
        os.environ |= {"DATA": "sample", "TAXI_HOME": folder,
                       "SAMPLE_ROWS": str(MONTH_ROWS if year else rows // 2)}  # fmt: skip
        if not year:
            os.environ["BOOST_ROWS"] = "all"
        first, last = (YEAR, AFTER_YEAR) if year else (TRAIN, VALIDATE)
        fetch_months(SERVICE, parse_months(f"{first.split(':')[0]}:{last}"))
        for _ in range(1 if year else times):
            for engine in ENGINES:
                found[engine].append(measured(engine, kind, Path(folder)))
                print(
                    engine, {name: round(v, 4) for name, v in found[engine][-1].items()}, flush=True
                )
    for name in found["local"][0]:
        local, dask = (statistics.median(f[name] for f in found[engine]) for engine in ENGINES)
        print(f"{name:<10} local {local:10.3f}   dask {dask:10.3f}   ratio {dask / local:.3f}")


@contextmanager
def own_home(months: Path) -> Iterator[Path]:
    """A home that knows the generated months' files and nothing else."""
    with tempfile.TemporaryDirectory(prefix="taxi-dask-") as home:
        shutil.copytree(
            months / "data" / "sample", Path(home, "data", "sample"), copy_function=os.link
        )
        yield Path(home)


def run_year(engine: str, kind: str, months: Path) -> dict[str, float]:
    """Return seconds, CPU seconds, memory (GB) and the RMSE (minutes) of a whole run."""
    with own_home(months) as home:
        settings = {"ENGINE": engine, "TAXI_HOME": str(home), "SERVICE": SERVICE}
        found = watch(
            [sys.executable, str(PROJECT / "pipeline.py"), "run", "--model", kind,
             "--train-data", YEAR, "--val-data", AFTER_YEAR],
            {**os.environ, **settings}, YEAR_MINUTES,
        )  # fmt: skip
        if "failed" in found:
            raise click.ClickException(f"{engine}: {found['failed']}\n{found['output']}")
        metrics = read_json(home / "models" / f"{SERVICE}-duration" / "1" / "card.json")["metrics"]
    return {
        "all": found["wall"], "CPU": found["cpu"], "GB": found["peak_gb"],
        "RMSE": metrics["with_distance"]["rmse"],
    }  # fmt: skip


def in_own_process(engine: str, kind: str, months: Path) -> dict[str, float]:
    """Return what `fit_once` measures, and the seconds and CPU seconds of the whole process."""
    with own_home(months) as home:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--one", "--kind", kind], check=True, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "ENGINE": engine, "TAXI_HOME": str(home)},
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
