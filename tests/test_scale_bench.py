"""What the bench of scale says of figures: table, goals, arithmetic for a billion rows."""

import json
import sys

import pytest
from commands import PROJECT


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import scale

    yield scale
    sys.modules.pop("scale", None)
    sys.modules.pop("results", None)


def line(scale, microseconds: dict[int, float], step: str = "prepare", **more) -> dict:
    """Figures of a step: a second before the rows, and half a GB and 1 GB per billion rows."""
    return {
        f"{m} {step}": {
            "millions": m, "step": step, "rows": m * 1_000_000, "wall": 2 + each * m,
            "cpu": 1 + each * m, "peak_gb": 0.5 + m / 1000, **more,
        }
        for m, each in microseconds.items()
    }  # fmt: skip


def test_a_billion_rows_are_on_the_line_through_the_sizes_from_3_million_on(scale):
    measured = line(scale, {1: 9.0, 3: 0.36, 30: 0.36, 100: 0.36}, disk_gb=0.01)
    (said,) = scale.line_to_a_billion(scale.of_step(measured, "prepare"), "prepare")
    assert "from 3 M to 100 M" in said
    assert "0.10 CPU hours, 0.10 hours by the clock, 1.5 GB of memory" in said
    assert "3 GB of prepared months" in said


def test_memory_that_does_not_grow_is_no_more_at_a_billion(scale):
    measured = line(scale, {3: 0.36, 10: 0.36, 30: 0.36, 100: 0.36, 300: 0.36})
    for found, peak in zip(measured.values(), (0.6, 0.8, 0.7, 0.6, 0.7), strict=True):
        found["peak_gb"] = peak
    (said,) = scale.line_to_a_billion(scale.of_step(measured, "prepare"), "prepare")
    assert "0.7 GB of memory" in said


def test_two_sizes_make_no_line(scale):
    measured = line(scale, {1: 1.0, 3: 1.0, 30: 1.0})
    assert scale.line_to_a_billion(scale.of_step(measured, "prepare"), "prepare") == []


def test_goals_are_held_against_what_was_measured(scale):
    measured = line(scale, {3: 1.0, 100: 1.5}) | line(scale, {3: 1.0}, "tables")
    measured["30 best"] = {"millions": 30, "step": "best", "failed": "too long", "peak_gb": 7.26,
                           "wall": 9.0, "cpu": 8.0, "rows": 30_000_000}  # fmt: skip
    ratio, peak, *more = scale.sentences(measured)
    assert "100 M takes 1.13 times as long" in ratio and "`prepare`" in ratio
    assert "7.3 GB" in peak and not more


def test_table_has_a_line_for_each_size_and_says_what_did_not_end(scale):
    measured = line(scale, {100: 1.0, 3: 1.0}) | line(scale, {3: 2.0}, "LR")
    measured["100 LR"] = {"millions": 100, "step": "LR", "failed": "too long", "peak_gb": 7.26}
    assert scale.table(measured) == [
        "| rows | prepare | LR |",
        "| --- | --- | --- |",
        "| 3 M | 1.33 µs, 5 s, 0.5 GB | 2.33 µs, 8 s, 0.5 GB |",
        "| 100 M | 1.01 µs, 102 s, 0.6 GB | too long, 7.3 GB |",
    ]


def test_page_is_written_between_its_marks(scale, monkeypatch, tmp_path):
    page = tmp_path / "scale.md"
    page.write_text(f"before\n{scale.MARKS[0]}\nold\n{scale.MARKS[1]}\nafter\n")
    monkeypatch.setattr(scale, "PAGE", page)
    for _ in range(2):
        scale.write_page(line(scale, {3: 1.0}))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text and text.count("| 3 M |") == 1


def test_steps_in_order_the_long_ones_at_their_sizes_and_the_longest_last(scale):
    assert scale.wanted("3,30,300", None) == [
        (3, "prepare"), (3, "tables"), (3, "LR"),
        (30, "prepare"), (30, "tables"), (30, "LR"),
        (300, "prepare"), (300, "tables"),
        (3, "XGB"), (30, "XGB"), (30, "best"),
    ]  # fmt: skip
    assert scale.wanted("10", "XGB,best") == [(10, "XGB"), (10, "best")]


def test_months_are_of_three_million_rows_and_one_more_to_validate(scale):
    assert [str(month) for month in scale.months_of(10)] == [
        "2011-01", "2011-02", "2011-03", "2011-04",
    ]  # fmt: skip
    assert len(scale.months_of(1)) == 2 and len(scale.months_of(100)) == 34


def test_process_is_watched_with_those_below_it_and_ended_when_late(scale, tmp_path, monkeypatch):
    was_seen, memory_of = tmp_path / "seen", scale.memory_of

    def look(process):
        memory = memory_of(process)
        if memory > 2e8:
            was_seen.touch()
        return memory

    # A look finds what is there when it comes, so the child holds all until one has found it.
    monkeypatch.setattr(scale, "memory_of", look)
    below = (
        "import pathlib, sys, time\n"
        "x = bytearray(200_000_000)\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.05)\n"
    )
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {below!r}, {str(was_seen)!r}])\n"
        "print(7)\n"
    )
    found = scale.watch([sys.executable, "-c", code], {}, minutes=5)
    assert json.loads(found["output"]) == 7 and "failed" not in found
    assert found["peak_gb"] > 0.2 and found["cpu"] > 0
    late = scale.watch([sys.executable, "-c", "import time; time.sleep(60)"], {}, minutes=0.001)
    assert late["failed"] == "too long"
    wrong = scale.watch([sys.executable, "-c", "raise SystemExit(1)"], {}, minutes=5)
    assert wrong["failed"] == "failed"
