"""MLflow's store with something deleted, locked, damaged or away: told in one line."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from servers import free_port

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.errors import DeletedError, TrackingError
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import find_version, list_versions

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

LINE = {"key": "5:promote", "what": "promote green-duration:1", "why": "nearer", "who": "auto",
        "numbers": {"gain": 0.2}}  # fmt: skip
FIRST = Version("green-duration", 1, "1" * 64, "sample")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tracking folder with its tables; making them takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with environment.temporary_home(folder):
        tracking.connect()
    return folder / "tracking"


@pytest.fixture
def store(made, home):
    """A tracking folder of the test's own."""
    shutil.copytree(made, home / "tracking")
    return home / "tracking"


@pytest.fixture
def client(store):
    return tracking.connect()


@pytest.fixture
def version(client):
    """Version 1, registered."""
    client.create_registered_model(FIRST.name)
    client.create_model_version(FIRST.name, "models/1")
    return FIRST


def bin_of(client):
    """Name of the experiment and whether it is deleted."""
    found = client.search_experiments(view_type=3, filter_string=f"name = '{tracking.EXPERIMENT}'")
    return [(e.name, e.lifecycle_stage) for e in found]


# --- deleted -----------------------------------------------------------------------------


def test_experiment_that_was_deleted_is_restored_and_takes_the_next_run(client, caplog):
    before = tracking.start_run(client, "before", {})
    client.delete_experiment(tracking.experiment_id(client))
    assert bin_of(client) == [(tracking.EXPERIMENT, "deleted")]
    after = tracking.start_run(client, "after", {})
    assert bin_of(client) == [(tracking.EXPERIMENT, "active")]
    assert "was deleted; it is restored" in caplog.text
    assert all(tracking.is_active(client, run) for run in (before, after))


def test_experiment_that_another_restored_meanwhile_is_used(client, monkeypatch):
    tracking.start_run(client, "before", {})
    number = tracking.experiment_id(client)
    client.delete_experiment(number)
    stale = client.get_experiment_by_name(tracking.EXPERIMENT)
    client.restore_experiment(number)
    monkeypatch.setattr(client, "get_experiment_by_name", lambda _: stale, raising=False)
    assert tracking.experiment_id(client) == number


def test_experiment_that_another_made_meanwhile_is_used(client, monkeypatch):
    number = tracking.experiment_id(client)
    real = client.get_experiment_by_name(tracking.EXPERIMENT)
    answers = iter([None, real])
    monkeypatch.setattr(client, "get_experiment_by_name", lambda _: next(answers), raising=False)
    assert tracking.experiment_id(client) == number


def test_experiment_that_was_deleted_for_good_is_made_anew_and_said_so(client, version, caplog):
    from mlflow.tracking._tracking_service.utils import _get_store  # it takes seconds to import

    before = tracking.start_run(client, "before", {})
    number = tracking.experiment_id(client)
    client.delete_experiment(number)
    _get_store()._hard_delete_run(before)  # as `mlflow gc` does
    _get_store()._hard_delete_experiment(number)
    assert bin_of(client) == []
    after = tracking.start_run(client, "after", {})
    assert bin_of(client) == [(tracking.EXPERIMENT, "active")]
    assert "is gone (renamed, or deleted for good); a new one is made" in caplog.text
    assert [tracking.is_active(client, run) for run in (before, after)] == [False, True]


def test_experiment_that_was_renamed_keeps_its_runs_and_a_new_one_is_made(client, version, caplog):
    before = tracking.start_run(client, "before", {})
    client.rename_experiment(tracking.experiment_id(client), "mine")
    after = tracking.start_run(client, "after", {})
    assert "a new one is made" in caplog.text
    numbers = {client.get_run(run).info.experiment_id for run in (before, after)}
    assert len(numbers) == 2


def test_first_experiment_of_a_store_is_made_without_a_word(client, caplog):
    tracking.experiment_id(client)
    assert not caplog.text


def test_first_experiment_on_a_server_of_others_is_made_without_a_word(client, caplog):
    client.create_registered_model("churn")
    tracking.experiment_id(client)
    assert not caplog.text


def test_models_of_others_on_the_same_server_hide_none_of_ours_and_are_not_listed(client, version):
    for number in range(100):  # as many as MLflow lists at once
        client.create_registered_model(f"a model of others' {number}")
    client.create_model_version("a model of others' 0", "models/1", tags={"rmse": "0.9 (test)"})
    assert [row.ref for row in list_versions(client)] == [version.ref]
    assert find_version(client, version.ref).number == 1


