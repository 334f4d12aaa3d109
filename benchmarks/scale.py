"""What a row costs from 1 to 300 million rows: seconds and memory of each step.

    python benchmarks/scale.py                        # make bench-scale: all
    python benchmarks/scale.py --resume               # what is not measured yet
    python benchmarks/scale.py --millions 1000 --steps prepare,tables --resume
    python benchmarks/scale.py --millions 30 --steps XGB,best --minutes 240 --resume
    python benchmarks/scale.py --only-write           # docs/scale.md and docs/scale.png anew

Months are yellow ones of the built-in generator, 3 million rows each, from 2011-01 on. Every month
is drawn anew, none is repeated: that takes 7 CPU seconds a month, once. What is measured is kept
in the folder, step by step, so that a killed bench goes on with --resume. Steps: `prepare` reads,
checks and caches the months; `tables` makes all sums and the tables of every fold out of prepared
months; `LR` and `XGB` fit such a model with its intervals when the sums are there; `best` is the
whole `pipeline.py run` of all kinds, notebooks included, with one more month to validate on. Each
step of each size is a process of its own.

CPU seconds are of all threads, imports apart (`best`: with them). Memory is the highest of all
processes of a step together; of pages that they share each counts its part (on Linux).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from peak_memory import peak_bytes
from results import PROJECT, Results

from taxi_duration.data.prepared import PreparedMonth, prepare_months
from taxi_duration.data.sample import write_sample_month
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month, format_months
from taxi_duration.files import atomic_path, write_json

FOLDER = PROJECT / "build" / "scale"
PAGE, PLOT = PROJECT / "docs" / "scale.md", PROJECT / "docs" / "scale.png"
MARKS = "<!-- what benchmarks/scale.py writes -->", "<!-- to here -->"
MONTH_ROWS = 3_000_000
FIRST = Month(2011, 1)  # of yellow months with zones
MILLIONS = "1,3,10,30,100,300"
STEPS = ("prepare", "tables", "LR", "XGB", "best")
# Trees learn from a sample, so that their cost stops growing: two sizes show it.
LONG_STEPS = {"LR": (1, 3, 10, 30, 100), "XGB": (3, 30), "best": (30,)}
EVERY_S = 0.1  # between two looks at a process' memory; longer where a look takes a tenth of it
GOAL_GB, GOAL_RATIO = 8.0, 1.2
BILLION = 1e9


def months_of(millions: int) -> list[Month]:
    """Return the months that make so many rows, and one more to validate on."""
    return [FIRST.shift(i) for i in range(max(round(millions / 3), 1) + 1)]


def make_months(folder: Path, millions: int) -> None:
    """Generate what is not there, and lay it out as raw months of a data folder of that size."""
    raw = folder / f"data-{millions}" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    rows = min(millions * 1_000_000, MONTH_ROWS)
    for month in months_of(millions):
        path = folder / "months" / str(rows) / f"yellow_tripdata_{month}.parquet"
        if not path.exists():
            with atomic_path(path) as part:
                write_sample_month(part, "yellow", str(month), rows)
        if not (raw / path.name).exists():
            (raw / path.name).symlink_to(path.resolve())


# --- a step, in a process of its own -----------------------------------------------------


def prepared(millions: int) -> list[PreparedMonth]:
    """Return the prepared training months."""
    return prepare_months("yellow", months_of(millions)[:-1])


def make_tables(window: Window) -> None:
    """Make the sums of a window, its tables, and those of each fold."""
    from taxi_duration.training.feature_tables import fit_tables, fold_tables
    from taxi_duration.training.window_sums import window_sums

    sums = window_sums(window)
    fit_tables(sums.table_sums(), sums.curve)
    fold_tables(sums)


def work_of(step: str, millions: int) -> Callable[[], Any]:
    """Return what a step does; what it needs is imported, and lies prepared, before."""
    import taxi_duration.training.fit as fit  # 2 CPU seconds that are no row's

    if step == "prepare":
        return lambda: prepared(millions)
    window = Window.learnable(prepared(millions))
    if step == "tables":
        return lambda: make_tables(window)
    return lambda: fit.fit_model(step, window)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def do_step(step: str, millions: int) -> None:
    """Do a step and print what it took as a line of JSON."""
    work = work_of(step, millions)
    before, started = cpu_seconds(), time.perf_counter()
    work()
    taken = {"cpu": cpu_seconds() - before, "wall": time.perf_counter() - started}
    rows = sum(month.accounting.rows_read for month in prepared(millions))
    print(json.dumps({**taken, "rows": rows, "peak_gb": peak_bytes() / 1e9}))


# --- watched from outside ----------------------------------------------------------------


def watch(command: list[str], environment: dict[str, str], minutes: float) -> dict[str, Any]:
    """Run a command to its end, or so long; return its output, CPU seconds and memory."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=output)
        found = look_at(process, started + 60 * minutes)
        found["wall"] = time.monotonic() - started
        output.seek(0)
        return {**found, "output": output.read()}


