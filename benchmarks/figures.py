"""Figures of the newest run, to hold against those of other Pythons and machines.

python benchmarks/figures.py > one.json       the newest run below TAXI_HOME (this folder)
python benchmarks/figures.py one.json …       a table of several; exit code 1 where they differ

Months and predictions are compared to the bit among machines of one kind. Another processor may
round the last digit of a sum otherwise: there the errors are compared to 0.0001 minutes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def read_newest() -> dict[str, Any]:
    """Return what the newest run's cards say of each model, and with what it was made."""
    runs = Path(os.environ.get("TAXI_HOME") or ".", "runs")
    newest = max(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent
    cards = [json.loads(path.read_text()) for path in sorted(newest.glob("candidates/*/card.json"))]
    return {
        "libraries": cards[0]["libraries"],
        "figures": {
            card["model_kind"]: {
                "months": [m["sha256"] for part in card["months"].values() for m in part],
                "predictions": card["predictions_sha256"],
                "rmse": card["metrics"]["with_distance"]["rmse"],
            }
            for card in cards
        },
    }


def compare(runs: list[dict[str, Any]]) -> list[str]:
    """Return what differs from the first run of the same platform, and from the first of all."""
    same_platform: dict[str, dict[str, Any]] = {}
    problems = []
    for run in runs:
        libraries, figures = run["libraries"], run["figures"]
        who = f"{libraries['platform']}, Python {libraries['python']}"
        if figures != (first := same_platform.setdefault(libraries["platform"], figures)):
            others = [kind for kind in first if figures.get(kind) != first[kind]]
            problems.append(f"{who}: {', '.join(others)} differs from the same machine's first")
        for kind, figure in runs[0]["figures"].items():
            apart = abs(figures[kind]["rmse"] - figure["rmse"])
            if apart > 0.0001:
                problems.append(f"{who}: the RMSE of {kind} is {apart:.4f} from the first's")
        rows = (f"{kind} {f['rmse']:.6f} {f['predictions'][:8]}" for kind, f in figures.items())
        print(f"{who:32}", *rows, sep="  ")
    return problems


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(read_newest(), indent=1))
    else:
        found = compare([json.loads(Path(path).read_text()) for path in sys.argv[1:]])
        print(*found, sep="\n")
        sys.exit(bool(found))
