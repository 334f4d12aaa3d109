import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from commands import PROJECT, run_pipeline
from msgspec import to_builtins
from msgspec.structs import replace
from receiver import receiving
from servers import free_port

import pipeline
from taxi_duration import environment
from taxi_duration.data.sample import write_sample_month
from taxi_duration.data.sources import SAMPLE_BANNER
from taxi_duration.doctor import places
from taxi_duration.files import read_json, write_json
from taxi_duration.live.deployment import read_deployment, set_challenger
from taxi_duration.loop.approving import Approval
from taxi_duration.loop.state import State, write_state
from taxi_duration.model.bundle import load_card

CHAIN = list(pipeline.NOTEBOOKS)


def run_here(monkeypatch, *args: str) -> int:
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["pipeline.py", *args])
    return pipeline.main()


def the_run(home: Path) -> Path:
    (folder,) = [path.parent for path in home.glob("runs/*/run.json")]
    return folder


# --- before anything runs ----------------------------------------------------------------


def test_help_imports_nothing_that_works():
    told = "import sys, pipeline; pipeline.cli(['--help'], standalone_mode=False); "
    told += "sys.exit(' '.join({'numpy', 'pandas', 'papermill', 'mlflow'} & {*sys.modules}) or 0)"
    done = subprocess.run([sys.executable, "-c", told], cwd=PROJECT, capture_output=True, text=True)
    assert "promote" in done.stdout
    assert done.returncode == 0, done.stderr


def test_backend_of_a_notebook_that_started_it_is_not_taken():
    """matplotlib does not even let itself be imported where a backend is not installed."""
    code = "import pipeline; pipeline.main(); import matplotlib"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=PROJECT, capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "module://ipympl.backend_nbagg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_help_of_run_names_the_kinds(capsys, monkeypatch):
    assert run_here(monkeypatch, "run", "--help") == 0
    assert "LR, LASSO, RIDGE, RF, XGB, best." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pandas", "mlflow.tracking"])
def test_a_library_that_is_not_there_is_told_as_another_environment(capsys, monkeypatch, name):
    def fail(**options):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(pipeline.cli, "main", fail)
    assert pipeline.main() == 1
    assert f"is not this project's: No module named {name!r}" in capsys.readouterr().err


def test_an_import_of_our_own_that_fails_shows_where(monkeypatch):
    def fail(**options):
        raise ImportError("cannot import name", name="taxi_duration.chain")

    monkeypatch.setattr(pipeline.cli, "main", fail)
    with pytest.raises(ImportError, match="cannot import name"):
        pipeline.main()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["-p", "TRAIN_DATE", "2021-01"], 1, "did you mean TRAIN_DATA"),
        (["run", "-p", "RUN_DIR", "elsewhere"], 1, "RUN_DIR is set by the pipeline"),
        (["--train-date", "2021-01"], 2, "--train-data"),
        (["--train-data", "2021-13"], 1, "TRAIN_DATA: month tag '2021-13'"),
        (["--val-data", "2020-12"], 1, "leakage"),
        (["--model", "SVM"], 1, "LR, LASSO, RIDGE, RF, XGB, best"),
        (["-p", "SERVICE", "blue"], 1, "green, yellow, fhv, fhvhv"),
        (["--resume", "20200101-000000-beef"], 1, "does not exist"),
        (["--resume", "x", "--model", "LR"], 2, "settings the run was started with"),
        (["--resume", "x", "--fresh"], 2, "settings the run was started with"),
        (["train"], 2, "train"),
        (["run", "--resume", ""], 2, "an empty value after --resume"),
        (["--model="], 2, "an empty value after --model"),
        (["-p", "MODEL", " "], 2, "an empty value after MODEL"),
        (["replay", "--data", "2021-02", "--days", "0"], 2, "--days"),
        (["replay", "--data", "2021-02", "--rides", "-1"], 2, "--rides"),
        (["tune", "--months", "2021-01", "--out", "x", "--trials", "0"], 2, "--trials"),
        (["backtest", "--months", "2021-01:2021-03", "--share", "1.5"], 2, "--share"),
        (["backtest", "--months", "2021-01:2021-04", "--share", "nan"], 2, "'--share': nan"),
        (["backtest", "--months", "2021-01:2021-04", "--plot", "x.txt"], 2, "must end in .png"),
        (["backtest", "--months", "2021-01:2021-04", "--table", "x.html"], 2, ".md or .csv"),
        (["tune", "--months", "2021-01", "--out", "x", "--minutes", "nan"], 2, "'--minutes': nan"),
        (["tune", "--months", "2021-01", "--out", "x", "--minutes", "inf"], 2, "'--minutes': inf"),
        (["replay", "--data", "2021-02", "--days", "9" * 20], 2, "'--days'"),
        (["replay", "--data", "2021-02", "--url", "htp://x"], 1, "--url is 'htp://x'; it must be"),
        (["replay", "--data", "2021-02", "--url", "http://[x"], 1, "--url is 'http://[x'"),
        (["replay", "--data", "2021-02", "--url", "http://x:99999"], 1, "--url is "),
        (["score", "--data", "2021-02", "--to", "foo://x"], 1, "--to is 'foo://x'"),
        (["score", "--data", "2021-02", "--out", "/dev/null"], 2, "'/dev/null' is a device"),
        (["score", "--data", "2021-02", "--out", f"{__file__}/x"], 2, "is a file, no folder"),
        (["model-card", "green-duration:1", "--out", f"{__file__}/x"], 2, "is a file, no folder"),
        (["pull", "green-duration:1", "--to", f"{__file__}/x"], 2, "is a file, no folder"),
        (["atlas", "--months", "green", "--out", "x"], 2, "--months is 'green'; it must be"),
        (["atlas", "--months", "=2021-01", "--out", "x"], 2, "--months is '=2021-01'"),
    ],
)
def test_mistake_stops_before_the_first_notebook(home, monkeypatch, capsys, args, code, said):
    assert run_here(monkeypatch, *args) == code
    assert said in capsys.readouterr().err
    assert not list(home.glob("runs/*"))


