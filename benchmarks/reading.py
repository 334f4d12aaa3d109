"""Rows per second of reading and cleaning a month, against pyarrow reading the same columns.

    python benchmarks/reading.py [--rows 3000000] [--times 5] [FILE ...]

Without files a yellow month of the given size is generated.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow.parquet as pq
from results import Results

from taxi_duration.data.columns import resolve_columns
from taxi_duration.data.sample import write_sample_month
from taxi_duration.data.trips import read_month


def median_seconds(function: Callable[[], object], times: int) -> float:
    """Return the median wall time of a call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def measure(path: Path, times: int, results: Results) -> str:
    """Return a line with rows, seconds of both, and their ratio."""
    columns = list(resolve_columns(pq.read_schema(path).names, path.name).values())
    rows = pq.read_metadata(path).num_rows
    plain = median_seconds(lambda: pq.read_table(path, columns=columns), times)
    ours = median_seconds(lambda: read_month(path), times)
    results.add(f"{rows:,} rows", "to pyarrow", ours / plain, "ratio")
    results.add(f"{rows:,} rows", "seconds", ours, "s")
    return (
        f"{path.name:<34}{rows:>10,} rows{plain:>9.3f} s pyarrow{ours:>9.3f} s ours"
        f"{ours / plain:>7.1f} ×{rows / ours / 1e6:>7.2f} M rows/s"
    )


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--rows", default=3_000_000, show_default=True, help="Of the generated month.")
@click.option("--times", default=5, show_default=True, help="Medians are printed.")
def main(files: tuple[Path, ...], rows: int, times: int) -> None:
    """Print a line per file."""
    results = Results("read")
    with tempfile.TemporaryDirectory() as folder:
        if not files:
            files = (Path(folder) / "yellow_tripdata_2019-01.parquet",)
            write_sample_month(files[0], "yellow", "2019-01", rows)
        for path in files:
            print(measure(path, times, results))
    results.write()


if __name__ == "__main__":
    main()