def look_at(process: subprocess.Popen, until: float) -> dict[str, Any]:
    """Look at a process and those below it until it ends; then, or when it is late, they end."""
    tree, peak, used, is_late = psutil.Process(process.pid), 0, {}, False
    while process.poll() is None:
        memory, looked = 0, time.monotonic()
        for each in processes(tree):
            with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
                memory += memory_of(each)
                used[each.pid] = sum(each.cpu_times()[:2])
        peak, taken = max(peak, memory), time.monotonic() - looked
        if time.monotonic() > until:
            is_late = True
            for each in processes(tree):
                each.kill()
        time.sleep(max(EVERY_S, 9 * taken))
    found = {"cpu": sum(used.values()), "peak_gb": peak / 1e9}
    if process.returncode:
        found["failed"] = "too long" if is_late else "failed"
    return found


def memory_of(process: psutil.Process) -> int:
    """Return the bytes that a process holds; its part of those that others hold, too."""
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):  # another system than Linux
        return int(process.memory_info().rss)


def processes(tree: psutil.Process) -> list[psutil.Process]:
    """Return a process and all below it; none when it ended meanwhile."""
    try:
        return [*tree.children(recursive=True), tree]
    except psutil.NoSuchProcess:
        return []


def own_command(folder: Path) -> list[str]:
    """Return what starts a step of this script, but for its name and size."""
    return [sys.executable, __file__, "--folder", str(folder), "--child"]


def measure(folder: Path, millions: int, step: str, minutes: float) -> dict[str, Any]:
    """Measure one step of one size, from nothing that it would make itself."""
    data = folder / f"data-{millions}"
    if step == "prepare":
        shutil.rmtree(data / "prepared", ignore_errors=True)
    if step in ("prepare", "tables"):
        for path in (data / "prepared").glob("*.npz"):  # kept sums
            path.unlink()
    home = folder / f"home-{millions}"
    shutil.rmtree(home, ignore_errors=True)
    settings = {"TAXI_HOME": str(home), "DATA_DIR": str(data), "DATA": "tlc", "SERVICE": "yellow"}
    command = [*own_command(folder), f"{step}:{millions}"]
    if step == "best":
        months = months_of(millions)
        asked = ("--train-data", format_months(months[:-1]), "--val-data", str(months[-1]))
        command = [sys.executable, str(PROJECT / "pipeline.py"), "run", "--fresh", *asked]
    found = watch(command, {**os.environ, **settings}, minutes)
    told = found.pop("output", "")
    if step == "best" or "failed" in found:
        found["rows"] = MONTH_ROWS * (len(months_of(millions)) - 1)
    else:
        said = json.loads(told.splitlines()[-1])
        found |= {**said, "peak_gb": max(said["peak_gb"], found["peak_gb"])}
    if step == "prepare":
        found["disk_gb"] = sum(f.stat().st_size for f in data.glob("prepared/*.parquet")) / 1e9
    shutil.rmtree(home, ignore_errors=True)
    return {"millions": millions, "step": step, **found}


