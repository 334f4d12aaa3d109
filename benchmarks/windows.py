"""What a year of history buys: one month and twelve before nine target months, against rivals.

Every model learns from the months before its target and is scored once on the target, with the
asked distance and without, each in a process of its own. Rivals are the lookups, the plain
LightGBM (`plain_lightgbm.py`), and the model of the version before this history, whose figures
stand in `rivals.json` beside those of the others: they do not change with our code.

    python benchmarks/windows.py                       # what is not there yet, then the tables
    python benchmarks/windows.py --target 2021-10 --who xgb-12     # a piece of it; may be repeated
    python benchmarks/windows.py --rivals              # what rivals.json lacks

A piece that was measured with the same code is not measured again: a killed bench goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
from peak_memory import peak_bytes
from plain_lightgbm import fit_plain_lightgbm
from results import ASIDE, PROJECT, Results

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import error_metrics, evaluate
from taxi_duration.files import code_digest, write_json
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.fit import fit_model

TARGETS = tuple(map(str, parse_months("2021-10:2022-06")))
LAST_VERSION = "last-1"
RIVALS = ("lookups-1", "lookups-12", "lightgbm-1", "lightgbm-12")
OURS = ("xgb-1", "xgb-12")
NAMES = {
    "xgb-12": "XGB, 12 months",
    "xgb-1": "XGB, 1 month",
    LAST_VERSION: "XGB of the version before, 1 month",
    "lightgbm-12": "plain LightGBM, 12 months",
    "lightgbm-1": "plain LightGBM, 1 month",
    "lookups-12": "best lookup, 12 months",
    "lookups-1": "best lookup, 1 month",
}
RIVALS_FILE = Path(__file__).with_name("rivals.json")
OURS_FILE = ASIDE / "windows-ours.json"
THREADS = 2
Found = dict[str, Any]


def main() -> None:
    """Measure what is missing, and print it all."""
    asked = _arguments()
    if asked.piece:
        print(json.dumps(_measure(*asked.piece.split())))
        return
    results = Results("windows")
    measure_missing(asked.who or (RIVALS if asked.rivals else OURS), asked.target or TARGETS)
    _tell(results, {**_read(RIVALS_FILE), **_read(OURS_FILE)})
    results.write()


def measure_missing(who: Sequence[str], targets: Sequence[str]) -> None:
    """Measure what is not kept: ours with other code is not, rivals are whatever ours is."""
    for name in who:
        file, code = (RIVALS_FILE, "") if name in RIVALS else (OURS_FILE, code_digest())
        for target in targets:
            if _read(file).get(f"{name} {target}", {}).get("code") == code:
                continue
            found = {**_in_own_process(name, target), "code": code}
            write_json(file, dict(sorted({**_read(file), f"{name} {target}": found}.items())))
            print(f"{target} {name}: {_in_words(found)}", flush=True)


def _read(file: Path) -> dict[str, Found]:
    return json.loads(file.read_text()) if file.exists() else {}


def _in_own_process(who: str, target: str) -> Found:
    """Measure one piece where nothing else has taken memory."""
    command = [sys.executable, __file__, "--piece", f"{who} {target}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PROJECT)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(who: str, target: str) -> Found:
    """Fit on the months before a target and score on it."""
    kind, months = who.split("-")
    [month] = parse_months(target)
    window = Window.learnable(
        prepare_months("green", [month.shift(-i) for i in range(int(months), 0, -1)])
    )
    rides, actual = Window.scored(prepare_months("green", [month])).whole()
    started, cpu = time.perf_counter(), time.process_time()
    score = FITS[kind](window)
    figures = {
        "fit_seconds": time.perf_counter() - started,
        "fit_cpu_seconds": time.process_time() - cpu,
    }
    found = score(rides, actual)
    peak = peak_bytes() / 2**20
    return {**found, **figures, "peak_mb": peak, "trips": len(window), "busy": os.getloadavg()[0]}


Score = Callable[[Rides, np.ndarray], Found]


def _fit_ours(window: Window) -> Score:
    model = fit_model("XGB", window)

    def score(rides: Rides, actual: np.ndarray) -> Found:
        asked = {"with": rides, "without": rides.without_distance()}
        return {name: _flat(evaluate(actual, model.answer(r), r)) for name, r in asked.items()}

    return score


def _flat(figures: Found) -> Found:
    return {name: value for name, value in figures.items() if name != "segments"}


def _fit_lightgbm(window: Window) -> Score:
    with_distance, without = fit_plain_lightgbm(*window.whole(), THREADS)
    return lambda rides, actual: {
        "with": error_metrics(actual, np.clip(with_distance(rides), 1, 60)),
        "without": error_metrics(actual, np.clip(without(rides), 1, 60)),
    }


def _fit_lookups(window: Window) -> Score:
    lookups = fit_baselines(window).values()

    def score(rides: Rides, actual: np.ndarray) -> Found:
        every = [error_metrics(actual, lookup.predict_minutes(rides)) for lookup in lookups]
        best = min(every, key=lambda errors: errors["rmse"])
        return {"with": best, "without": best}

    return score


FITS = {"xgb": _fit_ours, "lightgbm": _fit_lightgbm, "lookups": _fit_lookups}


def _tell(results: Results, pieces: dict[str, Found]) -> None:
    """Print both tables, as Markdown, and keep their figures, of those that have all targets."""
    measured = {
        who: [pieces[f"{who} {target}"] for target in TARGETS if f"{who} {target}" in pieces]
        for who in NAMES
    }
    whole = [who for who, found in measured.items() if len(found) == len(TARGETS)]
    rows = {NAMES[who]: _figures(measured[who], measured[LAST_VERSION]) for who in whole}
    by_target = {
        target: {
            NAMES[who]: ([measured[who][k][w]["rmse"] for w in ("with", "without")], "minutes")
            for who in whole
        }
        for k, target in enumerate(TARGETS)
    }
    for table in (rows, by_target):
        columns = list(max(table.values(), key=len, default={}))
        print(f"\n| | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
        for of, figures in table.items():
            cells = [_said(figures[what][0]) if what in figures else "–" for what in columns]
            print(f"| {of} | {' | '.join(cells)} |")
            for what, (value, unit) in figures.items():
                results.add(of, what, value, unit)


def _figures(found: list[Found], last: list[Found]) -> dict[str, tuple[Any, str]]:
    """Return value and unit of a row's cells."""

    def mean(*names: str) -> float:
        return float(np.mean([reduce(getitem, names, piece) for piece in found]))

    ratios = np.array([
        [piece[w]["rmse"] / before[w]["rmse"] - 1 for w in ("with", "without")]
        for piece, before in zip(found, last, strict=True)
    ])  # fmt: skip
    figures: dict[str, tuple[Any, str]] = {
        "RMSE / MAE": ([mean("with", "rmse"), mean("with", "mae")], "minutes"),
        "no distance": ([mean("without", "rmse"), mean("without", "mae")], "minutes"),
        "to the version before": (list(100 * ratios.mean(axis=0)), "%, with / without"),
        "on its worst target": (list(100 * ratios.max(axis=0)), "%, with / without"),
        "fit, CPU s": (mean("fit_cpu_seconds"), "s"),
    }
    if "peak_mb" in found[0]:
        figures["peak memory, MB"] = (mean("peak_mb"), "MB")
    if "coverage" in found[0]["with"]:
        figures["holds (nominal 80 %)"] = (100 * mean("with", "coverage"), "%")
        figures["mean width"] = (mean("with", "mean_width"), "minutes")
        figures["pinball"] = (mean("with", "pinball"), "minutes")
    return figures


def _said(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return " / ".join(f"{v:,.{3 if abs(v) < 20 else 1}f}" for v in values)


def _in_words(found: Found) -> str:
    both = (found[w]["rmse"] for w in ("with", "without"))
    cost = f"{found['fit_cpu_seconds']:.0f} CPU s, {found['peak_mb']:.0f} MB"
    return f"RMSE {' / '.join(f'{rmse:.3f}' for rmse in both)}, {cost}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be given again")
    parser.add_argument("--who", action="append", choices=[*OURS, *RIVALS], help="as well")
    parser.add_argument("--rivals", action="store_true", help="measure the rivals instead of ours")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