def test_artifacts_that_were_moved_away_are_told_in_one_line_and_new_ones_are_kept(
    client, store, tmp_path
):
    (tmp_path / "note.txt").write_text("here")
    run = tracking.start_run(client, "a run", {})
    client.log_artifact(run, str(tmp_path / "note.txt"))
    shutil.move(store / tracking.ARTIFACTS, tmp_path / "elsewhere")
    with pytest.raises(TrackingError, match=r"^MLflow's store tracking/ does not do it") as error:
        client.download_artifacts(run, "note.txt", str(tmp_path))
    assert "\n" not in str(error.value)
    client.log_artifact(run, str(tmp_path / "note.txt"), "again")
    assert (store / tracking.ARTIFACTS / run / "artifacts" / "again" / "note.txt").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [("s3://bucket/runs", "Unable to locate credentials; .*AWS_ACCESS_KEY_ID"),
     ("mlflow-artifacts:/2", "mlflow-artifacts URI .*; .*rename the experiment")],
)  # fmt: skip
def test_artifacts_that_cannot_be_written_are_told_with_the_remedy(
    client, tmp_path, monkeypatch, place, said
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "note.txt").write_text("here")
    run = client.create_run(client.create_experiment("elsewhere", place)).info.run_id
    with pytest.raises(TrackingError, match=f"^MLflow's store tracking/ does not do it: .*{said}"
                       ) as error:  # fmt: skip
        client.log_artifact(run, str(tmp_path / "note.txt"))
    assert "\n" not in str(error.value)


def test_experiment_that_was_made_in_the_pages_is_told_before_the_training(client):
    number = client.create_experiment(tracking.EXPERIMENT, "mlflow-artifacts:/7")
    with pytest.raises(TrackingError, match=r"keeps artifacts at mlflow-artifacts:/7.*rename"):
        tracking.check_store()
    assert tracking.pages_of_runs("http://host").endswith(f"/{number}/runs")  # to rename it there
    client.rename_experiment(number, "mine")
    tracking.check_store()


@pytest.mark.parametrize("gone", ["deleted", "never there"])
def test_run_that_is_gone_is_not_active_and_writing_to_it_says_so(client, gone):
    run = tracking.start_run(client, "a run", {}) if gone == "deleted" else "0" * 32
    if gone == "deleted":
        assert tracking.is_active(client, run)
        client.delete_run(run)
    assert not tracking.is_active(client, run)
    with pytest.raises(DeletedError):
        tracking.log_run(client, run, tags={"a": "b"})


def test_decision_about_a_deleted_version_is_logged_once_without_its_tag(client, version, caplog):
    client.delete_model_version(version.name, "1")
    for _ in range(2):
        tracking.log_decision(client, LINE, version)
    runs = client.search_runs([tracking.experiment_id(client)])
    assert [run.data.tags["audit_key"] for run in runs] == ["5:promote"]
    assert "green-duration:1 gets no tags" in caplog.text


def test_decision_about_a_version_that_is_there_gets_its_tag(client, version):
    tracking.log_decision(client, LINE, version)
    tags = client.get_model_version(version.name, "1").tags
    assert tags == {"auto": "promote green-duration:1: nearer"}


# --- locked, damaged, away -----------------------------------------------------------------


def lock(store) -> sqlite3.Connection:
    """Take the whole database, as a program does that mends it."""
    connection = sqlite3.connect(store / "mlflow.db", isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def damage(store) -> None:
    for path in store.glob("mlflow.db*"):
        path.unlink()
    (store / "mlflow.db").write_bytes(b"this is not a database, but long enough to be one " * 90)


def replace_by_folder(store) -> None:
    for path in store.glob("mlflow.db*"):
        path.unlink()
    (store / "mlflow.db").mkdir()


def replace_by_file(store) -> None:
    shutil.rmtree(store)
    store.write_text("a file where the folder should be")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(lock, "database is locked"), (damage, "file is not a database"),
     (replace_by_folder, "unable to open database file"), (replace_by_file, "")],
)  # fmt: skip
def test_store_that_cannot_be_used_is_told_at_once_in_one_line(
    store, monkeypatch, caplog, capfd, spoil, why
):
    monkeypatch.setattr(tracking, "LOCK_SECONDS", 0.1)
    held = spoil(store)
    with pytest.raises(TrackingError, match=f"^MLflow's store tracking/ does not do it: .*{why}"
                       ) as error:  # fmt: skip
        tracking.connect()
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    if held:
        held.close()


@pytest.mark.parametrize(
    "note", [b"", b"\n", b"\xbd\x00 no text", b"/a\0b"], ids=["empty", "blank", "bytes", "null"]
)
def test_note_of_the_place_that_a_full_disk_cut_is_written_anew(store, note):
    (store / "location.txt").write_bytes(note)
    client = tracking.connect()
    run = client.get_run(tracking.start_run(client, "after", {}))
    assert (store / "location.txt").read_text() == str(store)
    assert run.info.artifact_uri.startswith(store.as_uri())


def test_database_without_a_byte_is_made_like_one_that_is_not_there(store):
    for path in store.glob("mlflow.db*"):
        path.unlink()
    (store / "mlflow.db").touch()
    assert tracking.start_run(tracking.connect(), "first", {})


