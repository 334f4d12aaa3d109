"""The time and memory that learning from many rows takes, as `make bench-scale` measured them."""

from __future__ import annotations

from math import log

from taxi_duration import environment
from taxi_duration.files import read_json

MEASURED = environment.PROJECT_ROOT / "benchmarks" / "results" / "scale.json"
LEAST_ROWS = 3_000_000  # fewer are learned from in minutes
BY_SUMS = ("LR", "RIDGE", "LASSO")  # the other kinds grow trees, from BOOST_ROWS rows at most


def expected_cost(model: str, rows: int) -> str | None:
    """Return what was measured at the nearest size, and the time in proportion to the rows.

    Tables are made of all rows, trees of those that they learn from.

    Args:
        model: a kind, or `best`.
        rows: to learn from.
    Returns:
        None for few rows, or when nothing of the kind was measured: nothing is guessed.
    """
    if rows < LEAST_ROWS or not MEASURED.exists():
        return None
    measured = read_json(MEASURED)
    found: dict[int, dict[str, list[float]]] = {}
    for figure in measured["figures"]:
        found.setdefault(_rows(figure["of"]), {})[figure["what"]] = figure["value"]
    sizes = [size for size, steps in found.items() if {"tables", model} <= steps.keys()]
    if not sizes:
        return None
    size = min(sizes, key=lambda size: abs(log(size / rows)))
    tables, own = (found[size][step] for step in ("tables", model))
    # Of `best` the tables are a part.
    of_tables, of_model = tables[1], own[1] - (tables[1] if model == "best" else 0.0)
    expected = of_tables * rows / size + of_model * _learned(model, rows, size)
    machine = measured["machine"]
    return (
        f"{rows:,} rows to learn from: {model} took {(of_tables + of_model) / 60:.0f} min and "
        f"{max(tables[2], own[2]):.1f} GB for {size // 1_000_000:,} million on "
        f"{machine['cores']} cores ({machine['processor']}); in proportion "
        f"{expected / 60:.0f} min (docs/scale.md)"
    )


def _learned(model: str, rows: int, size: int) -> float:
    """Return how many times as many rows a model learns from, as it did of the measured size."""
    if model in BY_SUMS:
        return rows / size
    most = environment.boost_rows() or rows
    return min(rows, most) / min(size, environment.BOOST_ROWS)


def _rows(size: str) -> int:
    """`1,000 M` as a number."""
    return int(size.removesuffix(" M").replace(",", "")) * 1_000_000
