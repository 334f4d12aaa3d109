"""What changed, and which notebooks of the next run are executed again because of it.

The cells are not executed here: their steps are taken by the functions that they call.
"""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path

import nbformat
import pytest
from registering import register_by_hand
from settings_read import settings_read

import pipeline
from taxi_duration import environment
from taxi_duration.chain import candidates, chain, digests, earlier, inputs
from taxi_duration.chain.candidates import rank_candidates, train_candidates, winning_candidate
from taxi_duration.chain.earlier import made_by_others
from taxi_duration.chain.notebooks import notebook_path
from taxi_duration.chain.release import check_release, deploy_winner, register_winner, save_winner
from taxi_duration.chain.run import Run, load_run, new_run
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.data import sources
from taxi_duration.errors import SourceUnreachableError
from taxi_duration.files import MODEL_MAKING, code_digest, read_json, sha256_file, write_json
from taxi_duration.live.audit import audit_lines
from taxi_duration.model.bundle import load_card
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import list_versions

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

CHAIN = pipeline.NOTEBOOKS
READ, TRAIN, COMPARE, SAVE = CHAIN


def take_steps(run: Run, name: str) -> None:
    """Do what the notebook of this name does, besides showing it."""
    if name == READ:
        run.keep_health()
        run.parent_run()
    elif name == TRAIN:
        list(train_candidates(run))
        (run.folder / "plots").mkdir(exist_ok=True)
        (run.folder / "plots" / "residuals.png").write_bytes(b"\x89PNG")
    elif name == COMPARE:
        rank_candidates(run, train_candidates(run))
    else:
        winner, beats = winning_candidate(run)
        save_winner(winner)
        deploy_winner(run, register_winner(run, winner, check_release(run, winner)), beats)


def execute(run: Run, name: str, kernel, say) -> dict:
    """Take a notebook's steps and leave it as if it had been executed."""
    take_steps(run, name)
    path = run.folder / f"{name}.ipynb"
    path.write_bytes(notebook_path(name).read_bytes())
    return {"status": "done", "seconds": 1.0, "sha256": sha256_file(path)}


def write_short_report(folder: Path, *_) -> Path:
    (folder / "report.html").write_text("a page")
    return folder / "report.html"


class NoKernels:
    """Gives none."""

    def start(self) -> None:
        """Start none."""

    def take(self) -> None:
        """Return none."""


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """No kernel and no warm process is started; the report is a short one."""
    register_by_hand(patch)
    patch.setattr(chain, "start_warming", lambda: None)
    patch.setattr(chain, "call_warm", lambda function, *args: function(*args))
    patch.setattr(chain, "begin_warm", lambda function, *args: None)
    patch.setattr(
        chain,
        "write_report",
        lambda folder, *_: write_json(folder / "report.html", 1) or folder / "report.html",
    )
    patch.setattr(chain, "kernels_ahead", lambda: nullcontext(NoKernels()))
    patch.setattr(chain, "_execute", execute)


@pytest.fixture(scope="module")
def first_home(tmp_path_factory) -> Path:
    """A home in which the chain ran once; not to be changed."""
    home = tmp_path_factory.mktemp("current") / "home"
    sample = {"TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000"}
    with environment.temporary(**sample), pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        run = new_run(check_settings("2021-01", "2021-02", "LR"), takes_current=True)
        chain.run_chain(run, CHAIN, print)
    return home


@pytest.fixture
def first(first_home, home) -> Run:
    """The run that was there before, in a home of the test's own."""
    shutil.copytree(first_home, home)
    (folder,) = (home / "runs").iterdir()
    return load_run(folder.name)


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """The notebooks that are executed, by the functions that they call."""
    done: list[str] = []

    def note(run: Run, name: str, kernel, say) -> dict:
        done.append(name)
        return execute(run, name, kernel, say)

    in_this_process(monkeypatch)
    monkeypatch.setattr(chain, "_execute", note)
    return done


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """The kinds that are fitted."""
    done: list[str] = []
    fit = candidates.fit_model
    monkeypatch.setattr(candidates, "fit_model", lambda *a: (done.append(a[0]), fit(*a))[1])
    return done


@pytest.fixture
def again(first, executed):
    """Run the chain as `make run` does, or `--fresh`; return the run and what was said."""

    def run_again(fresh: bool = False, model: str = "LR") -> tuple[Run, str]:
        said: list[str] = []
        executed.clear()
        run = new_run(check_settings("2021-01", "2021-02", model), takes_current=not fresh)
        chain.run_chain(run, CHAIN, said.append)
        return run, "\n".join(said)

    return run_again