def test_process_whose_pipe_ended_is_no_interruption(home, monkeypatch, capsys):
    def fail() -> None:
        raise EOFError

    monkeypatch.setattr("taxi_duration.chain.warm.start_warming", fail)
    assert run_here(monkeypatch, "run") == pipeline.EXIT_FAILED
    assert "a process that this command started has died" in capsys.readouterr().err


def test_mistake_ends_the_process_that_was_to_be_warm(home, monkeypatch):
    """It is started first, imports for seconds, and would stay as long as this process."""
    assert run_here(monkeypatch, "--model", "SVM") == 1
    until = time.monotonic() + 20
    while warm := [
        child for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and any("multiprocessing.forkserver" in word for word in child.cmdline())
    ]:  # fmt: skip
        assert time.monotonic() < until, warm
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DATA", "real"), ("ENGINE", "spark"), ("DASK_SCHEDULER", "x"), ("ATLAS", "/no/such"),
     ("BOOST_ROWS", "-1"), ("DEVICE", "gpu"), ("MAX_BAD_SHARE", "a"), ("UTC_TIMES", "x"),
     ("SAMPLE_ROWS", "0"), ("EXTRA_FEATURES", "/no/such.csv"),
     ("MODEL_SIGNING_KEY", "ed25519-public:" + 43 * "A" + "="), ("MODEL_PRIVATE_KEY", "ed25519:x"),
     ("MODEL_PUBLIC_KEY", "x"), ("TAXI_HOME", __file__), ("TLC_URL", "htp://x")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "auto"])
def test_setting_without_such_a_value_stops_before_the_first_notebook(
    home, monkeypatch, capsys, name, value, command
):
    monkeypatch.setenv(name, value)
    assert run_here(monkeypatch, command) == 1
    assert f"error: {name}" in capsys.readouterr().err
    assert not [*home.glob("runs/*"), *home.glob("deployment/*")]


@pytest.mark.parametrize("name", ["AUTO_APPROVE", "LOG_KEEP_DAYS", "LOG_MAX_MB"])
def test_turn_is_refused_by_a_setting_of_the_loop_before_it_begins(home, monkeypatch, capsys, name):
    monkeypatch.setenv(name, "never")
    assert run_here(monkeypatch, "auto") == 1
    assert f"error: {name}" in capsys.readouterr().err
    assert not list(home.glob("deployment/*"))


