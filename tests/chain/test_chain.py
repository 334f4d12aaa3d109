"""How a chain ends when a notebook fails: with the first error, of the class that it had."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from taxi_duration import environment
from taxi_duration.chain import chain, notebooks
from taxi_duration.chain.candidates import RESULTS_FILE, keep_longer_window
from taxi_duration.chain.notebooks import NotebookError
from taxi_duration.chain.run import Run, new_run
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.errors import (
    BadMonthError,
    DeletedError,
    MonthNotPublishedError,
    PipelineError,
    TrackingError,
)
from taxi_duration.files import write_json

NAME = "02_train_validate"


@pytest.fixture
def run(home):
    run = new_run(check_settings("2021-01", "2021-02", "LR"))
    run.update(mlflow_run_id="the parent")
    return run


@pytest.fixture
def failing(run, monkeypatch):
    """Run a notebook that fails with this error; return what the chain raises."""

    def fail(ename: str) -> PipelineError:
        def execute(*_):
            raise NotebookError(f"{NAME}.ipynb", 7, "work()", ename, "what it says")

        monkeypatch.setattr(chain, "execute", execute)
        with pytest.raises(Exception) as raised:
            chain._execute(run, NAME, None, print)
        return raised.value

    return fail


@pytest.fixture
def marked(monkeypatch) -> list:
    """Parent runs that were marked as failed in MLflow."""
    done: list = []
    monkeypatch.setattr(chain, "call_warm", lambda _, *args: done.append(args[1:]))
    return done


@pytest.mark.parametrize("kind", [TrackingError, DeletedError, MonthNotPublishedError])
def test_error_that_is_not_the_notebooks_keeps_its_class(failing, marked, kind):
    error = failing(kind.__name__)
    assert (type(error), str(error)) == (kind, "what it says")


@pytest.mark.parametrize("kind", [BadMonthError, ValueError])
def test_error_of_the_notebook_names_it(failing, marked, run, kind):
    error = failing(kind.__name__)
    assert type(error) is NotebookError
    assert f"failed in cell 7: {kind.__name__}: what it says" in str(error)
    assert marked == [(NAME, "the parent")]
    assert run.read()["notebooks"][NAME] == {
        "status": "failed", "cell": 7, "error": f"{kind.__name__}: what it says",
    }  # fmt: skip
    assert run.read()["status"] == "failed"


@pytest.mark.parametrize("kind", [TrackingError, DeletedError])
def test_store_that_failed_is_not_asked_to_note_that(failing, marked, run, kind):
    failing(kind.__name__)
    assert marked == []
    assert run.read()["status"] == "failed"


def test_run_without_a_parent_is_marked_nowhere(failing, marked, run):
    run._write({k: v for k, v in run.read().items() if k != "mlflow_run_id"})
    failing("ValueError")
    assert marked == []


@pytest.mark.parametrize("error", [TrackingError("no connection"), OSError(28, "disk full")])
def test_mark_that_fails_does_not_hide_the_first_error(failing, monkeypatch, caplog, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(chain, "call_warm", fail)
    assert "failed in cell 7: ValueError: what it says" in str(failing("ValueError"))
    assert str(error) in caplog.text


def test_run_file_that_cannot_be_written_does_not_hide_the_first_error(
    failing, marked, monkeypatch, caplog
):
    def full(*_, **changes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "update", full)
    assert "failed in cell 7: ValueError: what it says" in str(failing("ValueError"))
    assert "No space left on device" in caplog.text


@pytest.mark.slow
def test_error_of_the_store_keeps_its_class_through_a_kernel(run, marked, tmp_path, monkeypatch):
    raises = "from taxi_duration.errors import TrackingError\nraise TrackingError('no connection')"
    cells = [new_code_cell("A: int = 1", metadata={"tags": ["parameters"]}), new_code_cell(raises)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / f"{NAME}.ipynb")
    monkeypatch.setattr(notebooks, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
    with pytest.raises(TrackingError, match=r"^no connection$"):
        chain._execute(run, NAME, None, print)
    assert run.read()["notebooks"][NAME]["error"] == "TrackingError: no connection"


def test_run_says_at_its_end_what_a_longer_window_would_buy(run):
    row = {"model": "LR", "rmse": 7.7, "mae": 5.3, "rmse_no_distance": None, "coverage": None}
    write_json(run.folder / RESULTS_FILE, {"winner": "LR", "table": [row]})
    model = {"name": "green-duration", "version": 1, "path": "x", "beats_lookups": True}
    run.update(model=model, data_source="tlc")
    before, after = [], []
    chain._say_result(run, before.append, 1.0)
    keep_longer_window(run, "twice the 31 days")
    chain._say_result(run, after.append, 1.0)
    assert [line for line in after if line not in before] == ["window     twice the 31 days"]


def test_run_names_the_bundle_where_it_lies_after_the_home_was_moved(run):
    row = {"model": "LR", "rmse": 7.7, "mae": 5.3, "rmse_no_distance": None, "coverage": None}
    write_json(run.folder / RESULTS_FILE, {"winner": "LR", "table": [row]})
    old = "/old/home/models/green-duration/1"
    model = {"name": "green-duration", "version": 1, "path": old, "beats_lookups": True}
    run.update(model=model, data_source="tlc")
    said = []
    chain._say_result(run, said.append, 1.0)
    assert f"bundle     {environment.models_dir() / 'green-duration' / '1'}" in said
    assert old not in "".join(said)
