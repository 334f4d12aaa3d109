"""Let mutants of one module live or die by its tests: which rules does no test hold?

    python benchmarks/mutants.py taxi_duration/live/arms.py tests/live
    python benchmarks/mutants.py serve/core/deadline.py tests/serve/test_deadline.py --most 40

cosmic-ray makes the mutants, in an environment of its own that `uv` keeps, and each is tried on a
copy of the project: nothing here is changed. Who survives is printed with the place. A survivor
may be an equal program; look before writing a test.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

PROJECT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
TOOL = (UV, "tool", "run", "--from", "cosmic-ray==8.7.0", "cosmic-ray")
SECONDS = 300  # of the tests, from which on a mutant counts as caught: it hangs
QUICK = "not slow and not long and not faults"


def mutations(module: str, folder: Path) -> list[dict]:
    """Return all mutations of a module: operator, occurrence and place."""
    config = folder / "mutants.toml"
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = {SECONDS}\n'
        'test-command = "true"\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    session = folder / "mutants.sqlite"
    subprocess.run([*TOOL, "init", config, session], cwd=folder, check=True)
    dumped = subprocess.run(
        [*TOOL, "dump", session], cwd=folder, check=True, capture_output=True, text=True
    )
    return [json.loads(line)[0]["mutations"][0] for line in dumped.stdout.splitlines()]


def try_one(mutation: dict, tests: list[str], folder: Path) -> bool:
    """Apply a mutation to the copy, run the tests, take it back; True when it was caught."""
    path = folder / mutation["module_path"]
    before = path.read_text()
    try:
        subprocess.run(
            [*TOOL, "apply", mutation["module_path"], mutation["operator_name"],
             str(mutation["occurrence"])], cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        tried = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", QUICK,
             *tests], cwd=folder, capture_output=True, timeout=SECONDS,
        )  # fmt: skip
        return tried.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(before)


@click.command()
@click.argument("module")
@click.argument("tests", nargs=-1, required=True)
@click.option("--most", default=100, show_default=True, help="Mutants, drawn by chance.")
@click.option("--seed", default=0, show_default=True, help="Of the chance.")
def main(module: str, tests: tuple[str, ...], most: int, seed: int) -> None:
    """Print who survives, and how many were caught."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "project")
        ignored = shutil.ignore_patterns(".venv", ".git", "runs", "data", "models", "tracking")
        shutil.copytree(PROJECT, folder, ignore=ignored)
        found = mutations(module, folder)
        drawn = random.Random(seed).sample(found, min(most, len(found)))
        survived = []
        for number, mutation in enumerate(drawn, 1):
            caught = try_one(mutation, list(tests), folder)
            what = f"line {mutation['start_pos'][0]}: {mutation['operator_name']}"
            click.echo(f"{number}/{len(drawn)} {'caught' if caught else 'SURVIVED'} {what}")
            survived += [] if caught else [what]
    caught = len(drawn) - len(survived)
    click.echo(f"{module}: {caught} of {len(drawn)} caught ({caught / len(drawn):.0%})")


if __name__ == "__main__":
    main()