@pytest.mark.parametrize("command", ["run", "auto"])
@pytest.mark.parametrize("place", ["models", "deployment"])
def test_place_of_the_end_that_cannot_be_written_stops_before_the_first_notebook(
    home, monkeypatch, capsys, command, place
):
    """A folder mounted read-only: notebook 04 found that out, after the training."""

    def refuse(dir: Path):
        if Path(dir).name == place:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return take(dir=dir)

    (home / place).mkdir(parents=True)
    take = tempfile.TemporaryFile
    monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)
    assert run_here(monkeypatch, command) == 1
    said = capsys.readouterr().err
    assert f"{place} cannot be written: it is mounted read-only" in said and "_DIR" in said
    assert not list(home.glob("runs/*"))


@pytest.mark.parametrize("spoilt", ["data", "data/raw", "data/prepared"])
def test_file_in_the_place_of_a_folder_is_named(home, monkeypatch, capsys, spoilt, tmp_path):
    source = tmp_path / "source" / "trip-data"
    source.mkdir(parents=True)
    write_sample_month(source / "green_tripdata_2021-01.parquet", "green", "2021-01", 500)
    monkeypatch.setenv("TLC_URL", str(source.parent))
    monkeypatch.delenv("DATA_DIR", raising=False)
    monkeypatch.delenv("DATA", raising=False)
    (home / spoilt).parent.mkdir(parents=True, exist_ok=True)
    (home / spoilt).write_text("no folder")
    assert run_here(monkeypatch, "data", "--months", "2021-01") == 1
    said = capsys.readouterr().err
    assert f"error: {home / spoilt}" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "args", [["trace", "\udcff"], ["promote", "\udcff"], ["score", "--out", "a\udce9.parquet"]]
)
def test_argument_in_another_encoding_is_named(home, monkeypatch, capsys, args):
    assert run_here(monkeypatch, *args) == 2
    assert "is no text in UTF-8" in capsys.readouterr().err


def test_month_from_before_there_were_zones_is_not_waited_for(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "data", "--months", "2000-01") == 1
    assert "green data start in 2013-08" in capsys.readouterr().err


def test_help_names_the_commands_and_exit_codes(monkeypatch, capsys):
    assert run_here(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("run", "models", "score", "Exit codes"))


def test_folder_that_was_deleted_under_the_shell_is_said(tmp_path):
    (tmp_path / "gone").mkdir()
    words = f'cd gone && rmdir ../gone && exec "{sys.executable}" "{PROJECT}/pipeline.py" models'
    done = subprocess.run(["sh", "-c", words], cwd=tmp_path, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: the folder that this shell is in was deleted")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "words", "begun", "codes"),
    [(signal.SIGTERM, ["run", "--model", "LR"], "[1/4]", [143]),
     (signal.SIGHUP, ["run"], "[1/4]", [129]), (signal.SIGINT, ["run"], "[1/4]", [130]),
     (signal.SIGTERM, ["mlflow"], "MLflow on", [0, 143])],  # 143 before its pages have begun
)  # fmt: skip
@pytest.mark.usefixtures("hearing")
def test_signal_ends_a_command_with_all_that_it_started(home, number, words, begun, codes):
    place = {**os.environ, "TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000"}
    command = [sys.executable, str(PROJECT / "pipeline.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=place) as process:  # fmt: skip
        assert process.stdout
        until = next(line for line in process.stdout if begun in line)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        said = process.stdout.read()
    assert process.returncode in codes, (until, said)
    assert "Traceback" not in said
    if words[0] == "run":
        assert f"`python pipeline.py run --resume {the_run(home).name}` goes on with 01_" in said
    assert psutil.wait_procs(started, timeout=60)[1] == []


IMPATIENT = """
import os, signal, subprocess, psutil, pipeline
pipeline._stop_as_by_ctrl_c()
started, find = subprocess.Popen(["sleep", "20"]), psutil.Process.children
def again(*args, **kwargs):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return find(*args, **kwargs)
psutil.Process.children = again
pipeline._end_children()
print(started.wait())
"""


def test_a_second_signal_does_not_keep_what_was_started_alive():
    command = [sys.executable, "-c", IMPATIENT]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{-signal.SIGKILL}\n", "")


@pytest.mark.slow
def test_locale_without_dashes_does_not_matter(home):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_pipeline(home, "data", "--months", "2021-01", **plain)
    assert done.returncode == 0 and "┏" in done.stdout


@pytest.mark.slow
def test_address_of_the_store_is_printed_for_mlflows_own_commands(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "mlflow", "--uri") == 0
    address = f"sqlite:///{home}/tracking/mlflow.db"
    assert capsys.readouterr().out == address + "\n"
    assert (home / "tracking" / "mlflow.db").exists()
    # Exported as the README says, it still means the local store, with its artifacts in tracking/.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert environment.tracking_server() is None
    assert run_here(monkeypatch, "mlflow", "--uri") == 0
    assert capsys.readouterr().out == address + "\n"


@pytest.mark.slow
def test_registry_without_models_says_how_to_get_one(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "models") == 0
    assert "make run" in capsys.readouterr().out


# --- steering by hand ----------------------------------------------------------------------


def test_pause_and_resume_say_what_they_did(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "auto", "pause", "--reason", "street fair") == 0
    assert run_here(monkeypatch, "auto", "pause") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("the loop is paused since") and said[0].endswith("street fair")
    assert said[1].startswith("the loop was already paused") and said[1].endswith("street fair")
    assert run_here(monkeypatch, "auto") == 0
    assert "street fair" in capsys.readouterr().out
    assert run_here(monkeypatch, "auto", "resume") == 0
    assert run_here(monkeypatch, "auto", "resume") == 0
    assert capsys.readouterr().out.splitlines() == [
        "the loop acts again",
        "the loop was not paused",
    ]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["approve"], 1, "nothing waits for approval"),
        (["approve", "green-duration:2", "green-duration:3"], 2, "unexpected"),
        (["drop"], 1, "nothing is deployed"),
        (["auto", "stop"], 2, "stop"),
        (["auto", "--dry-run", "resume"], 2, "--dry-run goes with a turn"),
    ],
)
def test_what_cannot_be_done_is_refused_with_why(home, monkeypatch, capsys, args, code, said):
    assert run_here(monkeypatch, *args) == code
    assert said in capsys.readouterr().err