# --- what changed -> which run again --------------------------------------------------------


def edit(*names: str):
    """A cell is added to committed notebooks."""

    def change(first, monkeypatch, tmp_path) -> None:
        from taxi_duration.chain import notebooks

        for name in CHAIN:
            shutil.copy(notebook_path(name), tmp_path)
        for name in names:
            book = nbformat.read(tmp_path / f"{name}.ipynb", 4)
            book.cells.append(nbformat.v4.new_code_cell("1 + 1"))
            nbformat.write(book, tmp_path / f"{name}.ipynb")
        for module in (notebooks, inputs):
            monkeypatch.setattr(module, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")

    return change


def spoil(pattern: str):
    """Bytes are added to a file below the home."""

    def change(first, monkeypatch, tmp_path) -> None:
        (path,) = environment.home().glob(pattern)
        path.write_bytes(path.read_bytes() + b" ")

    return change


def remove(pattern: str):
    """A file or folder below the home is removed."""

    def change(first, monkeypatch, tmp_path) -> None:
        (path,) = environment.home().glob(pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def setting(name: str, value: str):
    return lambda first, monkeypatch, tmp_path: monkeypatch.setenv(name, value)


def conditions(first, monkeypatch, tmp_path) -> None:
    """Weather by hour is given."""
    (tmp_path / "rain.csv").write_text("hour,rain_mm\n2021-01-01T00,1.5\n")
    monkeypatch.setenv("EXTRA_FEATURES", str(tmp_path / "rain.csv"))


def other_code(*shelves: str):
    """A file of these shelves of the package is another."""

    def change(first, monkeypatch, tmp_path) -> None:
        def digest(looked_at=MODEL_MAKING) -> str:
            return code_digest(looked_at) + "another" * bool({*shelves} & {*looked_at})

        monkeypatch.setattr(inputs, "code_digest", digest)

    return change


def other_health(first, monkeypatch, tmp_path) -> None:
    """A month is beside another earlier month than it was."""
    found = cached_property(lambda run: [])
    found.__set_name__(Run, "health")
    monkeypatch.setattr(Run, "health", found)


def other_versions(first, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(inputs, "versions_here", lambda: {"numpy": "99"})


def other_processor(first, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(inputs, "_processor", lambda: ["another"])


def republished(first, monkeypatch, tmp_path) -> None:
    """A month has other bytes, with one trip less."""
    import pyarrow.parquet as pq

    (path,) = environment.data_dir().glob("sample/*/green_tripdata_2021-02.parquet")
    pq.write_table(pq.read_table(path)[:-1], path)


def deleted_run(first, monkeypatch, tmp_path) -> None:
    first.client.delete_run(first.read()["mlflow_run_id"])


def deleted_version(first, monkeypatch, tmp_path) -> None:
    first.client.delete_model_version("green-duration", "1")


def forged(first, monkeypatch, tmp_path) -> None:
    """Somebody changed a result, and its digest in run.json too."""
    (first.folder / "leaderboard.json").write_text("{}")
    info = first.read()
    info["notebooks"][COMPARE]["made"]["leaderboard.json"] = sha256_file(
        first.folder / "leaderboard.json"
    )
    write_json(first.folder / "run.json", info)


QUICK = [
    (lambda *_: None, [], [], 1),
    (edit(READ), [READ], [], 1),
    (edit(COMPARE), [COMPARE], [], 1),
    (republished, CHAIN, ["LR"], 2),
    (setting("SAMPLE_ROWS", "3000"), CHAIN, ["LR"], 2),
    (other_code("model"), CHAIN, ["LR"], 2),
    (spoil("runs/*/candidates/LR/model.bin"), [TRAIN, COMPARE, SAVE], ["LR"], 2),
    (remove("runs/*"), CHAIN, ["LR"], 2),
    (deleted_version, [SAVE], [], 2),
]
REST = [
    (edit(TRAIN), [TRAIN], [], 1),
    (edit(SAVE), [SAVE], [], 1),
    (edit(READ, COMPARE), [READ, COMPARE], [], 1),
    (setting("UTC_TIMES", "local"), CHAIN, ["LR"], 2),
    (setting("ATLAS", "none"), CHAIN, ["LR"], 2),
    (conditions, CHAIN, ["LR"], 2),
    (other_code("chain"), CHAIN, [], 1),
    (other_code("plots"), CHAIN, [], 1),
    (other_code(""), CHAIN, [], 1),
    (other_code("loop", "live"), [], [], 1),
    (other_health, CHAIN, [], 1),
    (other_versions, CHAIN, ["LR"], 2),
    (other_processor, CHAIN, ["LR"], 2),
    (setting("MODEL_SIGNING_KEY", "secret"), [TRAIN, COMPARE, SAVE], ["LR"], 2),
    (spoil("runs/*/02_train_validate.ipynb"), [TRAIN], [], 1),
    (remove("runs/*/plots/residuals.png"), [TRAIN], [], 1),
    (spoil("runs/*/candidates/LR/card.json"), [TRAIN, COMPARE, SAVE], ["LR"], 2),
    (spoil("runs/*/leaderboard.json"), [COMPARE], [], 1),
    (forged, CHAIN, ["LR"], 2),
    (spoil("runs/*/run.json"), CHAIN, ["LR"], 2),
    (remove("runs/*/run.json"), CHAIN, ["LR"], 2),
    (deleted_run, CHAIN, [], 2),
    (remove("models"), [SAVE], [], 2),
    (spoil("models/*/1/model.bin"), [SAVE], [], 2),
    (remove("deployment/deployment.json"), [SAVE], [], 1),
]


@pytest.mark.parametrize(
    ("change", "runs", "kinds", "versions"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.long) for case in REST)],
)
def test_what_changed_decides_what_is_executed_again(
    again, first, executed, fits, monkeypatch, tmp_path, change, runs, kinds, versions
):
    change(first, monkeypatch, tmp_path)
    run, _ = again()
    assert executed == list(runs)
    assert fits == kinds
    if change is not deleted_version:
        assert len(list_versions(run.client)) == versions
    _, said = again()
    assert executed == [], said


def test_other_model_is_asked_for(again, executed, fits):
    again(model="RIDGE")
    assert (executed, fits) == (list(CHAIN), ["RIDGE"])


def test_fresh_run_takes_nothing(again, executed, fits):
    run, said = again(fresh=True)
    assert (executed, fits) == (list(CHAIN), ["LR"])
    assert [row.number for row in list_versions(run.client)] == [2, 1]
    assert "registered green-duration:2; green-duration:1 still serves. " in said
    assert "python pipeline.py promote green-duration:2" in said


def test_source_without_network_is_asked_once_in_a_run(again, monkeypatch):
    asked = []

    def unreachable(service, month):
        asked.append(str(month))
        raise SourceUnreachableError("no network")

    def elsewhere(function, *args):  # as another process has them: what it remembers is not there
        return function(*pickle.loads(pickle.dumps(args)))

    monkeypatch.setattr(sources, "fetch_month", unreachable)
    monkeypatch.setattr(chain, "call_warm", elsewhere)
    monkeypatch.setattr(chain, "_execute", partial(elsewhere, execute))
    monkeypatch.setenv("DATA", "auto")
    again(fresh=True)
    assert asked == ["2021-01"]


def test_executed_notebooks_are_rendered_while_the_next_one_runs(again, executed, monkeypatch):
    ahead = []

    def note(function, folder, names):
        ahead.append((list(names), len(executed)))

    monkeypatch.setattr(chain, "begin_warm", note)
    again(fresh=True)
    assert ahead == [(list(CHAIN[:n]), n) for n in range(len(CHAIN))]


def test_run_of_the_loop_takes_nothing(first, executed, fits):
    chain.run_chain(new_run(first.settings), CHAIN, print)
    assert (executed, fits) == (list(CHAIN), ["LR"])


# --- what is taken is named, whole and traced ------------------------------------------------


def test_output_run_file_and_mlflow_name_the_run_that_made_it(again, first):
    run, said = again()
    for number, name in enumerate(CHAIN, 1):
        assert f"[{number}/4] {name} is current: taken from run {first.run_id}" in said
        assert run.read()["notebooks"][name]["taken_from"] == first.run_id
        assert run.client.get_run(run.parent_run()).data.tags[f"taken_from.{name}"] == first.run_id
    assert "nothing new to register: green-duration:1 is this very model, is current" in said
    parent = run.client.get_run(run.parent_run())
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == first.client.get_run(first.parent_run()).data.metrics


def test_what_is_taken_lies_in_the_run_byte_for_byte(again, first):
    run, _ = again()
    names = [n for n in first.read()["notebooks"][TRAIN]["made"] if n.startswith("plots/")]
    assert names
    for name in (*names, "leaderboard.json", *(f"{n}.ipynb" for n in CHAIN)):
        assert sha256_file(run.folder / name) == sha256_file(first.folder / name)


def test_what_was_taken_twice_is_still_named_after_the_run_that_made_it(again, first):
    again()
    shutil.rmtree(first.folder)
    run, _ = again()
    assert {e.get("taken_from") for e in run.read()["notebooks"].values()} == {first.run_id}


def test_version_keeps_the_word_of_the_run_that_made_it(again, first, home):
    before = audit_lines(), tracking.connect().get_model_version("green-duration", "1").tags
    again()
    assert (audit_lines(), first.client.get_model_version("green-duration", "1").tags) == before
    assert load_card(home / "models" / "green-duration" / "1")["run_id"] == first.run_id


def test_version_of_a_model_that_was_taken_says_who_fitted_it(again, first, home):
    deleted_version(first, None, None)
    run, _ = again()
    card = load_card(home / "models" / "green-duration" / "2")
    assert (card["run_id"], card["fitted_by"]) == (run.run_id, first.run_id)
    before = load_card(first.folder / "candidates" / "LR")
    assert card["predictions_sha256"] == before["predictions_sha256"]
    assert audit_lines()[-1].record["what"] == f"finish run {run.run_id}"


def test_why_something_is_made_anew_is_said(again, first, monkeypatch, tmp_path):
    spoil("runs/*/leaderboard.json")(first, monkeypatch, tmp_path)
    edit(TRAIN)(first, monkeypatch, tmp_path)
    _, said = again()
    assert f"[2/4] {TRAIN} … (notebook changed since run {first.run_id})" in said
    assert f"[3/4] {COMPARE} … (leaderboard.json of run {first.run_id} was changed)" in said


def test_run_killed_while_it_takes_goes_on_with_the_rest(first, executed, monkeypatch):
    run = new_run(first.settings, takes_current=True)
    copy = earlier.copy_file

    def killed(source: Path, target: Path, sha256: str) -> None:
        if source.name == "leaderboard.json":
            raise KeyboardInterrupt
        copy(source, target, sha256)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(earlier, "copy_file", killed)
        chain.run_chain(run, CHAIN, lambda _: None)
    said: list[str] = []
    chain.run_chain(load_run(run.run_id), CHAIN, said.append)
    assert executed == []
    assert f"[3/4] {COMPARE} is current: taken from run {first.run_id}" in said


def test_folder_that_is_cleared_away_in_this_moment_is_passed_over(
    first, again, executed, fits, monkeypatch
):
    def gone(source: Path, target: Path, sha256: str) -> None:
        raise FileNotFoundError(2, "No such file", str(source))

    for module in (earlier, candidates):
        monkeypatch.setattr(module, "copy_file", gone)
    _, said = again()
    assert (executed, fits) == (list(CHAIN), ["LR"])
    assert f"[1/4] {READ} … (it cannot be taken from run {first.run_id}: " in said


def test_notebook_whose_months_change_while_it_runs_is_not_taken_later(
    first, executed, again, monkeypatch, tmp_path
):
    before = chain._execute

    def change_meanwhile(run: Run, name: str, kernel, say) -> dict:
        if name == READ:
            republished(first, monkeypatch, tmp_path)
        return before(run, name, kernel, say)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "_execute", change_meanwhile)
        run, _ = again(fresh=True)
    assert "depends_on" not in run.read()["notebooks"][READ]
    again()
    assert executed == list(CHAIN)


def test_unfinished_run_hands_on_what_it_has_done(first, again, executed, monkeypatch):
    def stop(run: Run, name: str) -> None:
        if name == COMPARE:
            raise KeyboardInterrupt
        take(run, name)

    take = take_steps
    shutil.rmtree(first.folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(globals(), "take_steps", stop)
        again()
    again()
    assert executed == [COMPARE, SAVE]


# --- records that are not to be trusted ------------------------------------------------------


@pytest.mark.parametrize("name", ["../../data/raw/x.parquet", "/etc/passwd", "candidates/../x",
                                  "plots/../run.json", "run.json"])  # fmt: skip
def test_record_that_names_anything_but_results_is_passed_over(first, name):
    info = first.read()
    info["notebooks"][TRAIN]["made"][name] = "0" * 64
    write_json(first.folder / "run.json", info)
    assert list(made_by_others(new_run(first.settings), TRAIN)) == []


DAMAGED = ["", "[]", '{"notebooks": []}', '{"notebooks": {"x": 1}}',
           '{"notebooks": {"x": {"depends_on": {}, "made": 3}}}']  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_record_that_is_damaged_is_passed_over(home, content):
    run = new_run(check_settings("2021-01", "2021-02"))
    folder = environment.runs_dir() / "damaged"
    folder.mkdir()
    (folder / "run.json").write_text(content)
    assert list(made_by_others(run)) == []


# --- the key has all that decides ------------------------------------------------------------

DECIDING = {"TRAIN_DATA", "VAL_DATA", "MODEL", "SERVICE", "ATLAS", "BOOST_ROWS", "DEVICE", "ENGINE",
            "EXTRA_FEATURES"}  # fmt: skip
# Read where months are had: their digests are in the key, and a month that is refused stops a run.
BY_THE_MONTHS = {"TLC_URL", "DATA", "DATA_DIR", "SAMPLE_ROWS", "MAX_BAD_SHARE", "NO_PROXY",
                 "UTC_TIMES"}  # fmt: skip
# What was made is looked for there, and is not found elsewhere.
BY_WHAT_IS_THERE = {"TAXI_HOME", "MODELS_DIR", "DEPLOYMENT_DIR", "MLFLOW_TRACKING_URI",
                    "MODEL_SIGNING_KEY", "MODEL_PRIVATE_KEY"}  # fmt: skip
# No notebook of the chain reads these, or only for where it is done, not for what comes of it.
ELSEWHERE = {"DASK_SCHEDULER", "LOG_URL", "LOG_ARCHIVE", "LOG_KEEP_DAYS", "LOG_MAX_MB",
             "AUTO_APPROVE", "NOTIFY_URLS", "PUBLIC_URL", "API_KEY",
             "MODEL_PUBLIC_KEY", "GIT_COMMIT"}  # fmt: skip


def test_every_setting_is_known_to_decide_a_notebook_or_not():
    """A new setting that a notebook reads belongs into `inputs.py`, and here."""
    known = DECIDING | BY_THE_MONTHS | BY_WHAT_IS_THERE | ELSEWHERE
    assert settings_read("taxi_duration/environment.py") <= known


@pytest.mark.parametrize("part", ["service", "months", "extra features", "atlas", "boosting",
                                  "code", "versions"])  # fmt: skip
def test_fit_depends_on_each_part_of_its_inputs(first, part):
    parts = inputs.fit_inputs(first)
    assert part in parts and len(parts) == 7
    other = inputs.fingerprint_of({**parts, part: "another"}, "LR")
    assert len({other, *(inputs.fingerprint_of(parts, kind) for kind in ("LR", "XGB"))}) == 3


def test_months_count_by_what_they_are_for(first):
    later = new_run(check_settings("2021-01:2021-02", "2021-03", "LR"))
    other = new_run(check_settings("2021-01", "2021-02:2021-03", "LR"))
    assert inputs.fit_inputs(later)["months"] != inputs.fit_inputs(other)["months"]


def test_outputs_and_an_editors_notes_in_a_committed_notebook_do_not_count(
    first, monkeypatch, tmp_path
):
    before = inputs.notebook_inputs(first, READ, [])
    book = nbformat.read(notebook_path(READ), 4)
    book.metadata["editor"] = "noted"
    book.cells[1].outputs, book.cells[1].execution_count = [], 7
    nbformat.write(book, tmp_path / "book.ipynb")
    monkeypatch.setattr(inputs, "notebook_path", lambda name: tmp_path / "book.ipynb")
    assert inputs.notebook_inputs(first, READ, []) == before
    book.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(book, tmp_path / "book.ipynb")
    assert inputs.notebook_inputs(first, READ, []) != before


def test_run_that_took_everything_is_vouched_for_by_nobody_else(again, first):
    run, _ = again()
    assert read_json(run.folder / "run.json")["model"]["made_by"] == first.run_id
    lines = audit_lines()
    digests.keep_finished(run)
    assert audit_lines() == lines
    assert json.loads(run.client.get_model_version("green-duration", "1").tags["run_files"])