# --- table, plot, arithmetic -------------------------------------------------------------

Measured = dict[str, dict[str, Any]]


def of_step(measured: Measured, step: str) -> list[dict[str, Any]]:
    """Return a step's measurements that came to an end, smallest first."""
    found = [m for m in measured.values() if m["step"] == step and "failed" not in m]
    return sorted(found, key=lambda m: m["rows"])


def table(measured: Measured) -> list[str]:
    """Return the table: a line for each size, a column for each step."""
    steps = [step for step in STEPS if any(m["step"] == step for m in measured.values())]
    lines = [f"| rows | {' | '.join(steps)} |", f"| --- |{' --- |' * len(steps)}"]
    for millions in sorted({m["millions"] for m in measured.values()}):
        cells = [cell(measured.get(f"{millions} {step}")) for step in steps]
        lines.append(f"| {millions:,} M | {' | '.join(cells)} |")
    return lines


def cell(found: dict[str, Any] | None) -> str:
    """Return what the table says of a step: microseconds of CPU a row, seconds, memory."""
    if found is None:
        return "–"
    if "failed" in found:
        return f"{found['failed']}, {found['peak_gb']:.1f} GB"
    return (
        f"{found['cpu'] / found['rows'] * 1e6:.2f} µs, {found['wall']:,.0f} s, "
        f"{found['peak_gb']:.1f} GB"
    )


def sentences(measured: Measured) -> list[str]:
    """Return what the figures say: the goals, and the arithmetic for a billion rows."""
    said = []
    for step in ("prepare", "tables"):
        by_size = {m["millions"]: m["cpu"] / m["rows"] for m in of_step(measured, step)}
        if {3, 100} <= by_size.keys():
            ratio = by_size[100] / by_size[3]
            said.append(f"A row of 100 M takes {ratio:.2f} times as long as one of 3 M in "
                        f"`{step}` (goal: at most {GOAL_RATIO}).")  # fmt: skip
    peak = max(m["peak_gb"] for m in measured.values())
    said.append(f"The highest memory of all is {peak:.1f} GB (goal: at most {GOAL_GB:g}).")
    for step in ("prepare", "tables"):
        said += line_to_a_billion(of_step(measured, step), step)
    return said


def line_to_a_billion(found: list[dict[str, Any]], step: str) -> list[str]:
    """Return what straight lines through the measured sizes from 3 M on say of a billion rows."""
    found = [m for m in found if m["millions"] >= 3]
    if len(found) < 3:
        return []
    rows = np.array([m["rows"] for m in found], float)
    ends = []
    # Time is weighted, so that each size is as wrong by its own measure; memory does not grow with
    # the rows, and so by the small sizes' differences it would.
    for name, weight in (("cpu", 1 / rows), ("wall", 1 / rows), ("peak_gb", None)):
        slope, start = np.polyfit(rows, [m[name] for m in found], 1, w=weight)
        ends.append(start + slope * BILLION)
    disk = max(m.get("disk_gb", 0.0) / m["rows"] for m in found) * BILLION
    kept = f", and {disk:,.0f} GB of prepared months" if disk else ""
    return [
        f"1,000,000,000 rows (333 such months), by straight lines through the sizes from "
        f"{found[0]['millions']} M to {found[-1]['millions']} M: `{step}` takes "
        f"{ends[0] / 3600:.2f} CPU hours, {ends[1] / 3600:.2f} hours by the clock, "
        f"{ends[2]:.1f} GB of memory{kept}."
    ]


def write_page(measured: Measured) -> None:
    """Write table and sentences into docs/scale.md, between the marks."""
    text = PAGE.read_text()
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    plot = f"![Time a row and memory, by rows]({PLOT.name})"
    said = [f"- {sentence}" for sentence in sentences(measured)]
    written = "\n".join([*table(measured), "", *said, "", plot])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{written}\n\n{MARKS[1]}{after}")