def test_status_is_one_screen_and_json_for_machines(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "status") == 0
    text = capsys.readouterr().out
    assert "nothing is deployed" in text and len(text.splitlines()) <= 24
    assert run_here(monkeypatch, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["serving"] is None


@pytest.mark.slow
def test_test_is_dropped_and_what_waits_is_approved_by_command(moved_home, monkeypatch, capsys):
    champion = read_deployment().champion
    second = replace(champion, number=2, sha256="2" * 64)
    assert run_here(monkeypatch, "drop") == 0
    assert capsys.readouterr().out == "nothing is under test\n"
    set_challenger(second, "test", shadow=True)
    write_state(State("shadow", serial=4, challenger=second, champion=champion))
    write_json(
        environment.deployment_dir() / "approval.json",
        to_builtins(Approval("start_ab", 5, second, "nearer", "2026-01-02T03:04:05+00:00")),
    )
    assert run_here(monkeypatch, "approve", "green-duration:1") == 1
    assert "A/B-test green-duration:2" in capsys.readouterr().err
    assert run_here(monkeypatch, "approve", "green-duration:2") == 0
    assert "A/B-test green-duration:2; the next turn" in capsys.readouterr().out
    assert run_here(monkeypatch, "drop", "--reason", "odd") == 0
    assert "green-duration:2 is dropped" in capsys.readouterr().out
    assert read_deployment().challenger is None


def test_people_to_tell_are_listed_and_tried(home, monkeypatch, capsys):
    with receiving() as receiver:
        monkeypatch.setenv("NOTIFY_URLS", receiver.url)
        assert run_here(monkeypatch, "notify") == 0
        assert (capsys.readouterr().out, receiver.letters) == (
            "address 1 (JSON): 0 messages wait\n", [],
        )  # fmt: skip
        assert run_here(monkeypatch, "notify", "--test") == 0
        assert "address 1 (JSON): took the test message" in capsys.readouterr().out
    assert [letter["title"] for letter in receiver.letters] == ["Taxi trip duration: test"]


def test_address_that_does_not_take_the_test_and_one_that_is_none_fail_it(
    home, monkeypatch, capsys
):
    monkeypatch.setattr("taxi_duration.loop.targets.PAUSES", (0.0,))
    monkeypatch.setenv("NOTIFY_URLS", f"json://127.0.0.1:{free_port()}/t0ken s3cret")
    assert run_here(monkeypatch, "notify", "--test") == 1
    out, err = capsys.readouterr()
    assert "address 1 (JSON): it did not answer, or refused" in err
    assert "address 2 of 2" in err
    assert "s3cret" not in out + err and "t0ken" not in out + err


def test_turn_that_cannot_go_on_is_told_by_the_command_itself(home, monkeypatch, capsys):
    with receiving() as receiver:
        monkeypatch.setenv("NOTIFY_URLS", f"{receiver.url} s3cret")
        for _ in range(2):
            assert run_here(monkeypatch, "auto") == 0
    out = capsys.readouterr().out
    assert "NOTIFY_URLS: address 2 of 2 is left out" in out and "s3cret" not in out
    (letter,) = receiver.letters
    assert letter["title"] == "Taxi trip duration: loop"
    assert "nothing is deployed yet; `pipeline.py run` makes the first" in letter["message"]


def test_nobody_to_tell_is_said_with_how_to_name_somebody(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "notify", "--test") == 0
    assert "NOTIFY_URLS names nobody" in capsys.readouterr().out


# --- what one chain leaves ---------------------------------------------------------------


@pytest.mark.slow
def test_run_folder_holds_every_notebook_executed_without_error(chained):
    for name in CHAIN:
        cells = nbformat.read(the_run(chained) / f"{name}.ipynb", as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]


@pytest.mark.slow
def test_run_file_tells_the_whole_run(chained):
    info = read_json(the_run(chained) / "run.json")
    assert (info["status"], info["data_source"], info["interactive"]) == ("done", "sample", False)
    assert {name: entry["status"] for name, entry in info["notebooks"].items()} == dict.fromkeys(
        CHAIN, "done"
    )
    assert info["settings"]["MODEL"] == "LR"
    assert (info["model"]["name"], info["model"]["version"]) == ("green-duration", 1)


@pytest.mark.slow
def test_report_is_one_page_with_plots_that_says_sample(chained):
    page = (the_run(chained) / "report.html").read_text()
    assert "data:image/png;base64," in page and "Sample data" in page
    assert all(name in page for name in CHAIN)


@pytest.mark.slow
def test_output_shows_progress_table_places_and_the_banner(chained):
    said = (chained.parent / "output.txt").read_text()
    lines = [f"[{i}/4] {name} done in" for i, name in enumerate(CHAIN, 1)]
    for expected in (*lines, SAMPLE_BANNER, "LR *", "od_pair_mean", "green-duration:1 (champion)"):
        assert expected in said


@pytest.mark.slow
def test_card_names_both_months_with_digest_and_rows(chained):
    card = load_card(chained / "models" / "green-duration" / "1")
    assert (card["data_source"], card["train_data"], card["val_data"]) == (
        "sample", "2021-01", "2021-02",
    )  # fmt: skip
    for month in card["months"]["train"] + card["months"]["validation"]:
        stored = next(chained.glob(f"data/sample/*/{month['file']}"))
        assert month["rows_read"] == pq.read_metadata(stored).num_rows
        assert len(month["sha256"]) == 64 and month["data_source"] == "sample"
    assert card["run_id"] == the_run(chained).name


# --- commands on the registered model ----------------------------------------------------


@pytest.mark.slow
def test_models_lists_version_alias_and_error(moved_home, monkeypatch, capsys):
    assert run_here(monkeypatch, "models", "greeen-duration") == 1
    assert "there is no model greeen-duration" in capsys.readouterr().err
    assert run_here(monkeypatch, "models") == 0
    text = capsys.readouterr().out
    card = load_card(moved_home / "models" / "green-duration" / "1")
    rmse = f"{card['metrics']['with_distance']['rmse']:.4f}"
    assert all(word in text for word in ("green-duration:1", "champion", "LR", rmse, "sample"))


@pytest.mark.slow
def test_tagged_version_is_listed_and_every_change_is_told(moved_home, monkeypatch, capsys):
    assert run_here(monkeypatch, "tag", "green-duration:1", "stable") == 0
    assert "green-duration:stable is green-duration:1" in capsys.readouterr().out
    assert run_here(monkeypatch, "models") == 0
    assert "champion, stable" in capsys.readouterr().out
    assert run_here(monkeypatch, "untag", "green-duration:stable") == 0
    assert "green-duration:1 stays" in capsys.readouterr().out
    assert run_here(monkeypatch, "models", "--history") == 0
    told = capsys.readouterr().out
    assert told.count("green-duration:stable") == 2 and "green-duration:champion" in told


@pytest.mark.slow
@pytest.mark.parametrize("args", [["tag", "green-duration:1", "champion"],
                                  ["untag", "green-duration:champion"]])  # fmt: skip
def test_alias_of_the_deployment_is_moved_by_promote_alone(moved_home, monkeypatch, capsys, args):
    assert run_here(monkeypatch, *args) == 1
    assert "pipeline.py promote" in capsys.readouterr().err


@pytest.mark.slow
def test_models_lists_lost_bundles_and_how_to_get_them(moved_home, monkeypatch, capsys):
    shutil.rmtree(moved_home / "models")
    assert run_here(monkeypatch, "models") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("green-duration:1", "missing", "pipeline.py pull"))


