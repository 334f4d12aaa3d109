"""Wall time of fitting the kinds beside each other, against one after the other, in turn.

    TLC_URL=../shared/tlc python benchmarks/branches.py --times 3

Also holds that both give the same models to the last bit.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from functools import partial

import click
from results import Results

from taxi_duration.chain.branches import Branch, run_branches
from taxi_duration.cores import usable_cores
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.plain_pickle import dumps
from taxi_duration.model.state import to_state
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import find_kind


@click.command()
@click.option("--months", default="2021-01", show_default=True, help="To fit on.")
@click.option("--kinds", default="LR,LASSO,RIDGE,RF", show_default=True,
              help="What 03 fits of MODEL=best; XGB is there from 02.")  # fmt: skip
@click.option("--times", default=3, show_default=True, help="Of each; medians are printed.")
def main(months: str, kinds: str, times: int) -> None:
    """Print both medians and their ratio."""
    results = Results("branches")
    window = Window.scored(prepare_months("green", parse_months(months)))
    names = kinds.split(",")
    fits = [Branch(n, find_kind(n).threads, partial(fit_model, n, window)) for n in names]
    ways: dict[str, Callable[[], list[DurationModel]]] = {
        "one after the other": lambda: [fit.work() for fit in fits],
        "beside each other": lambda: list(run_branches(fits)),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    digests = set()
    for _ in range(times):
        for way, fit_all in ways.items():
            started = time.perf_counter()
            models = fit_all()
            taken[way].append(time.perf_counter() - started)
            states = b"".join(dumps(to_state(model)) for model in models)
            digests.add(hashlib.sha256(states).hexdigest())
    medians = {way: statistics.median(seconds) for way, seconds in taken.items()}
    for way, seconds in taken.items():
        print(f"{way:<20} median {medians[way]:.1f} s ({', '.join(f'{s:.1f}' for s in seconds)})")
    first, second = medians.values()
    results.add("beside each other", "to one after the other", second / first, "ratio")
    for way, seconds in medians.items():
        results.add(way, "seconds", seconds, "s")
    print(f"ratio {second / first:.2f} on {usable_cores()} cores; {len(digests)} set of models")
    results.write()


if __name__ == "__main__":
    main()
