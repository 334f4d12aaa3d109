"""What real months give as findings, how far they stay from the bounds, and what the look costs.

TLC_URL=… python benchmarks/month_health.py [--service green] [--months 2020-03:2022-06]
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import click

from taxi_duration.data import trips
from taxi_duration.data.health import alone, compare, finding, look
from taxi_duration.data.health.finding import bounds
from taxi_duration.data.month_health import REACH_MONTHS, examine_months
from taxi_duration.data.prepared import PreparedMonth, prepare_months
from taxi_duration.data.sources import existing_months
from taxi_duration.domain.findings import Level
from taxi_duration.domain.months import Month, check_service, parse_months

LOCKDOWN = (Month(2020, 3), Month(2020, 4), Month(2020, 5))
HELD_OUT = (4, 8, 12)  # months of each year; those after 2022, too
LAST_CALIBRATED = 2022
TIMES_LARGEST = 1.5


@contextmanager
def every_value() -> Iterator[dict[str, list[float]]]:
    """Collect each measure before it is judged."""
    values: dict[str, list[float]] = defaultdict(list)

    def keep(code: str, value: float) -> Level:
        values[code].append(value)
        return "ok"

    before, finding.judge = finding.judge, keep
    try:
        yield values
    finally:
        finding.judge = before


def is_held_out(month: Month) -> bool:
    """True for the months that no bound of the split comes from."""
    return month.month in HELD_OUT or month.year > LAST_CALIBRATED


def largest(months: list[PreparedMonth]) -> tuple[dict[str, float], dict[str, float]]:
    """Return each code's largest value in the calibration months, and in those held out."""
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for month in months:
        if month.raw.month in LOCKDOWN:
            continue
        at, faulty = month.raw.month, frozenset(fault.vendor or "" for fault in month.faults)
        reach = at.shift(-REACH_MONTHS)
        before = [m.profile for m in months if reach <= m.raw.month < at]
        with every_value() as values:
            list(alone.find_alone(month.profile, at, month.accounting.reasons, faulty))
            list(compare.compare(month.profile, before) if before else ())
        side = found[is_held_out(month.raw.month)]
        for code, some in values.items():
            side[code] = max(side.get(code, 0.0), *some)
    return found


def cost(month: PreparedMonth, times: int) -> str:
    """Read a month with and without the look, in turn; medians."""
    path, whole = month.raw.path, trips.look_at_columns
    empty = whole(trips.pa.table({}), month.trips().iloc[:0], None)
    taken: dict[str, list[float]] = {"with": [], "without": []}

    def none(raw, frame, month) -> look.MonthLook:
        return look.MonthLook(trips.np.zeros(len(frame), dtype=bool), empty.profile)

    for _ in range(times):
        for name, function in (("with", whole), ("without", none)):
            trips.look_at_columns = function
            started = time.perf_counter()
            trips.read_month(path, month.raw.month)
            taken[name].append(time.perf_counter() - started)
    trips.look_at_columns = whole
    looked, plain = (1000 * statistics.median(taken[name]) for name in ("with", "without"))
    rows = month.accounting.rows_read
    return f"{path.name}: {rows:,} rows, {plain:.1f} ms without, {looked:.1f} ms with the look"


@click.command()
@click.option("--service", default="green", show_default=True)
@click.option("--months", default="2020-03:2025-02", show_default=True)
@click.option("--times", default=9, show_default=True, help="Readings of the last month, in turn.")
def main(service: str, months: str, times: int) -> None:
    """Print findings, the distance to the bounds, and the cost."""
    asked = existing_months(check_service(service), parse_months(months), lambda line: None)
    prepared = prepare_months(service, asked)
    for health in examine_months(prepared):
        for line in health.lines:
            print(line)
    known, held_out = largest(prepared)
    print(f"\n{'code':<22}{'calibrated':>12}{'held out':>10}{'watch':>8}")
    for code in sorted(known):
        bound, other = bounds()[code].watch, held_out.get(code, 0.0)
        beyond = "  beyond 1.5 x" if other > max(TIMES_LARGEST * known[code], 0.0) else ""
        print(f"{code:<22}{known[code]:>12.3f}{other:>10.3f}{bound:>8g}{beyond}")
    print(f"\n{cost(prepared[-1], times)}")


if __name__ == "__main__":
    main()
