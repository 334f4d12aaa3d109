import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from jupyter_core.utils import run_sync
from nbformat.v4 import new_code_cell, new_notebook

from taxi_duration.chain import notebooks
from taxi_duration.chain.kernels import PrivateKernelManager
from taxi_duration.chain.notebooks import (
    NotebookError,
    check_parameter_names,
    execute,
    notebook_parameters,
)
from taxi_duration.errors import PipelineError, SettingError

PROJECT = Path(__file__).resolve().parents[2]
PATHS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
CHAIN = ["01_read_data", "02_train_validate", "03_multiple_models", "04_save_model"]
SETTINGS = {"TRAIN_DATA", "VAL_DATA", "MODEL", "SERVICE", "RUN_DIR"}

by_name = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


# --- as committed ------------------------------------------------------------------------


def test_chain_is_there_in_its_order():
    assert [path.stem for path in PATHS][: len(CHAIN)] == CHAIN


@by_name
def test_committed_notebook_carries_no_output_and_no_count(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


@by_name
def test_committed_notebook_has_one_parameters_cell_before_the_work(path):
    cells = nbformat.read(path, as_version=4).cells
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0] <= 2


@by_name
def test_committed_notebook_defines_nothing_that_belongs_into_the_package(path):
    cells = nbformat.read(path, as_version=4).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.split("\n")]
    assert not [line for line in lines if line.startswith(("def ", "class ", "import mlflow"))]


# What a figure in a sentence may be: a rule, a name or a definition, none of them found in data.
RULES = ("1 to 60 minutes", "fewer than 10 past trips", "7 to 10 and 16 to 19", "SHA-256",
         "P10", "P90")  # fmt: skip
CALENDAR = re.compile(
    r"\b(January|February|March|April|June|July|August|September|October|November|December"
    r"|(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?)\b"
)


