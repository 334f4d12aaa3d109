"""Wall time of the chain against the same calls in one plain Python script, interleaved.

    python benchmarks/chain.py --model LR --times 3

The plain script runs the code cells of the same notebooks one after the other in one process:
it is what the chain would cost without kernels, executed notebooks and report. The second run
takes every notebook from the first.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from results import Results

PROJECT = Path(__file__).resolve().parent.parent
CHAIN = "python pipeline.py run --fresh"  # as README names them
PLAIN, HELP = "the plain script", "python pipeline.py --help"
PLAIN_SCRIPT = """
import sys
import nbformat
from pipeline import NOTEBOOKS
from taxi_duration.chain.run import new_run
from taxi_duration.chain.run_settings import resolve_settings

run = new_run(resolve_settings({}, {}))
values = {**run.settings.as_parameters(), "RUN_DIR": str(run.folder)}
for name in NOTEBOOKS:
    notebook, names = nbformat.read(f"notebooks/{name}.ipynb", as_version=4), {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", ()):
            names.update(values)
"""


def seconds_of(command: list[str], environment: dict[str, str]) -> float:
    """Run a command to its end and return its wall time; its output is shown if it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - started


@click.command()
@click.option("--model", default="LR", show_default=True)
@click.option("--times", default=3, show_default=True, help="Runs of each; medians are printed.")
def main(model: str, times: int) -> None:
    """Print the medians, and their ratio to the plain script."""
    results = Results("chain")
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TAXI_HOME": home, "MODEL": model, "PYTHONPATH": str(PROJECT)}
        commands = {
            CHAIN: [sys.executable, "pipeline.py", "run", "--fresh"],
            "a second run": [sys.executable, "pipeline.py", "run"],
            PLAIN: [sys.executable, "-c", PLAIN_SCRIPT],
            HELP: [sys.executable, "pipeline.py", "--help"],
        }
        seconds_of(commands[CHAIN], environment)  # fills the caches of both
        # Its months are at hand now; nor shall both wait for a network that is not there.
        (made,) = Path(home).glob("runs/*/run.json")
        environment["DATA"] = json.loads(made.read_text())["data_source"]
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(times):
            for name, command in commands.items():
                taken[name].append(seconds_of(command, environment))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, values in taken.items():
        runs = ", ".join(f"{value:.1f}" for value in values)
        ratio = statistics.median(a / b for a, b in zip(values, taken[PLAIN], strict=True))
        print(f"{name:<32}MODEL={model}: median {medians[name]:.2f} s ({runs}), ratio {ratio:.2f}")
        results.add(name, "to the plain script", ratio, "ratio")
        results.add(name, "seconds", medians[name], "s")
    results.write()


if __name__ == "__main__":
    main()