@pytest.mark.slow
def test_lost_models_are_pulled_back_and_score_again(moved_home, monkeypatch, capsys, tmp_path):
    shutil.rmtree(moved_home / "models")
    score = ("score", "--data", "2021-03", "--out", str(tmp_path / "scored.parquet"))
    assert run_here(monkeypatch, *score) == 1
    assert "pipeline.py pull green-duration:1" in capsys.readouterr().err
    assert run_here(monkeypatch, "pull", "green-duration:champion") == 0
    assert "was pulled into" in capsys.readouterr().out
    assert run_here(monkeypatch, "pull", "green-duration:1") == 0
    assert "is up to date" in capsys.readouterr().out
    assert run_here(monkeypatch, *score) == 0


def test_history_without_changes_says_how_to_make_one(home, monkeypatch, capsys):
    assert run_here(monkeypatch, "models", "--history") == 0
    assert "pipeline.py tag" in capsys.readouterr().out


@pytest.mark.slow
def test_score_writes_an_answer_for_each_trip(moved_home, monkeypatch, capsys, tmp_path):
    out = tmp_path / "scored.parquet"
    assert run_here(monkeypatch, "score", "--data", "Mar 2021", "--out", str(out)) == 0
    scored = pd.read_parquet(out)
    assert f"{len(scored):,} trips of green" in capsys.readouterr().out
    assert {"predicted", "p10", "p50", "p90", "support", "used_distance", "model"} <= set(scored)
    assert scored["predicted"].notna().all() and (scored["p10"] <= scored["p90"]).all()
    assert set(scored["model"]) == {"green-duration:1"}


