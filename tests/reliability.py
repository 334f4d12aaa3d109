"""The table of faults and what they cost, docs/reliability.md, written by the runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HEAD = """# Reliability

Faults put into the running service, `python -m serve` with two workers and clients that ask rides
and send durations all the while. **`make test-faults` writes this table**; it does nothing else
than the tests marked `faults`. *Lost* is what was acknowledged (an answer that said it is logged, a
duration that was known) and is not in the log afterwards, or a promise of a simulated history that
was broken. *Back after* is the median (the worst) of the seconds from the end of the fault, or from
the kill, until `/ready` answered 200 again; a dash where it never stopped.

What lay in a log that somebody deleted is gone with it; what came from then on is not.

"""
COLUMNS = (
    "| fault | times | acknowledged | lost | back after, s |\n| --- | --- | --- | --- | --- |\n"
)


class Trial(NamedTuple):
    """One try of a fault: what was acknowledged, what of it is lost, seconds until all was well."""

    fault: str
    times: int
    acknowledged: int
    lost: int
    back_after: float | None


Note = Callable[[str, int, int, int, float | None], None]


def write_table(trials: list[Trial], path: Path, words: str) -> None:
    """Write the page; trials of the same fault are one row.

    Args:
        words: of the run: how long, on what.
    """
    rows = []
    for fault in dict.fromkeys(trial.fault for trial in trials):
        mine = [trial for trial in trials if trial.fault == fault]
        times, kept, lost = (sum(column) for column in zip(*(t[1:4] for t in mine), strict=True))
        waits = [trial.back_after for trial in mine if trial.back_after is not None]
        back = f"{statistics.median(waits):.1f} ({max(waits):.1f})" if waits else "–"
        rows.append(f"| {fault} | {times:,} | {kept:,} | {lost:,} | {back} |\n")
    path.write_text(HEAD + COLUMNS + "".join(rows) + f"\n{words}\n", encoding="utf-8")