def test_store_of_another_mlflow_sends_to_who_knows_the_way(store):
    with closing(sqlite3.connect(store / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError, match=r"its schema ffffffffffff is another MLflow's.*doctor"):
        tracking.connect().search_experiments()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/data/mlruns", "a folder, in which MLflow keeps no runs any more"),
        ("file:///data/mlruns", "a folder, in which MLflow keeps no runs any more"),
        ("mlruns", "a folder"),
        ("127.0.0.1:5000", "no address of a store"),
        ("ftp://host", "no address of a store"),
        ("http://", "without a host"),
        ("sqlite://", "without a file"),
        ("http://me:s3cret@host:99999", "Port out of range"),
        ("http://me:s3cret@host:port", "port"),
    ],
)
def test_address_at_which_no_store_can_be_is_refused_by_its_name(home, monkeypatch, address, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingError, match=f"^MLFLOW_TRACKING_URI is .*{said}.*expected is http"
                       ) as error:  # fmt: skip
        tracking.connect()
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_database_server_that_is_down_is_told_at_once(home, monkeypatch, kind):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}://me:s3cret@127.0.0.1:{free_port()}/runs")
    with pytest.raises(TrackingError, match="no connection: Connection refused; start it, or unset"
                       ) as error:  # fmt: skip
        tracking.connect()
    assert "s3cret" not in str(error.value)


def test_file_that_cannot_be_opened_is_told_at_once(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{home}/no/folder/runs.db")
    with pytest.raises(TrackingError, match="unable to open database file"):
        tracking.connect()


def test_path_that_is_too_long_for_sqlite_is_said(tmp_path, monkeypatch):
    far = tmp_path / ("a" * 200) / ("b" * 200) / ("c" * 200)
    far.mkdir(parents=True)
    monkeypatch.setenv("TAXI_HOME", str(far))
    with pytest.raises(TrackingError, match=r"the path is too long for SQLite: .*\(TAXI_HOME\)"):
        tracking.connect()


@pytest.mark.parametrize(
    ("refused", "remedy"),
    [
        ("attempt to write a readonly database", "let tracking/ be written"),
        ("database or disk is full", "free some room"),
        ("disk I/O error", "the disk is full or broken"),
    ],
)
def test_what_the_database_refuses_is_said_and_not_what_sqlalchemy_calls_it(
    client, monkeypatch, refused, remedy
):
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    def fail(*_, **__):
        words = "(raised as a result of Query-invoked autoflush)\n"
        database = OperationalError(words, {}, sqlite3.OperationalError(refused))
        raise MlflowException(f"{words}{database}") from database

    monkeypatch.setattr(client._client, "create_run", fail)
    with pytest.raises(TrackingError, match=f"does not do it: {refused}; .*{remedy}"):
        tracking.start_run(client, "a run", {})


def test_store_that_is_locked_for_writing_is_told_in_one_line(client, store, monkeypatch, capfd):
    """Readers go on beside a writer; MLflow itself waits twenty seconds for its turn to write."""
    run = tracking.start_run(client, "a run", {})
    monkeypatch.setattr("mlflow.store.db.utils.sql.text", short_wait)
    with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match="database is locked") as error:
            tracking.log_run(client, run, tags={"a": "b"})
    assert "\n" not in str(error.value)
    assert "Traceback" not in "".join(capfd.readouterr())
    tracking.log_run(client, run, tags={"a": "b"})


def short_wait(statement: str):
    from sqlalchemy import text

    return text(statement.replace("busy_timeout = 20000", "busy_timeout = 100"))


def test_database_that_was_removed_is_made_again_without_what_was_left_of_it(client, store):
    tracking.start_run(client, "lost", {})
    (store / "mlflow.db").unlink()
    leftover = store / "mlflow.db-wal"
    leftover.write_bytes(leftover.read_bytes() if leftover.exists() else b"left over")
    again = tracking.connect()
    run = tracking.start_run(again, "found", {})
    assert again.get_run(run).info.run_name == "found"
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_server_that_is_away_is_told_without_its_password(home, monkeypatch, capfd):
    address = f"http://me:s3cret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="Connection refused") as error:
        tracking.experiment_id(tracking.connect())
    said = str(error.value)
    assert said.startswith("MLflow's store http://127.0.0.1:") and "\n" not in said
    assert "s3cret" not in said and "0x" not in said
    assert capfd.readouterr() == ("", "")


class OldServer(BaseHTTPRequestHandler):
    """MLflow 2: it knows our experiment, and nothing of models that are logged by themselves."""

    def do_GET(self) -> None:
        tags = [{"key": tracking.KIND_TAG, "value": tracking.OUR_KIND}]
        experiment = {"experiment_id": "1", "name": tracking.EXPERIMENT, "tags": tags,
                      "lifecycle_stage": "active", "artifact_location": "s3://bucket"}  # fmt: skip
        is_known = "experiments/get-by-name" in self.path
        body = json.dumps({"experiment": experiment}).encode() if is_known else b""
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_) -> None:
        """Silent."""


def test_server_that_would_refuse_the_model_is_told_before_the_training(home, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), OldServer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(TrackingError, match=r"older than 3 .*unset MLFLOW_TRACKING_URI"):
            tracking.check_store()
        server.shutdown()


def test_client_is_handed_to_another_process_whole(client):
    again = pickle.loads(pickle.dumps(client))
    assert again.search_experiments()
    with pytest.raises(DeletedError):
        again.get_run("0" * 32)


def test_mistake_in_a_call_stays_a_mistake(client):
    with pytest.raises(TypeError):
        client.get_run()
