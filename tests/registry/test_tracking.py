import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_duration import environment
from taxi_duration.chain.run import load_run
from taxi_duration.registry import tracking

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


def rows(home: Path, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{home}/tracking/mlflow.db?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def the_parent(client):
    (experiment,) = [e for e in client.search_experiments() if e.name == tracking.EXPERIMENT]
    return experiment, client.search_runs(
        [experiment.experiment_id], "tags.`mlflow.parentRunId` IS NULL"
    )[0]


# --- what a chain leaves -----------------------------------------------------------------


def test_store_lies_below_home_and_nothing_in_the_working_directory(chained):
    assert (chained / "tracking" / "mlflow.db").exists()
    assert (chained / "tracking" / "artifacts").is_dir()
    # The chain's working directory was the folder that holds its home.
    assert not {"mlruns", "mlflow.db", "mlartifacts"} & {p.name for p in chained.parent.iterdir()}


def test_one_parent_run_holds_a_child_for_each_model(moved_home):
    client = tracking.connect()
    experiment, parent = the_parent(client)
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert [child.data.tags["model_kind"] for child in children] == ["LR"]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    wanted = {"TRAIN_DATA": "2021-01", "VAL_DATA": "2021-02", "MODEL": "LR", "SERVICE": "green",
              "data_source": "sample"}  # fmt: skip
    for run in (parent, *children):
        assert wanted.items() <= run.data.tags.items()
        assert len(run.data.tags["git_commit"].removesuffix("-dirty")) == 40
    metrics = children[0].data.metrics
    assert metrics["with_distance.rmse"] > 0
    assert metrics["with_distance.segments.rush_hour.mae"] > 0


def test_months_are_logged_as_datasets_by_their_digest(moved_home):
    client = tracking.connect()
    _, parent = the_parent(client)
    run = load_run(parent.data.tags["run_id"])
    logged = {i.dataset.name: i.dataset.digest for i in parent.inputs.dataset_inputs}
    assert logged == {
        f"green_{m.raw.month}": m.raw.sha256[:36] for m in run.train_months + run.val_months
    }


def test_artifacts_load_after_the_whole_folder_was_moved(moved_home, tmp_path):
    client = tracking.connect()
    _, parent = the_parent(client)
    report = client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))
    assert "<html" in Path(report).read_text()[:500]
    addresses = rows(moved_home, "SELECT artifact_uri FROM runs")
    assert all(address.startswith(moved_home.as_uri()) for (address,) in addresses)


def test_moved_store_takes_new_runs_below_its_new_place(moved_home, chained, tmp_path):
    client = tracking.connect()
    run_id = tracking.start_run(client, "after the move", {})
    (tmp_path / "note.txt").write_text("here")
    client.log_artifact(run_id, str(tmp_path / "note.txt"))
    assert list(moved_home.glob("tracking/artifacts/**/note.txt"))
    assert not list(chained.glob("tracking/artifacts/**/note.txt"))


def test_folder_moved_twice_still_loads(moved_home, tmp_path, monkeypatch):
    tracking.connect()
    again = moved_home.rename(tmp_path / "twice")
    monkeypatch.setenv("TAXI_HOME", str(again))
    client = tracking.connect()
    _, parent = the_parent(client)
    client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))


# --- several processes at once -----------------------------------------------------------

# Imports once, then forks: eight interpreters would spend a minute importing MLflow.
EIGHT = """
import os, sys, traceback
import mlflow.store.tracking.sqlalchemy_store
from taxi_duration.registry import tracking

def log(number):
    client = tracking.connect()
    parent = tracking.start_run(client, f"pipeline {number}", {})
    for i in range(8):
        child = tracking.start_run(client, f"model {number}-{i}", {}, parent)
        tracking.log_run(client, child, params={"a": i}, tags={"b": i},
                         metrics={f"m{k}": k for k in range(30)})
        client.set_terminated(child)
    client.set_terminated(parent)

children = []
for number in range(8):
    if (pid := os.fork()) == 0:
        try:
            log(number)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(pid)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


@pytest.mark.long
def test_eight_processes_make_one_store_and_lose_nothing(tmp_path):
    home = tmp_path / "home"
    done = subprocess.run([sys.executable, "-c", EIGHT], env={**os.environ, "TAXI_HOME": str(home)},
                          cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "locked" not in done.stderr
    assert rows(home, "SELECT count(*) FROM runs WHERE status = 'FINISHED'") == [(8 * 9,)]
    assert rows(home, "SELECT count(*) FROM latest_metrics") == [(8 * 8 * 30,)]
    assert rows(home, "SELECT count(*) FROM experiments WHERE name = 'taxi-duration'") == [(1,)]
    assert rows(home, "PRAGMA journal_mode") == [("wal",)]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


KILLED = """
import os, signal
from taxi_duration.registry import tracking
make = tracking._make_tables

def make_and_die(database):
    make(database)
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    os.kill(os.getpid(), signal.SIGKILL)

tracking._make_tables = make_and_die
tracking.connect()
"""


@pytest.mark.long
def test_store_whose_making_was_killed_is_made_by_the_next(home):
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert killed.returncode == -9
    client = tracking.connect()
    run_id = tracking.start_run(client, "after the kill", {})
    assert client.get_run(run_id).info.run_name == "after the kill"
    hidden = {path.name for path in (home / "tracking").glob(".*")}
    assert hidden == {".lock"}


# --- a server ----------------------------------------------------------------------------


@pytest.mark.long
def test_server_is_used_instead_of_the_local_store(server, home, tmp_path):
    client = tracking.connect()
    run_id = tracking.start_run(client, "on a server", {"a": "b"})
    tracking.log_run(client, run_id, params={"p": 1}, metrics={"rmse": 7.5})
    (tmp_path / "note.txt").write_text("here")
    client.log_artifact(run_id, str(tmp_path / "note.txt"))
    assert client.get_run(run_id).data.metrics == {"rmse": 7.5}
    assert list(server.glob("artifacts/**/note.txt"))
    assert not environment.tracking_dir().exists()


def test_without_a_server_the_choice_is_not_left_in_the_environment(moved_home):
    tracking.connect()
    assert environment.tracking_server() is None


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({"rmse": 1, "kind": "LR"}, {"rmse": 1.0}),
        ({"a": {"b": {"c": 2.5}}}, {"a.b.c": 2.5}),
        ({}, {}),
    ],
)
def test_metrics_are_flattened_to_names_with_dots(nested, flat):
    assert tracking.flatten_metrics(nested) == flat