@pytest.mark.slow
def test_score_by_an_unknown_version_names_those_there_are(moved_home, monkeypatch, capsys):
    assert run_here(monkeypatch, "score", "--data", "2021-03", "--model", "green-duration:9") == 1
    assert "green-duration has 1:champion" in capsys.readouterr().err


# --- failures ----------------------------------------------------------------------------


def no_database(home: Path, monkeypatch) -> None:
    for path in (home / "tracking").glob("mlflow.db*"):
        path.write_bytes(b"no database" * 1000)


def no_server(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [no_database, no_server])
def test_commands_without_mlflows_store_end_in_one_line(moved_home, monkeypatch, capsys, spoil):
    spoil(moved_home, monkeypatch)
    for args in (["models"], ["promote", "green-duration:1"], ["pull", "green-duration:1"],
                 ["tag", "green-duration:1", "stable"], ["untag", "green-duration:stable"],
                 ["score", "--data", "2021-03"]):  # fmt: skip
        assert run_here(monkeypatch, *args) == 1, args
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: MLflow's store "), args
    assert run_here(monkeypatch, "rollback") == 1
    assert capsys.readouterr().err == "error: there is no earlier champion to roll back to\n"


@pytest.mark.long
def test_run_without_mlflows_store_ends_in_one_line(moved_home):
    no_database(moved_home, None)
    done = run_pipeline(moved_home, MODEL="LR")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: MLflow's store tracking/ does not do it")
    assert "Traceback" not in done.stdout + done.stderr


def test_data_of_an_unpublished_month_ends_with_3(home, tmp_path, monkeypatch, capsys):
    (tmp_path / "tlc" / "trip-data").mkdir(parents=True)
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("TLC_URL", str(tmp_path / "tlc"))
    assert run_here(monkeypatch, "data") == 3
    assert "not published yet: green 2021-01" in capsys.readouterr().err
    assert not (home / "data" / "sample").exists()


@pytest.mark.long
def test_unpublished_month_ends_with_3_and_is_no_crash(tmp_path):
    (tmp_path / "tlc" / "trip-data").mkdir(parents=True)
    done = run_pipeline(tmp_path / "home", DATA="auto", TLC_URL=str(tmp_path / "tlc"), MODEL="LR")
    assert done.returncode == 3
    assert "not published yet: green 2021-01" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "home" / "data" / "sample").exists()


