from types import SimpleNamespace

import pytest

from taxi_duration.chain import chain
from taxi_duration.chain import expected_cost as module
from taxi_duration.chain.expected_cost import expected_cost
from taxi_duration.files import write_json

FIGURES = {
    ("3 M", "tables"): [2.0, 6.0, 1.0], ("3 M", "XGB"): [9.0, 174.0, 2.0],
    ("100 M", "tables"): [2.0, 240.0, 1.5], ("100 M", "XGB"): [9.0, 360.0, 2.5],
    ("1,000 M", "tables"): [2.0, 2400.0, 1.7], ("100 M", "LR"): [0.5, 60.0, 1.1],
    ("30 M", "tables"): [2.0, 60.0, 1.2], ("30 M", "best"): [5.0, 1860.0, 7.5],
}  # fmt: skip


@pytest.fixture
def measured(tmp_path, monkeypatch):
    path = tmp_path / "scale.json"
    unit = "CPU µs a row, s, GB"
    figures = [{"of": of, "what": w, "value": v, "unit": unit} for (of, w), v in FIGURES.items()]
    write_json(path, {"machine": {"cores": 2, "processor": "Some CPU"}, "figures": figures})
    monkeypatch.setattr(module, "MEASURED", path)
    return path


@pytest.mark.parametrize(
    ("model", "rows", "said"),
    [
        ("XGB", 4_000_000, "4,000,000 rows to learn from: XGB took 3 min and 2.0 GB for 3 million "
         "on 2 cores (Some CPU); in proportion 4 min"),
        ("XGB", 10_000_000, "XGB took 3 min and 2.0 GB for 3 million on 2 cores (Some CPU); "
         "in proportion 4 min"),  # trees learn from 4 million
        ("XGB", 2_000_000_000, "XGB took 10 min and 2.5 GB for 100 million on 2 cores (Some CPU); "
         "in proportion 86 min"),
        ("LR", 2_000_000_000, "LR took 5 min and 1.5 GB for 100 million on 2 cores (Some CPU); "
         "in proportion 100 min"),
        ("best", 15_000_000, "best took 31 min and 7.5 GB for 30 million on 2 cores (Some CPU); "
         "in proportion 30 min"),
        ("best", 300_000_000, "in proportion 40 min"),
    ],
)  # fmt: skip
def test_nearest_measured_size_is_told_and_the_time_in_proportion(measured, model, rows, said):
    """Of both steps: 1,000 million were measured for one of them only."""
    assert said in expected_cost(model, rows)


def test_all_rows_are_boosted_where_that_is_asked_for(measured, monkeypatch):
    monkeypatch.setenv("BOOST_ROWS", "all")
    assert "in proportion 62 min" in expected_cost("XGB", 40_000_000)  # ten times 6, and tables
    monkeypatch.setenv("BOOST_ROWS", "1000000")
    assert "in proportion 3 min" in expected_cost("XGB", 40_000_000)


@pytest.mark.parametrize(("model", "rows"), [("XGB", 2_999_999), ("RF", 10_000_000)])
def test_few_rows_and_what_was_not_measured_are_not_guessed(measured, model, rows):
    assert expected_cost(model, rows) is None


def test_without_a_bench_nothing_is_said(measured):
    measured.unlink()
    assert expected_cost("XGB", 10_000_000) is None


def test_chain_tells_it_before_it_learns(measured):
    run = SimpleNamespace(settings=SimpleNamespace(model="XGB"), read=lambda: {"rows": 4_000_000})
    said = []
    chain._say_months(run, said.append)
    assert said == [f"expected   {expected_cost('XGB', 4_000_000)}"]
