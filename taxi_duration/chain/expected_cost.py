"""The time and memory that learning from many rows takes, as `make bench-scale` measured them."""

from __future__ import annotations

from math import log

from taxi_duration import environment
from taxi_duration.files import read_json

MEASURED = environment.PROJECT_ROOT / "benchmarks" / "results" / "scale.json"
LEAST_ROWS = 3_000_000  # fewer are learned from in minutes


def expected_cost(model: str, rows: int) -> str | None:
    """Return what was measured at the nearest size, in proportion to the rows.

    Args:
        model: a kind, or `best`.
        rows: to learn from.
    Returns:
        None for few rows, or when nothing of the kind was measured: nothing is guessed.
    """
    if rows < LEAST_ROWS or not MEASURED.exists():
        return None
    steps = ("best",) if model == "best" else ("tables", model)
    measured = read_json(MEASURED)
    found: dict[int, list[list[float]]] = {}
    for figure in measured["figures"]:
        if figure["what"] in steps:
            found.setdefault(_millions(figure["of"]), []).append(figure["value"])
    sizes = [size for size, values in found.items() if len(values) == len(steps)]
    if not sizes:
        return None
    size = min(sizes, key=lambda size: abs(log(size * 1e6 / rows)))
    minutes = sum(seconds for _, seconds, _ in found[size]) / 60
    memory = max(gb for _, _, gb in found[size])
    machine = measured["machine"]
    return (
        f"{rows:,} rows to learn from: {model} took {minutes:.0f} min and {memory:.1f} GB for "
        f"{size:,} million on {machine['cores']} cores ({machine['processor']}); in proportion "
        f"{minutes * rows / (size * 1e6):.0f} min (docs/scale.md)"
    )


def _millions(size: str) -> int:
    """`1,000 M` as a number."""
    return int(size.removesuffix(" M").replace(",", ""))