def parent_status(home: Path, run: Path) -> str:
    from taxi_duration.registry import tracking

    client = tracking.connect()
    return client.get_run(read_json(run / "run.json")["mlflow_run_id"]).info.status


@pytest.mark.long
def test_failing_notebook_is_reported_and_kept_and_resume_goes_on_there(moved_home):
    run = the_run(moved_home)
    info = read_json(run / "run.json")
    early = {name: info["notebooks"][name] for name in CHAIN[:2]}
    (run / "run.json").write_text(json.dumps({**info, "notebooks": early}))
    (run / f"{CHAIN[2]}.ipynb").unlink()

    failed = run_pipeline(moved_home, "--resume", run.name, MAX_BAD_SHARE="0")
    assert failed.returncode == 1
    for said in ("03_multiple_models.ipynb failed in cell", "BadMonthError", "MAX_BAD_SHARE"):
        assert said in failed.stderr
    kept = nbformat.read(run / f"{CHAIN[2]}.ipynb", as_version=4)
    assert [o.ename for c in kept.cells for o in c.get("outputs", []) if o.output_type == "error"]
    info = read_json(run / "run.json")
    assert (info["status"], info["notebooks"][CHAIN[2]]["status"]) == ("failed", "failed")
    assert parent_status(moved_home, run) == "FAILED"

    resumed = run_pipeline(moved_home, "--resume", run.name)
    assert resumed.returncode == 0, resumed.stderr
    assert "[2/4] 02_train_validate was done before" in resumed.stdout
    assert "green-duration:1 (champion)" in resumed.stdout
    assert parent_status(moved_home, run) == "FINISHED"


def processes_of(home: Path) -> dict[int, str]:
    """Processes that were started with this home, by id: the pipeline, its kernels, the rest."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended in between
            if f"TAXI_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see kernels")
def test_two_pipelines_at_once_and_a_killed_one_resumed_give_the_same_answers(chained, tmp_path):
    home = tmp_path / "home"
    env = {**os.environ, "TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000"}
    killed = subprocess.Popen([sys.executable, str(PROJECT / "pipeline.py"), "--model", "LR"],
                              env=env, stdout=subprocess.DEVNULL)  # fmt: skip
    while not list(home.glob("runs/*/02_train_validate.ipynb")):  # inside the second notebook
        assert killed.poll() is None
        time.sleep(0.05)
    first = the_run(home)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    assert read_json(first / "run.json")["status"] == "running"

    # One goes on while another begins, on the same home.
    commands = [["--resume", first.name], ["--model", "LR", "--fresh"]]
    both = [
        subprocess.Popen([sys.executable, str(PROJECT / "pipeline.py"), *args], env=env,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for args in commands
    ]  # fmt: skip
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "01_read_data was done before" in said[0]

    cards = [load_card(home / "models" / "green-duration" / version) for version in "12"]
    expected = load_card(chained / "models" / "green-duration" / "1")
    assert {card["run_id"] for card in cards} == {
        path.parent.name for path in home.glob("runs/*/run.json")
    }
    assert {card["predictions_sha256"] for card in cards} == {expected["predictions_sha256"]}
    champion = read_json(home / "deployment" / "deployment.json")["champion"]
    assert champion["version"] in (1, 2)
    assert not processes_of(home)


@pytest.mark.long
def test_chain_on_real_months_gives_the_courses_figure(real_months, tmp_path):
    real = {"DATA": "auto", "SAMPLE_ROWS": "", "TLC_URL": str(real_months)}
    months = {"TRAIN_DATA": "Jan 2021", "VAL_DATA": "Feb 2021"}
    done = run_pipeline(tmp_path / "home", "--model", "LR", **real, **months)
    assert done.returncode == 0, done.stderr
    assert "7.7587" in done.stdout and SAMPLE_BANNER not in done.stdout
    card = load_card(tmp_path / "home" / "models" / "green-duration" / "1")
    assert card["data_source"] == "tlc"
    assert card["metrics"]["with_distance"]["rmse"] == pytest.approx(7.7587, abs=0.0005)
    kept = [m["rows_kept"] for m in card["months"]["train"] + card["months"]["validation"]]
    assert kept == [73_908, 61_921]
