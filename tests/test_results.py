"""What a bench measured is kept with all that it depends on, and only when it means something."""

from __future__ import annotations

import json
import re
import sys

import pytest
import quotes
import results
from pages import PROJECT, pages

by_page = pytest.mark.parametrize("page", pages()[1:], ids=lambda page: page.path.name)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of the test's own: kept files, and those beside them."""
    monkeypatch.setattr(results, "PROJECT", tmp_path)
    monkeypatch.setattr(results, "KEPT", tmp_path / "results")
    monkeypatch.setattr(results, "ASIDE", tmp_path / "aside")
    monkeypatch.setattr(results.os, "getloadavg", lambda: (0.2, 0.5, 0.9))
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/chain.py"])
    return tmp_path


def measure(monkeypatch, busy: list[float], **given) -> results.Results:
    """A bench with two figures, begun on a machine that is so busy each time it is asked."""
    monkeypatch.setattr(results.psutil, "cpu_percent", lambda seconds: busy.pop(0))
    measured = results.Results("chain", **given)
    measured.add("pipeline.py", "to the plain script", 1.38, "ratio")
    measured.add("pipeline.py", "seconds", [20.1, 14.6], "s")
    return measured


def test_a_file_says_what_was_measured_on_what_and_when(places, monkeypatch):
    path = measure(monkeypatch, [0.4]).write()
    kept = json.loads(path.read_text())
    assert path == places / "results" / "chain.json"
    assert kept["before"] == {"quiet": True, "busy": 0.004, "load": 0.2}
    assert kept["figures"] == [
        {"of": "pipeline.py", "what": "to the plain script", "value": 1.38, "unit": "ratio"},
        {"of": "pipeline.py", "what": "seconds", "value": [20.1, 14.6], "unit": "s"},
    ]
    assert (kept["name"], kept["command"], kept["whole"]) == (
        "chain", "python benchmarks/chain.py", True,
    )  # fmt: skip
    assert kept["machine"].keys() == {"processor", "cores", "memory_gb", "system"}
    assert {"python", "numpy", "pandas", "mlflow"} <= kept["versions"].keys()
    assert kept.keys() >= {"date", "commit", "seconds"}


def test_no_file_names_the_machine(places, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/reading.py", "/home/me/a.parquet", "-x"])
    kept = measure(monkeypatch, [0.4]).write().read_text()
    assert json.loads(kept)["command"] == "python benchmarks/reading.py a.parquet -x"
    assert "/home" not in kept
    assert f'"{results.platform.node()}"' not in kept


def test_quiet_is_waited_for(places, monkeypatch):
    assert measure(monkeypatch, [55.0, 4.0, 3.9], wait=60).before["busy"] == 0.039


@pytest.mark.parametrize(
    ("busy", "options", "why"),
    [([4.1], [], "the machine was not quiet"), ([0.1], ["--times", "1"], "a part of the bench")],
    ids=["busy", "in part"],
)
def test_a_kept_file_stays_when_the_figures_say_less(
    places, monkeypatch, capsys, busy, options, why
):
    monkeypatch.setattr(sys, "argv", ["benchmarks/chain.py", *options])
    path = measure(monkeypatch, busy, wait=0).write()
    assert path == places / "aside" / "chain.json"
    assert not results.read_kept()
    assert why in capsys.readouterr().out


def test_kept_files_are_listed(places, monkeypatch, capsys):
    measure(monkeypatch, [0.1], whole=True).write()
    assert list(results.read_kept()) == ["chain"]
    capsys.readouterr()
    results.main()
    assert "2 figures, python benchmarks/chain.py" in capsys.readouterr().out


# --- quoted -------------------------------------------------------------------------------------

PAGE = """
<!-- results: chain -->

| | to the plain script | seconds |
| --- | --- | --- |
| **ours**: `run` | **1.38** | 20.1 / 1,200 s |
| the course's | – | `0.5` |
"""
FIGURES = [
    {"of": "ours: run", "what": "to the plain script", "value": 1.384, "unit": "ratio"},
    {"of": "ours: run", "what": "seconds", "value": [20.08, 1200.4], "unit": "s"},
]
KEPT = {"chain": {"figures": FIGURES}}


def problems(page: str, kept: dict) -> list[str]:
    """What differs between a page and the files."""
    return [text for cell in quotes.cells_of(page) if (text := quotes.problem(cell, kept))]


def test_cells_are_the_figures_rounded_as_they_stand():
    assert problems(PAGE, KEPT) == []


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("**1.38**", "1.37", "ours: run, to the plain script: 1.37; benchmarks/results/chain.json "
                             "says 1.38"),
        ("1,200", "1,201", "ours: run, seconds: 20.1 / 1,201 s; benchmarks/results/chain.json "
                           "says 20.1 / 1,200"),
        (" / 1,200", "", "ours: run, seconds: 20.1 s; benchmarks/results/chain.json "
                         "says 20.1 / 1,200"),
        ("–", "2.5", "the course's, to the plain script: 2.5; benchmarks/results/chain.json has "
                     "no such figure"),
        ("results: chain", "results: dask", "ours: run, to the plain script: **1.38**; "
                                            "benchmarks/results/dask.json has no such figure"),
    ],
    ids=["other", "second of two", "one of two", "not measured", "no file"],
)  # fmt: skip
def test_a_cell_that_differs_is_named_with_its_file(was, now, said):
    assert problems(PAGE.replace(was, now), KEPT)[0] == said


def test_numbers_are_written_into_the_cells_and_nothing_else_changes():
    old = PAGE.replace("1.38", "2.21").replace("1,200", "34")
    assert quotes.rewritten(old, KEPT) == PAGE
    assert quotes.rewritten(PAGE, KEPT) == PAGE


FIGURE = re.compile(r"\**[\d,.]+( ?[/–] ?[\d,.]+)*( (s|ms|µs|%|MB|GB|rows/s|M rows/s))?\**")


def test_every_figure_in_the_tables_of_the_readme_stands_in_a_result_file():
    kept = results.read_kept()
    cells = list(quotes.cells_of((PROJECT / "README.md").read_text()))
    unquoted = [c for c in cells if c.name is None and FIGURE.fullmatch(c.text)]
    assert not unquoted, "a table of figures needs `<!-- results: NAME -->` above it"
    assert not [text for c in cells if c.name and (text := quotes.problem(c, kept))]
    assert sum(len(cell.numbers) for cell in cells if cell.name) > 100


@by_page
def test_what_other_pages_quote_stands_in_a_result_file(page):
    kept = results.read_kept()
    cells = [cell for cell in quotes.cells_of(page.text) if cell.name]
    assert not [text for cell in cells if (text := quotes.problem(cell, kept))]


def test_kept_files_are_whole_and_name_no_machine():
    for name, kept in results.read_kept().items():
        assert kept["name"] == name and kept["whole"]
        assert kept["figures"] and kept["date"] and kept["commit"]
        assert not re.search(r"/(home|root|work|tmp)/", json.dumps(kept))
