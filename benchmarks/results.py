"""Where every bench keeps its figures: benchmarks/results/NAME.json, which README and docs quote.

    from results import Results                     # in a script of this folder

    results = Results("chain")                      # waits for a quiet machine, notes its load
    results.add("pipeline.py", "to the plain script", 1.38, "ratio")
    results.add("XGB", "2021-02", [4.913, 3.191], "RMSE / MAE, minutes")
    results.write()                                 # may be called again, as figures come

`add(of, what, value, unit)`: `of` is the row and `what` the column of the table that quotes it, in
README's own words; several numbers of one cell are a list in their order. Ratios come first.
tests/test_results.py holds each cell of README's tables against the file that stands in a comment
above the table: `<!-- results: chain -->`.

Only the whole bench (no options given, or `whole=True`) on a quiet machine replaces a kept file.
Everything else is written to build/bench/NAME.json, marked as what it is, and said so.

    python benchmarks/results.py                    # what is kept: when, of what commit, how long
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parent.parent
KEPT = PROJECT / "benchmarks" / "results"
ASIDE = PROJECT / "build" / "bench"
# Of all cores together, over so long: nothing else runs. A quiet machine idles at 0.2 to 2 %.
QUIET_SHARE, QUIET_SECONDS = 0.04, 5.0
WAIT_SECONDS = 120.0
# What decides a bench's seconds, beside the code; those of a model's figures come first.
PACKAGES = (
    "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "xgboost-cpu", "mlflow", "papermill",
    "ipykernel", "dask", "distributed", "flask", "granian", "msgspec", "sqlalchemy",
)  # fmt: skip


class Results:
    """Figures of one bench and what they were measured with."""

    def __init__(self, name: str, whole: bool | None = None, wait: float = WAIT_SECONDS) -> None:
        """Wait for a quiet machine, at most so many seconds.

        Args:
            whole: this is the bench that README quotes; None: when no options were given.
        """
        self.name = name
        self.whole = not sys.argv[1:] if whole is None else whole
        self.before = wait_for_quiet(wait)
        self.started = time.perf_counter()
        self.figures: list[dict[str, Any]] = []

    def add(self, of: str, what: str, value: float | Sequence[float], unit: str) -> None:
        """Keep a figure: the row and the column that quote it, the number or numbers, the unit."""
        self.figures.append({"of": of, "what": what, "value": value, "unit": unit})

    def write(self) -> Path:
        """Write the file and say where it is."""
        keeps = self.whole and self.before["quiet"]
        path = (KEPT if keeps else ASIDE) / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")
        why = "" if keeps else f"; benchmarks/results/{self.name}.json stays: {self._why()}"
        print(f"\nwritten to {path.relative_to(PROJECT)}{why}")
        return path

    def as_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {
            "name": self.name,
            "command": _command(),
            "whole": self.whole,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "seconds": round(time.perf_counter() - self.started, 1),
            "machine": machine(),
            "before": self.before,
            "versions": versions(),
            "figures": self.figures,
        }

    def _why(self) -> str:
        return "the machine was not quiet" if self.whole else "this was a part of the bench"


def wait_for_quiet(seconds: float) -> dict[str, Any]:
    """Wait until nothing else runs, at most so long; return how busy the machine is, and say it.

    Returns:
        `quiet`, `busy` (share of all cores) and `load` (average over a minute: it still counts
        what ended just before, so it decides nothing).
    """
    until = time.monotonic() + seconds
    while True:
        busy = psutil.cpu_percent(QUIET_SECONDS) / 100
        is_quiet = busy < QUIET_SHARE
        if is_quiet or time.monotonic() > until:
            load = os.getloadavg()[0]
            text = "quiet" if is_quiet else "NOT quiet, figures say little"
            print(f"Before: {text}; {busy:.1%} of all cores busy, load {load:.2f}\n", flush=True)
            return {"quiet": is_quiet, "busy": round(busy, 4), "load": round(load, 2)}


def machine() -> dict[str, Any]:
    """Return processor, cores and memory; nothing that names the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the version of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_kept() -> dict[str, dict[str, Any]]:
    """Return every kept file by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))}


def _commit() -> str:
    """Commit of the code; `-dirty` when code, and not only figures, changed since."""
    code = ("taxi_duration", "serve", "notebooks", "benchmarks/*.py", "pipeline.py")
    try:
        commit, changed = (
            subprocess.run(
                ["git", *words], cwd=PROJECT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *code))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _command() -> str:
    """The command as anyone would give it: no place of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def main() -> None:
    """Print a line for every kept file, and how long all took."""
    every = read_kept().values()
    for kept in every:
        took = f"{kept['seconds'] / 60:.1f} min" if kept["seconds"] else "unknown"
        print(f"{kept['name']:<12}{kept['date'][:10]:<12}{kept['commit'][:9]:<11}{took:>9}  "
              f"{len(kept['figures'])} figures, {kept['command']}")  # fmt: skip
    minutes = sum(kept["seconds"] or 0 for kept in every) / 60
    print(f"They took {minutes:.0f} minutes, without those that nobody timed")


if __name__ == "__main__":
    main()
