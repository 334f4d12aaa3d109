"""What a bench measured is kept with all that it depends on, and only when it means something."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import results


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