@by_name
def test_words_of_a_notebook_state_nothing_that_one_month_has_shown(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            words = re.sub(r"`[^`]*`|^# \d\.", "", cell.source)
            for rule in RULES:
                words = words.replace(rule, "")
            assert not re.search(r"\d|%", words), cell.source
            assert not CALENDAR.search(words), cell.source


def shows_something(node: ast.stmt) -> bool:
    """An expression is shown by the notebook; a loop shows what its last line shows."""
    if isinstance(node, ast.For):
        return shows_something(node.body[-1])
    return isinstance(node, ast.Expr)


@by_name
def test_cell_ends_in_something_that_can_be_seen(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    for cell in cells:
        if "parameters" not in cell.metadata.get("tags", []):
            assert shows_something(ast.parse(cell.source).body[-1]), cell.source


@by_name
def test_cell_of_work_is_short(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    work = [c.source for c in cells if not c.source.startswith(("import", "from"))]
    assert max(len(source.splitlines()) for source in work) <= 8


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("02_train_validate", ["DictVectorizer()", "LinearRegression()", "assert np.isclose",
                               "ride_features(", "fit_candidate(", "score_candidate(",
                               "save_candidate("]),
        ("03_multiple_models", ["in train_candidates(run)", "rank_candidates(",
                                "winning_candidate("]),
        ("04_save_model", ["save_winner(", "bin_contents(", "check_release(", "register_winner(",
                           "deploy_winner("]),
    ],
)  # fmt: skip
def test_steps_of_the_story_are_cells_of_their_own_in_this_order(name, steps):
    cells = nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    code = [c.source for c in cells if c.cell_type == "code" and not c.source.startswith("import")]
    places = [[i for i, source in enumerate(code) if step in source] for step in steps]
    assert all(len(where) == 1 for where in places)
    assert [where[0] for where in places] == sorted({where[0] for where in places})


@pytest.mark.parametrize("name", CHAIN)
def test_notebook_of_the_chain_takes_every_setting(name):
    assert notebook_parameters(name) >= SETTINGS


# --- parameters --------------------------------------------------------------------------


@pytest.fixture
def fake_notebook(tmp_path, monkeypatch):
    """Write a notebook of two cells, the first tagged parameters; it is the only one known."""

    def write(parameters: str, work: str = "", tags: tuple[str, ...] = ("parameters",)) -> Path:
        cells = [new_code_cell(parameters, metadata={"tags": list(tags)}), new_code_cell(work)]
        kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "fake.ipynb")
        return tmp_path / "fake.ipynb"

    monkeypatch.setattr(notebooks, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
    return write


def test_names_of_the_parameters_cell_are_found(fake_notebook):
    fake_notebook('A: str = "x"  # a month\nB: int = 3\nC = [1,\n  2]\n')
    assert notebook_parameters("fake") == {"A", "B", "C"}


@pytest.mark.parametrize(
    "line",
    ["B: int = 3  # B=3 is enough", "B: int | None = 3", "B = C = 3"],
)
def test_line_that_papermill_does_not_see_is_named(fake_notebook, line):
    fake_notebook(f'A: str = "x"\n{line}\n')
    with pytest.raises(PipelineError, match=r"fake\.ipynb: papermill does not see B"):
        notebook_parameters("fake")


def test_notebook_without_a_tagged_cell_is_refused(fake_notebook):
    fake_notebook('A: str = "x"', tags=())
    with pytest.raises(PipelineError, match="no cell tagged 'parameters'"):
        notebook_parameters("fake")


def test_parameters_that_are_no_python_are_named(fake_notebook):
    fake_notebook('A: str = "2021-01\n')
    said = r"fake\.ipynb: the parameters cell is no Python: unterminated string .*2021-01"
    with pytest.raises(PipelineError, match=said):
        notebook_parameters("fake")


def test_notebook_that_names_no_kernel_is_named(fake_notebook):
    path = fake_notebook('A: str = "x"')
    nbformat.write(new_notebook(cells=nbformat.read(path, as_version=4).cells), path)
    with pytest.raises(PipelineError, match=r"fake\.ipynb: No kernel.*Choose the kernel Python 3"):
        notebook_parameters("fake")


@pytest.mark.parametrize("content", ["", "<<<<<<< HEAD\n{}", "{}", "[]", '{"nbformat": 9}', "{"])
def test_file_that_is_no_notebook_is_named_and_how_to_get_it_back(fake_notebook, content):
    fake_notebook('A: str = "x"').write_text(content)
    with pytest.raises(PipelineError, match=r"fake\.ipynb is no notebook: .*git checkout fake"):
        notebook_parameters("fake")


@pytest.mark.parametrize(
    ("given", "near"), [("TRAIN_DATE", "TRAIN_DATA"), ("model", "MODEL"), ("VALDATA", "VAL_DATA")]
)
def test_misspelt_name_is_refused_with_the_nearest(given, near):
    with pytest.raises(SettingError, match=f"{given} is not known; did you mean {near}"):
        check_parameter_names([given], CHAIN)


def test_name_like_no_other_is_refused_with_all_there_are():
    with pytest.raises(SettingError, match="known: MODEL, RUN_DIR, SERVICE, TRAIN_DATA, VAL_DATA"):
        check_parameter_names(["EPOCHS"], CHAIN)


def test_known_names_pass():
    check_parameter_names(["TRAIN_DATA", "MODEL"], CHAIN)


# --- execution ---------------------------------------------------------------------------


@pytest.mark.slow
def test_value_given_wins_over_the_default_and_foreign_ones_are_left_out(fake_notebook, tmp_path):
    fake_notebook("A: int = 1\nB: int = 2", "print(A, B)")
    execute("fake", tmp_path / "out.ipynb", {"A": 5, "RUN_DIR": "elsewhere"})
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "5 2\n"


@pytest.mark.slow
def test_kernel_that_was_started_is_used_and_ended(fake_notebook, tmp_path):
    fake_notebook("A: int = 0", "import os\nprint(os.getpid())")
    kernel = PrivateKernelManager(kernel_name="python3")
    run_sync(kernel.start_kernel)()
    pid = kernel.provisioner.pid
    execute("fake", tmp_path / "out.ipynb", {}, kernel)
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == f"{pid}\n"
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
def test_half_run_notebook_shows_on_disk_what_is_done_and_what_runs(fake_notebook, tmp_path):
    out = tmp_path / "out.ipynb"
    fake_notebook("A: int = 0\nprint('seen')", f"print(open({str(out)!r}).read())")
    execute("fake", out, {})
    executed = nbformat.read(out, as_version=4)
    half = nbformat.reads(executed.cells[-1].outputs[0].text, as_version=4)
    nbformat.validate(half)
    assert half.cells[0].outputs[0].text == "seen\n"
    assert [cell.metadata.papermill.status for cell in half.cells] == ["completed", "running"]
    assert not half.cells[1].outputs
    # When all is done, papermill's own form: one line of JSON for each of text.
    assert out.read_text() == nbformat.writes(executed)


@pytest.mark.slow
def test_steps_that_a_cell_tells_are_said_and_nothing_else(fake_notebook, tmp_path):
    told = "from taxi_duration.logs import log_to_stdout, log_step\nlog_to_stdout()\n"
    fake_notebook(
        "A: int = 0", told + "print('a table')\nlog_step('LR: fit')\nlog_step('LR: score')"
    )
    said: list[str] = []
    execute("fake", tmp_path / "out.ipynb", {}, say=said.append)
    assert said == ["      LR: fit", "      LR: score"]


@pytest.mark.slow
def test_failing_cell_is_reported_with_its_place_and_error_and_kept(fake_notebook, tmp_path):
    fake_notebook("A: int = 0", "# divides\n1 / A")
    with pytest.raises(NotebookError) as error:
        execute("fake", tmp_path / "out.ipynb", {"A": 0})
    message = str(error.value)
    assert all(part in message for part in ("fake.ipynb", "cell", "ZeroDivisionError", "1 / A"))
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].ename == "ZeroDivisionError"


