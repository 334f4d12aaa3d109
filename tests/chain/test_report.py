"""The run's page: summary first, notebooks in order, a loud word on sample data."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from taxi_duration.chain import report
from taxi_duration.chain.report import render_ahead, write_report

INFO = {
    "run_id": "20210301-120000-abcd",
    "settings": {"TRAIN_DATA": "2021-01", "MODEL": "<LR>"},
    "git_commit": "0123abc",
    "data_source": "tlc",
}


@pytest.fixture
def folder(tmp_path):
    """A run's folder with two executed notebooks."""
    for name in ("01_read_data", "02_train_validate"):
        cell = new_code_cell("1 + 1", outputs=[new_output("stream", text=f"said by {name}")])
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {name}"), cell]),
                       tmp_path / f"{name}.ipynb")  # fmt: skip
    return tmp_path


@pytest.mark.slow
def test_report_holds_the_notebooks_in_order(folder):
    html = write_report(folder, ["01_read_data", "02_train_validate"], INFO).read_text()
    places = [html.index(f"said by {name}") for name in ("01_read_data", "02_train_validate")]
    assert places == sorted(places)
    assert html.index("20210301-120000-abcd") < places[0]


@pytest.mark.slow
def test_report_leaves_out_a_notebook_that_did_not_run(folder):
    html = write_report(folder, ["01_read_data", "04_save_model"], INFO).read_text()
    assert "said by 01_read_data" in html
    assert "said by 02_train_validate" not in html


@pytest.mark.slow
def test_notebook_rendered_ahead_is_not_rendered_again(folder, monkeypatch):
    names, as_html, converted = ["01_read_data", "02_train_validate"], report._as_html, []
    apart = write_report(folder, names, INFO).read_text()
    for name in names:
        (folder / f"{name}.ipynb").touch()
    render_ahead(folder, names[:1])
    monkeypatch.setattr(report, "_as_html", lambda page: converted.append(page) or as_html(page))
    assert write_report(folder, names, INFO).read_text() == apart
    assert len(converted) == 2  # summary, and second notebook


@pytest.mark.slow
def test_notebook_that_changed_is_rendered_anew(folder):
    render_ahead(folder, ["01_read_data"])
    path = folder / "01_read_data.ipynb"
    path.write_text(path.read_text().replace("said by", "later said by"))
    assert "later said by 01_read_data" in write_report(folder, ["01_read_data"], INFO).read_text()


@pytest.mark.slow
def test_cells_of_several_notebooks_have_ids_of_their_own(folder):
    html = write_report(folder, ["01_read_data", "02_train_validate"], INFO).read_text()
    ids = re.findall(r'id="cell-id=([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 7


@pytest.mark.slow
def test_report_escapes_what_it_quotes(folder):
    html = write_report(folder, [], INFO).read_text()
    assert "<LR>" not in html


@pytest.mark.slow
@pytest.mark.parametrize(("source", "warned"), [("sample", True), ("tlc", False)])
def test_report_says_when_data_are_generated(folder, source, warned):
    html = write_report(folder, [], {**INFO, "data_source": source}).read_text()
    assert ("generated trips, not New York" in html) is warned
