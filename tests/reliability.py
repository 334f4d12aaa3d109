"""The table of faults and what they cost in docs/reliability.md, written by the runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BEGIN, END = "<!-- written by make test-faults -->\n", "<!-- end of it -->\n"
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
    """Put the table into the page, between its marks; trials of the same fault are one row.

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
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page = f"{before}{BEGIN}\n{COLUMNS}{''.join(rows)}\n{words}\n\n{END}{after}"
    path.write_text(page, encoding="utf-8")