def draw(measured: Measured) -> None:
    """Write the plot: microseconds a row and memory, by rows."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for step in STEPS:
        found = of_step(measured, step)
        if found:
            rows = [m["rows"] for m in found]
            left.plot(rows, [m["cpu"] / m["rows"] * 1e6 for m in found], "o-", label=step)
            right.plot(rows, [m["peak_gb"] for m in found], "o-", label=step)
    right.axhline(GOAL_GB, color="grey", linestyle=":")
    left.set(xscale="log", yscale="log", xlabel="rows", ylabel="CPU µs a row", title="Time a row")
    right.set(xscale="log", xlabel="rows", ylabel="GB", ylim=0, title="Highest memory")
    left.legend()
    figure.savefig(PLOT, dpi=100)


def keep(results: Results, measured: Measured) -> None:
    """Write the figures as every bench does."""
    for found in measured.values():
        if "failed" not in found:
            size = f"{found['millions']:,} M"
            value = [round(found["cpu"] / found["rows"] * 1e6, 3), round(found["wall"], 1),
                     round(found["peak_gb"], 2)]  # fmt: skip
            results.add(size, found["step"], value, "CPU µs a row, s, GB")
    results.write()


def wanted(millions: str, steps: str | None) -> list[tuple[int, str]]:
    """Return sizes and steps, the longest last; long steps at their own sizes unless asked for."""
    sizes = list(map(int, millions.split(",")))
    if steps:
        return [(size, step) for size in sizes for step in steps.split(",")]
    pairs = [(size, s) for size in sizes for s in STEPS if size in LONG_STEPS.get(s, (size,))]
    return sorted(pairs, key=lambda pair: STEPS.index(pair[1]) >= STEPS.index("XGB"))


@click.command()
@click.option("--millions", default=MILLIONS, show_default=True, help="Sizes, in million rows.")
@click.option("--steps", help=f"Of {', '.join(STEPS)}; the long ones at their own sizes if unset.")
@click.option("--minutes", default=120.0, show_default=True, help="At most, for each step.")
@click.option("--resume", is_flag=True, help="Leave out what was measured before.")
@click.option("--only-write", is_flag=True, help="Measure nothing; write page and plot.")
@click.option("--folder", default=FOLDER, type=click.Path(path_type=Path), show_default=True)
@click.option("--child", hidden=True)
def main(
    millions: str, steps: str | None, minutes: float, resume: bool, only_write: bool,
    folder: Path, child: str | None,
) -> None:  # fmt: skip
    """Measure, and write docs/scale.md, docs/scale.png and the results."""
    if child:
        step, size = child.split(":")
        make_months(folder, int(size)) if step == "months" else do_step(step, int(size))
        return
    kept = folder / "measured.json"
    measured: Measured = json.loads(kept.read_text()) if kept.exists() else {}
    whole = millions == MILLIONS and not steps
    results = None if only_write else Results("scale", whole)
    for size, step in () if only_write else wanted(millions, steps):
        if resume and "failed" not in measured.get(f"{size} {step}", {"failed": ""}):
            continue
        subprocess.run([*own_command(folder), f"months:{size}"], check=True)
        measured[f"{size} {step}"] = found = measure(folder, size, step, minutes)
        write_json(kept, measured)
        print(f"{size:>4} M {step:<8} {cell(found)}", flush=True)
    sizes = {found["millions"] for found in measured.values()}
    if sizes >= set(map(int, MILLIONS.split(","))):
        write_page(measured)
        draw(measured)
    else:  # what the page says of the other sizes is not to be lost
        print("\n".join(["", *table(measured), "", f"{PAGE.name} stays: some sizes are missing"]))
    if results:
        keep(results, measured)


if __name__ == "__main__":
    main()