@pytest.mark.slow
def test_kernel_that_dies_is_reported_like_a_failing_cell(fake_notebook, tmp_path):
    fake_notebook("A: int = 0", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(NotebookError, match=r"fake\.ipynb .*died"):
        execute("fake", tmp_path / "out.ipynb", {})
    assert (tmp_path / "out.ipynb").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", CHAIN)
def test_notebook_runs_alone_from_an_empty_home(home, name, tmp_path):
    papermill.execute_notebook(
        str(PROJECT / "notebooks" / f"{name}.ipynb"), str(tmp_path / "out.ipynb"),
        parameters={"MODEL": "LR"}, cwd=str(PROJECT / "notebooks"), progress_bar=False,
    )  # fmt: skip
    assert (home / "runs" / "adhoc" / "run.json").exists()
    assert (home / "tracking" / "mlflow.db").exists()


@pytest.mark.long
def test_papermill_alone_gives_the_courses_figure_on_real_months(real_months, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(PROJECT / "notebooks" / "02_train_validate.ipynb"),
         str(tmp_path / "out.ipynb"), "-p", "TRAIN_DATA", "2021-01", "-p", "VAL_DATA", "Feb 2021",
         "-p", "MODEL", "LR", "--no-progress-bar"],
        env={**os.environ, "TAXI_HOME": str(tmp_path / "home"), "TLC_URL": str(real_months)},
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    printed = [
        output.text
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    ]
    text = "".join(printed)
    assert "the course's model: RMSE 7.7587 minutes" in text
    assert "our LR on the same trips: RMSE 7.7587 minutes" in text
    assert "LR: RMSE 7.7587 minutes" in text
    assert "73,908 trips" in text and "61,921 trips" in text
