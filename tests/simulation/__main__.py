"""Plays histories and tells one of them.

PYTHONPATH=tests python -m simulation --seed 4711        # one history, told
PYTHONPATH=tests python -m simulation --histories 10000  # as many as that, counted
"""

from __future__ import annotations

import sys
import time

import click

from simulation.history import BrokenPromiseError, History, play


@click.command()
@click.option("--seed", default=0, show_default=True, help="Of the (first) history.")
@click.option("--histories", default=1, show_default=True, help="Seeds in a row.")
def main(seed: int, histories: int) -> None:
    """Play them; the exit code is 1 where a promise was broken."""
    calls = 0

    def told(history: History) -> None:
        nonlocal calls
        calls += history.machine.calls
        if histories == 1:
            click.echo("\n".join(history.machine.story))

    started = time.perf_counter()
    try:
        play(range(seed, seed + histories), told)
    except BrokenPromiseError as broken:
        sys.exit(str(broken) if histories > 1 else str(broken).partition("\n")[0])
    seconds = time.perf_counter() - started
    click.echo(f"{histories} histories, {calls:,} calls, {histories / seconds * 60:,.0f} a minute")


if __name__ == "__main__":
    main()
