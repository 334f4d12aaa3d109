"""Rows per second and memory of `score`, from Parquet to Parquet, beside the plain way with frames.

    python benchmarks/score.py [--rows 3000000] [--months 2] [--times 3]

Yellow months are generated and prepared, LR and XGB are fitted on the first of them, and both
ways answer all of them in turn, each time in a process of its own. The plain way reads the months
into one frame, answers it and writes it, as `score` did.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from peak_memory import peak_bytes
from results import Results

from taxi_duration.chain.answered import forget_answers, write_answered
from taxi_duration.data.prepared import PreparedMonth, prepare_months
from taxi_duration.data.window import MonthPart, Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import evaluate
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.training.fit import fit_model
from taxi_duration.training.sampling import sample_rows

KINDS = ("LR", "XGB")
FITTED_ROWS = 300_000  # of the first month: minutes for XGB, and its trees have hundreds of leaves
WAYS = ("score", "frames")


def months_of(n: int) -> list[PreparedMonth]:
    """Return the first months of 2019, generated where they are not there yet."""
    return prepare_months("yellow", parse_months(f"2019-01:2019-{n:02}"), mode="sample")


def with_frames(model: DurationModel, months: list[PreparedMonth], path: Path) -> None:
    """Answer months as one frame."""
    import pandas as pd

    trips = pd.concat([month.trips() for month in months], ignore_index=True)
    rides = Rides.from_frame(trips)
    answers = model.answer(rides)
    trips.assign(
        predicted=answers.duration, p10=answers.p10, p50=answers.p50, p90=answers.p90,
        support=answers.support, used_distance=answers.used_distance,
        model=pd.Categorical(["yellow-duration:1"]).repeat(len(trips)),
    ).to_parquet(path, index=False)  # fmt: skip
    evaluate(trips["duration"].to_numpy(), answers, rides)


def answer_once(way: str, model: Path, n: int) -> None:
    """Answer in this process and print what it took as JSON; preparing is not counted."""
    import time

    fitted, months = pickle.loads(model.read_bytes()), months_of(n)
    path = model.with_name(f"{way}.parquet")
    started, cpu = time.perf_counter(), time.process_time()
    if way == "frames":
        with_frames(fitted, months, path)
    else:
        forget_answers(path)  # of the run before: it would go on with them
        groups = [group for month in months for group in MonthPart.of(month, True).groups()]
        write_answered(fitted, groups, {"model": "yellow-duration:1"}, path)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    rows = sum(month.accounting.rows_kept for month in months)
    figures = {"rows_s": rows / seconds, "rows_cpu_s": rows / cpu, "gb": peak_bytes() / 1e9}
    print(json.dumps(figures))


def measure(kind: str, model: Path, n: int, times: int, results: Results) -> None:
    """Let both ways answer in turn; print and keep medians."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(times):
        for way in WAYS:
            asked = [sys.executable, __file__, "--one", way, str(model), "--months", str(n)]
            said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(said.splitlines()[-1]))
    medians = {
        way: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for way, runs in found.items()
    }
    ratio = medians["score"]["rows_s"] / medians["frames"]["rows_s"]
    results.add(kind, "to frames", round(ratio, 2), "ratio")
    for way, figures in medians.items():
        results.add(kind, f"{way}, rows a second", round(figures["rows_s"]), "rows/s")
        results.add(kind, f"{way}, memory", round(figures["gb"], 2), "GB")
        print(
            f"{kind:<5}{way:<8}{figures['rows_s']:>12,.0f} rows/s{figures['rows_cpu_s']:>12,.0f} "
            f"rows/CPU s{figures['gb']:>8.2f} GB",
            flush=True,
        )
    print(f"{kind:<5}{ratio:.2f} × the rows a second of frames")


@click.command()
@click.option("--rows", default=3_000_000, show_default=True, help="Of each generated month.")
@click.option("--months", "n", default=2, show_default=True, help="How many.")
@click.option("--times", default=3, show_default=True, help="Medians are printed.")
@click.option("--one", nargs=2, hidden=True)
def main(rows: int, n: int, times: int, one: tuple[str, str] | None) -> None:
    """Print rows a second and peak memory of each kind of model, both ways."""
    if one is not None:
        answer_once(one[0], Path(one[1]), n)
        return
    results = Results("score")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"TAXI_HOME": home, "DATA": "sample", "SAMPLE_ROWS": str(rows)}
        window = Window.scored(months_of(n)[:1])
        for kind in KINDS:
            model = Path(home) / f"{kind}.pickle"
            fitted = fit_model(kind, sample_rows(window, FITTED_ROWS, seed=0))
            model.write_bytes(pickle.dumps(fitted))
            measure(kind, model, n, times, results)
    results.write()


if __name__ == "__main__":
    main()
