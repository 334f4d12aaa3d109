"""What more rows buy a booster, and what they cost: the figures behind the default of BOOST_ROWS.

    python benchmarks/boost_rows.py --train 2021-06:2022-05 --val 2022-06 [--full]

Tables are those of the whole window; the trees with distance learn from a sixteenth of its rows and
from twice as many, up to all. Drawn twice: alike of all months, and as a fit draws them, with fewer
of months that count less. CPU seconds of one thread; `--full` with the parameters of a fit in place
of a rehearsal's. SAMPLE_ROWS says how large generated months are; BOOST_ROWS=all is set here.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

import numpy as np
from peak_memory import peak_bytes

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.evaluation.metrics import error_metrics
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.training import tree_models
from taxi_duration.training.feature_tables import window_atlas, window_tables
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.sampling import draw_sample
from taxi_duration.training.window_sums import window_sums

DIVISORS = (16, 8, 4, 2, 1)
RIDES = 500_000


def main() -> None:
    """Fit, score and print a line for each number of rows."""
    asked = _arguments()
    os.environ["BOOST_ROWS"] = "all"
    tree_models.THREADS = 1
    kind = KINDS["XGB"]
    if not asked.full:
        kind = replace(kind, parameters={**kind.parameters, **kind.quicker})
    months = [
        prepare_months(asked.service, parse_months(tags)) for tags in (asked.train, asked.val)
    ]
    window, later = Window.learnable(months[0]), Window.scored(months[1])
    tables = window_tables(window, atlas=window_atlas(window))
    rides, actual = later.evenly(RIDES)
    used = TreeModel.uses_distance(rides)
    lesson = kind.prepare(window)
    print("| rows | drawn | RMSE | MAE | CPU s | peak MB |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
    for divisor in DIVISORS:
        for drawn, half_life in (("alike", np.inf), ("by weight", window_sums(window).half_life)):
            if divisor == 1 and drawn == "alike":
                continue
            started, most = time.process_time(), max(len(window) // divisor, 1)
            few = replace(lesson, sample=draw_sample(window, most, 0, half_life))
            trees = kind.learn_from(few, with_distance=True)
            seconds = time.process_time() - started
            point = TreeModel(tables, trees, trees, lesson.conditions, level=lesson.level)
            errors = error_metrics(actual[used], point.predict_minutes(rides.take(used)))
            peak = peak_bytes() / 2**20
            print(f"| {most:,} | {drawn} | {errors['rmse']:.4f} | {errors['mae']:.4f} | "
                  f"{seconds:.0f} | {peak:,.0f} |", flush=True)  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--service", default="green")
    parser.add_argument("--train", default="2021-06:2022-05")
    parser.add_argument("--val", default="2022-06")
    parser.add_argument("--full", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
