"""Each odd state is named in one line with its remedy; nothing hangs, raises or stays behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfoNotFoundError

import psutil
import pytest
from click.testing import CliRunner
from pages import INLINE, PROJECT, Page
from servers import free_port
from settings_read import run_settings, settings_read
from stalled_disk import stalled_disk

import pipeline
from taxi_duration.doctor import machine, network, places, settings, stores
from taxi_duration.doctor.doctor import checks, consult
from taxi_duration.doctor.examination import MEND, NOTE, OK, PROBLEM, Check, Finding, examine
from taxi_duration.doctor.ports import free_port as next_free_port
from taxi_duration.errors import SettingError


def said(name: str) -> list[Finding]:
    """Findings of one check, as the doctor runs it."""
    return examine([check for check in checks(docker=True) if check.name == name], 60)


def replace(path: Path, kind: str) -> None:
    """Put something else where a file or folder lies."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("something else")


def in_store(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "tracking" / "mlflow.db")) as store:
        for statement in statements:
            store.execute(statement)
        store.commit()


def in_log(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "data" / "live" / "predictions.db")) as log:
        log.execute(statement)
        log.commit()


# --- what people have on their machines ----------------------------------------------------------

DATABASE = "tracking/mlflow.db"
NOTE_OF_PLACE = "tracking/location.txt"
DELETED = "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'taxi-duration'"
MOVED = ("UPDATE experiments SET artifact_location = 'file:///old/tracking/artifacts' "
         "WHERE name = 'taxi-duration'")  # fmt: skip
OLD_SCHEMA = "UPDATE alembic_version SET version_num = '0584bdc529eb'"
NEW_SCHEMA = "UPDATE alembic_version SET version_num = 'ffffffffffff'"
DEPLOYED = "deployment/deployment.json"
BUNDLE = "models/green-duration/1"
LOG = "data/live/predictions.db"

SAME = ("store", "deployed", "live", "archive", "metrics")  # folders, looked at as `data` is

STATES = {
    # MLflow's store
    "experiment deleted": ("tracking", NOTE, "was deleted in MLflow's pages", "restores it",
                           lambda home: in_store(home, DELETED)),
    "experiment gone": ("tracking", NOTE, "is gone (renamed, or deleted for good)", "a new one",
                        lambda home: in_store(home, "DELETE FROM experiments")),
    "store moved": ("tracking", NOTE, "was moved here from /old/tracking", "follows it",
                    lambda home: (home / "tracking/location.txt").write_text("/old/tracking")),
    "artifacts elsewhere": ("tracking", NOTE, "are said to lie in file:///old", "follows it",
                            lambda home: in_store(home, MOVED)),
    "experiment made in the pages": (
        "tracking", PROBLEM, "artifacts go to mlflow-artifacts:/7", "rename the experiment",
        lambda home: in_store(home, MOVED.replace("file:///old/tracking/artifacts",
                                                  "mlflow-artifacts:/7"))),
    "artifacts gone": ("tracking", NOTE, "the artifacts of older runs are gone", "move them back",
                       lambda home: None),
    "schema of an older MLflow": ("tracking", PROBLEM, "0584bdc529eb of an older MLflow",
                                  "mlflow db upgrade", lambda home: in_store(home, OLD_SCHEMA)),
    "schema of a newer MLflow": ("tracking", PROBLEM, "ffffffffffff is of a newer MLflow",
                                 "in the release that made it",
                                 lambda home: in_store(home, NEW_SCHEMA)),
    "store is a folder": ("tracking", PROBLEM, "is a folder, no file", "move it away",
                          lambda home: replace(home / DATABASE, "folder")),
    "store is a pipe": ("tracking", PROBLEM, "is a pipe, no file", "move it away",
                        lambda home: replace(home / DATABASE, "pipe")),
    "store is no database": ("tracking", PROBLEM, "file is not a database", "move it away",
                             lambda home: (home / DATABASE).write_bytes(b"words, words, " * 999)),
    "store of another program": ("tracking", PROBLEM, "another program's database", "move it away",
                                 lambda home: in_store(home, "DROP TABLE alembic_version")),
    "no store yet": ("tracking", OK, "the first run makes it", "",
                     lambda home: shutil.rmtree(home / "tracking")),
    # what serves
    "nothing deployed": ("deployment", NOTE, "nothing is deployed", "make run",
                         lambda home: shutil.rmtree(home / "deployment")),
    "deployment is broken JSON": ("deployment", PROBLEM, "deployment.json cannot be read",
                                  "rollback",
                                  lambda home: (home / DEPLOYED).write_text("{")),
    "deployment is a folder": ("deployment", PROBLEM, "deployment.json is a folder",
                               "or nothing",
                               lambda home: replace(home / DEPLOYED, "folder")),
    "no bundle": ("deployment", PROBLEM, "model.bin and card.json not in", "pull green-duration:1",
                  lambda home: shutil.rmtree(home / BUNDLE)),
    "no model.bin": ("deployment", PROBLEM, "champion green-duration:1: model.bin not in", "pull",
                     lambda home: (home / BUNDLE / "model.bin").unlink()),
    "model.bin changed": ("deployment", PROBLEM, "damaged or exchanged", "pull",
                          lambda home: (home / BUNDLE / "model.bin").write_bytes(b"x")),
    "card is broken JSON": ("deployment", PROBLEM, "card.json cannot be read", "pull",
                            lambda home: (home / BUNDLE / "card.json").write_text("{")),
    # the log
    "log is a folder": ("log", PROBLEM, "is a folder, no file", "LOG_URL",
                        lambda home: replace(home / LOG, "folder")),
    "log is no database": ("log", PROBLEM, "file is not a database", "move it away",
                           lambda home: (home / LOG).write_bytes(b"words, words, " * 999)),
    "log of a newer release": ("log", PROBLEM, "the log has schema 99", "LOG_URL",
                               lambda home: in_log(home, "UPDATE log_schema SET version = 99")),
    "log of an older release": ("log", NOTE, "the log has schema 1", "brings it forward",
                                lambda home: in_log(home, "UPDATE log_schema SET version = 1")),
    "no log yet": ("log", OK, "the service makes", "", lambda home: (home / LOG).unlink()),
    "an empty log": ("log", OK, "there is none yet", "",
                     lambda home: (home / LOG).write_bytes(b"")),
    "an empty store": ("tracking", OK, "there is none yet", "",
                       lambda home: (home / DATABASE).write_bytes(b"")),
    "the note of the place is empty": ("tracking", OK, "answers", "",
                                       lambda home: (home / NOTE_OF_PLACE).write_text("")),
    # folders
    "runs is a file": ("runs", PROBLEM, "is a file, a folder is needed", "TAXI_HOME",
                       lambda home: (home / "runs").write_text("")),
    "models is a pipe": ("models", PROBLEM, "is a pipe, a folder is needed", "MODELS_DIR",
                         lambda home: replace(home / "models", "pipe")),
    "home is a file": ("home", PROBLEM, "it must be a folder, and that is a file", "settings",
                       lambda home: replace(home, "file")),
    "home is missing": ("home", OK, "it is made when it is needed", "",
                        lambda home: shutil.rmtree(home)),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_named_with_its_remedy(home, state):
    name, level, found, remedy, spoil = STATES[state]
    spoil(home)
    findings = said(name)
    matching = [f for f in findings if found in f.found]
    assert [f.level for f in matching] == [level], findings
    assert remedy in matching[0].remedy
    assert bool(matching[0].remedy) == (level != OK)
    assert "\n" not in matching[0].line


def test_a_good_home_has_no_finding_but_what_is_well(home):
    (home / "tracking" / "artifacts").mkdir()
    named = ("tracking", "deployment", "log", "home", "data", "runs", "models", "settings", "locks",
             "clock", "kernel", "disk", *SAME)  # fmt: skip
    findings = [finding for name in named for finding in said(name)]
    assert {finding.level for finding in findings} == {OK}, findings
    assert "digest checked, no signature asked for" in said("deployment")[0].found


def test_models_of_others_are_no_sign_that_the_experiment_is_lost(home):
    in_store(home, "DELETE FROM experiments", "UPDATE registered_models SET name = 'churn'")
    assert [finding.level for finding in said("tracking")] == [OK]


def test_locked_store_is_named_with_who_locks_it(home):
    with closing(sqlite3.connect(home / DATABASE, isolation_level=None)) as store:
        store.execute("PRAGMA locking_mode = EXCLUSIVE")
        store.execute("BEGIN EXCLUSIVE")
        (found,) = said("locks")
    assert found.level == NOTE and "mlflow.db is held by process" in found.found


def test_store_that_is_in_use_is_read_as_it_is_now(home):
    with closing(sqlite3.connect(home / DATABASE)) as store:
        store.execute(DELETED)
        store.commit()  # it lies in the -wal alone
        assert [f.level for f in said("tracking") if "was deleted" in f.found] == [NOTE]


def test_unsigned_bundle_is_named_where_a_key_is_set(home, monkeypatch):
    monkeypatch.setenv("MODEL_SIGNING_KEY", "a secret")
    (found,) = said("deployment")
    assert found.level == PROBLEM
    assert "is not signed" in found.found and "MODEL_SIGNING_KEY" in found.remedy


def test_folder_without_permission_is_named_with_its_owner_command(home, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)
    (found,) = said("data")
    assert found.level == PROBLEM and "cannot be written: Permission denied" in found.found
    assert "chown" in found.remedy


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [(28, "the disk is full", "make clean"), (30, "mounted read-only", "mount it")],
)
def test_disk_that_takes_nothing_is_named(home, monkeypatch, number, words, remedy):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(places.os, "fsync", refuse)
    (found,) = said("runs")
    assert found.level == PROBLEM and words in found.found and remedy in found.remedy


def test_little_room_is_named(home, monkeypatch):
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    assert {f.level for f in said("disk")} == {PROBLEM}
    assert all("1 MB free" in f.found and "make clean" in f.remedy for f in said("disk"))


# --- settings ---------------------------------------------------------------------------------


def test_every_setting_is_looked_at_and_no_other():
    looked_at = set(settings.readers()) | set(settings.ELSEWHERE)
    assert looked_at == settings_read() | run_settings()
    assert set(settings.ELSEWHERE.values()) <= {check.name for check in checks(docker=False)}


BAD = {
    "TRAIN_DATA": "2021-13", "VAL_DATA": "2020-01", "MODEL": "CATBOOST", "SERVICE": "uber",
    "DATA": "real", "ATLAS": "full", "AUTO_APPROVE": "never", "MAX_BAD_SHARE": "20%",
    "UTC_TIMES": "keep", "ENGINE": "spark", "DASK_SCHEDULER": "the rack",
    "BOOST_ROWS": "most", "DEVICE": "gpu",
    "SAMPLE_ROWS": "-1", "LOG_KEEP_DAYS": "a year", "LOG_MAX_MB": "1.5",
    "EXTRA_FEATURES": "/nonexistent.csv", "MODEL_SIGNING_KEY": "ed25519-public:short",
    "MODEL_PRIVATE_KEY": "ed25519-private:short",
    "NOTIFY_URLS": "nothing://", "PUBLIC_URL": "taxi.example", "PORT": "70000",
    "WORKERS": "0", "THREADS": "two", "MONITOR_ACCESS": "nobody", "MAX_BODY_MB": "16 MB",
    "CLIENT_CONNECTIONS": "-5", "BODY_SECONDS": "²", "MAX_RIDES": "9" * 5000,
    "MAX_EXPLAINED": "1e4", "MAX_FEEDBACK": "many", "ACCESS_LOG": "maybe", "WAIT_FOR_MODEL": "2",
    "TRAFFIC": "no", "API_KEYS": ",", "MODEL_PUBLIC_KEY": "ed25519-public:x",
}  # fmt: skip
FREE = {"API_KEY", "GIT_COMMIT", "HOST"}  # any text is one; HOST is looked up for the port


@pytest.mark.parametrize("name", BAD)
def test_bad_value_is_named(home, monkeypatch, name):
    monkeypatch.setenv(name, BAD[name])
    problems = [f for f in said("settings") if f.level == PROBLEM]
    assert [name in f.found for f in problems] == [True], problems
    assert problems[0].remedy == MEND


def test_every_setting_that_can_be_wrong_has_its_case():
    assert BAD.keys() | FREE == settings.readers().keys()


def test_keys_and_passwords_are_never_shown(home, monkeypatch):
    secret = "s3cret"
    for name in ("API_KEY", "API_KEYS", "MODEL_SIGNING_KEY", "MODEL_PRIVATE_KEY"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("NOTIFY_URLS", f"nothing://{secret}@host")
    monkeypatch.setenv("LOG_URL", f"postgresql://taxi:{secret}@127.0.0.1:{free_port()}/taxi")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{secret}@127.0.0.1:{free_port()}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{secret}@127.0.0.1:{free_port()}")
    findings = [f for n in ("settings", "log", "tracking", "proxy", "deployment") for f in said(n)]
    assert {f.level for f in findings} >= {PROBLEM}
    assert not [f for f in findings if secret in f.line]


# --- network ----------------------------------------------------------------------------------


@contextmanager
def a_server(answer: bytes | None):
    """Answers every connection with these bytes; None: takes it and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                kept.append(client)
                if answer is not None:
                    client.recv(10_000)
                    client.sendall(answer)
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        for client in kept:
            client.close()


def http(status: str, headers: str = "", body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}".encode()


def test_source_that_answers_is_well_whatever_it_says_of_the_file(home, monkeypatch):
    monkeypatch.setenv("DATA", "auto")
    for status in ("200 OK", "403 Forbidden", "404 Not Found"):
        with a_server(http(status)) as place:
            monkeypatch.setenv("TLC_URL", f"http://{place}")
            assert [f.level for f in said("months")] == [OK]


@pytest.mark.parametrize(("mode", "level"), [("auto", NOTE), ("tlc", PROBLEM)])
def test_source_that_is_away_is_named(home, monkeypatch, mode, level):
    monkeypatch.setenv("DATA", mode)
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{free_port()}")
    (found,) = said("months")
    assert found.level == level and "Connection refused" in found.found and found.remedy


@pytest.mark.parametrize(("year", "words"), [("2020", "ahead of"), ("2090", "behind")])
def test_clock_that_is_wrong_is_named_by_the_source(home, monkeypatch, year, words):
    monkeypatch.setenv("DATA", "auto")
    with a_server(http("200 OK", f"Date: Thu, 05 Mar {year} 10:00:00 GMT\r\n")) as place:
        monkeypatch.setenv("TLC_URL", f"http://{place}")
        clock = [f for f in said("months") if f.level == PROBLEM]
    assert [words in f.found and "set the clock" in f.remedy for f in clock] == [True]


def test_folder_of_months_that_is_missing_is_named(home, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("TLC_URL", str(tmp_path / "nowhere"))
    (found,) = said("months")
    assert found.level == PROBLEM and "does not exist" in found.found


def test_missing_keys_for_s3_are_named(home, monkeypatch):
    monkeypatch.setenv("DATA", "tlc")
    monkeypatch.setenv("TLC_URL", "s3://bucket/tlc")
    monkeypatch.setattr(network, "knows_s3_keys", lambda: False)

    def no_keys(*_):
        raise OSError("Unable to locate credentials")

    monkeypatch.setattr("taxi_duration.data.remote.check_layout", no_keys)
    (found,) = said("months")
    assert (found.level, found.found) == (PROBLEM, "there are no keys for s3://bucket/tlc")
    assert "AWS_ACCESS_KEY_ID" in found.remedy


@pytest.mark.parametrize(
    ("engine", "scheduler", "level", "words"),
    [
        ("", "", OK, "in one process"),
        ("local", "tcp://127.0.0.1:1", NOTE, "DASK_SCHEDULER is not asked"),
        ("dask", "", OK, "each of this machine's cores"),
        ("dask", "tcp://127.0.0.1:1", PROBLEM, "nobody listens at DASK_SCHEDULER=tcp://127.0.0.1:1"),
        ("dask", "the rack", PROBLEM, "DASK_SCHEDULER is 'the rack'"),
    ],
)  # fmt: skip
def test_cluster_that_is_named_is_knocked_at(home, monkeypatch, engine, scheduler, level, words):
    monkeypatch.setenv("ENGINE", engine)
    monkeypatch.setenv("DASK_SCHEDULER", scheduler)
    (found,) = said("cluster")
    assert found.level == level and words in found.found
    assert bool(found.remedy) == (level != OK)


def test_cluster_that_listens_is_well(home, monkeypatch):
    with a_server(http("200 OK")) as place:
        monkeypatch.setenv("ENGINE", "dask")
        monkeypatch.setenv("DASK_SCHEDULER", f"tcp://{place}")
        (found,) = said("cluster")
    assert (found.level, found.remedy) == (OK, "") and f"tcp://{place} listens" in found.found


def test_proxy_that_is_away_is_named(home, monkeypatch):
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    (found,) = said("proxy")
    assert found.level == PROBLEM and f"HTTPS_PROXY 127.0.0.1:{port}" in found.found
    assert "unset HTTPS_PROXY" in found.remedy


def test_mlflow_server_is_asked_for_the_experiment(home, monkeypatch):
    body = '{"experiment": {"lifecycle_stage": "deleted", "artifact_location": "s3://b/a"}}'
    monkeypatch.setattr(stores, "knows_s3_keys", lambda: False)
    with a_server(http("200 OK", body=body)) as place:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}")
        levels = {f.found.partition(",")[0]: f.level for f in said("tracking")}
    assert levels == {
        f"http://{place} answers": OK,
        "the experiment taxi-duration was deleted in MLflow's pages": NOTE,
        "artifacts go to s3://b/a": PROBLEM,
    }


def test_mlflow_server_that_takes_no_models_is_named(home, monkeypatch):
    with a_server(http("200 OK", body="2.9.2\n")) as place:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}")
        (found,) = (f for f in said("tracking") if f.level == PROBLEM)
    assert "is MLflow 2.9.2, which takes no model" in found.found and "update" in found.remedy


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://127.0.0.1:PORT", "does not answer: [Errno 111] Connection refused"),
        ("postgresql://me@127.0.0.1:PORT/mlflow", "does not answer"),
        ("htp://host:5000", "no address of a store"),
        ("127.0.0.1:5000", "no address of a store"),
        ("/data/mlruns", "a folder, in which MLflow keeps no runs any more"),
        ("http://host:port", "port"),
    ],
)
def test_mlflow_server_that_cannot_be_had_is_named(home, monkeypatch, uri, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("PORT", str(free_port())))
    (found,) = said("tracking")
    assert found.level == PROBLEM and words in found.found
    assert re.search("unset (it|MLFLOW_TRACKING_URI): runs then go to tracking/", found.remedy)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://taxi@127.0.0.1:PORT/taxi", "does not answer"),
        ("mysql://host/taxi", "no address of SQLite or PostgreSQL"),
        ("predictions.db", "no address of SQLite or PostgreSQL"),
    ],
)
def test_log_elsewhere_that_cannot_be_had_is_named(home, monkeypatch, url, words):
    monkeypatch.setenv("LOG_URL", url.replace("PORT", str(free_port())))
    (found,) = said("log")
    assert found.level == PROBLEM and words in found.found


# --- ports, locks, processes --------------------------------------------------------------------


def test_port_that_another_program_has_is_named_with_the_program(home, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        (found,) = said("port")
        assert found.level == PROBLEM and f"taken by process {os.getpid()} (" in found.found
        assert "PORT=" in found.remedy
        with pytest.raises(SettingError, match=f"^port {port} is taken by .*--port takes another"):
            next_free_port(port, 1)
        assert next_free_port(None, port) > port


def test_port_of_our_own_service_is_well(home, monkeypatch):
    state = json.dumps({"status": "ok", "model": None, "problems": []})
    with a_server(http("200 OK", body=state)) as place:
        monkeypatch.setenv("PORT", place.rpartition(":")[2])
        (found,) = said("port")
    assert (found.level, found.found.partition(": ")[2]) == (OK, "the service runs")


def test_host_that_is_not_this_machine_is_named(home, monkeypatch):
    monkeypatch.setenv("HOST", "192.0.2.1")
    (found,) = said("port")
    assert found.level == PROBLEM and "Cannot assign requested address" in found.found


def test_lock_that_is_held_is_named_with_who_holds_it(home):
    from filelock import FileLock

    with FileLock(home / "tracking" / ".lock"):
        (found,) = said("locks")
    assert found.level == NOTE and f"held by process {os.getpid()}" in found.found
    assert [f.level for f in said("locks")] == [OK]  # the file stays, and harms nobody


def test_pages_ports_that_are_taken_are_named(home, monkeypatch):
    monkeypatch.setattr("taxi_duration.doctor.ports.why_not", lambda *_: "is taken by another")
    for name in ("port mlflow", "port lab"):
        (found,) = examine([c for c in checks(False) if c.name == name], 60)
        assert found.level == NOTE and "takes the next one" in found.remedy


def test_programs_of_the_project_are_named_and_those_that_are_left_over(home, monkeypatch):
    def process(pid, cwd, *words):
        info = {"pid": pid, "cwd": cwd, "cmdline": list(words)}
        return SimpleNamespace(pid=pid, info=info)

    running = [
        process(11, str(PROJECT), "python", "pipeline.py", "auto"),
        process(12, "/elsewhere", "python", "pipeline.py"),
        process(13, "/gone (deleted)", "python", "-m", "serve"),
        process(14, None, "python", "other.py"),
        process(15, str(PROJECT), "python", "other.py"),
    ]
    monkeypatch.setattr("psutil.process_iter", lambda _: running)
    left, there = said("processes")
    assert (left.level, left.remedy) == (NOTE, "`kill 13`") and "serve (13)" in left.found
    assert (there.level, there.found) == (OK, "running: pipeline.py (11)")


# --- this Python --------------------------------------------------------------------------------


def test_packages_of_another_environment_are_named(home, monkeypatch, tmp_path):
    monkeypatch.setattr(machine.environment, "PROJECT_ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("scikit-learn==0.0.1 \\\n    --hash=sha256:1\n")
    (found,) = said("packages")
    assert found.level == PROBLEM and found.remedy == machine.REBUILD
    assert found.found.startswith("scikit-learn ") and found.found.endswith("instead of 0.0.1")


def test_environment_without_the_project_is_named(home, monkeypatch):
    def nothing(_):
        raise machine.metadata.PackageNotFoundError

    monkeypatch.setattr(machine.metadata, "requires", nothing)
    (found,) = said("packages")
    assert found.level == PROBLEM and sys.prefix in found.found and "make setup" in found.remedy


def test_python_that_is_too_old_is_named(home, monkeypatch):
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 1))
    (found,) = said("python")
    assert found.level == PROBLEM and "3.11 or newer is needed" in found.found


def test_walker_of_another_processor_is_named(home, monkeypatch, tmp_path):
    def refuse(_):
        raise ImportError("cannot open shared object file")

    monkeypatch.setattr(machine.importlib, "import_module", refuse)
    monkeypatch.setattr(machine.environment, "PACKAGE", tmp_path)
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("CC", "no-such-compiler")
    (none,) = said("compiler")
    assert none.level == NOTE and "no C compiler (no-such-compiler)" in none.found
    (tmp_path / "model" / "_walker.cpython-39-arm.so").touch()
    (other,) = said("compiler")
    assert other.level == NOTE and "built for another Python or processor" in other.found


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"argv": ["/gone/python"]}', "names /gone/python"), ("{", "cannot be read"),
     ('{"argv": []}', "cannot be read"), ("[]", "cannot be read")],
)  # fmt: skip
def test_kernel_that_cannot_start_is_named(home, monkeypatch, tmp_path, content, words):
    folder = tmp_path / "share" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(content)
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda _: [str(tmp_path / "share")])
    (found,) = said("kernel")
    assert found.level == PROBLEM and words in found.found and f"delete {folder}" in found.remedy


def test_little_memory_is_named_also_in_a_container(home, monkeypatch, tmp_path):
    (tmp_path / "max").write_text("500000000\n")
    (tmp_path / "now").write_text("400000000\n")
    group = (str(tmp_path / "max"), str(tmp_path / "now"))
    monkeypatch.setattr(machine, "CGROUPS", (group,))
    (found,) = said("memory")
    assert found.level == NOTE and found.found.startswith("100 MB free")


def test_clock_before_the_code_and_a_missing_zone_are_named(home, monkeypatch):
    monkeypatch.setattr(machine.time, "time", lambda: 0.0)
    assert "before this code was written" in said("clock")[0].found

    def unknown(name):
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(machine, "ZoneInfo", unknown)
    assert "time zone is not known" in said("clock")[0].found


DOCKER = {
    "runs": ("exit 0; ", OK, "Engine"),
    "down": ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", PROBLEM, "systemctl start"),
    "not allowed": ("echo 'permission denied while trying' >&2; exit 1", PROBLEM, "usermod"),
}


@pytest.mark.parametrize("kind", [*DOCKER, "missing"])
def test_docker_is_asked(home, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    body, level, words = DOCKER.get(kind, ("", PROBLEM, "setup_ec2.sh"))
    if kind != "missing":
        (tmp_path / "bin" / "docker").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / "docker").chmod(0o755)
    (found,) = said("docker")
    assert found.level == level and words in found.line


# --- the doctor itself ---------------------------------------------------------------------------


def test_what_hangs_is_a_finding_and_holds_up_nobody(home):
    never = threading.Event()
    hangs = Check("a disk", lambda _: [never.wait()], ("it hangs", "mend it"))  # type: ignore[list-item]
    well = Check("another", lambda name: [Finding(name, OK, "fine")])
    started = time.monotonic()
    first, second = examine([hangs, well], 0.2)
    assert time.monotonic() - started < 20  # it never ends by itself
    assert (first.level, first.found, first.remedy) == (
        PROBLEM, "no answer in 0.2 s: it hangs", "mend it"
    )  # fmt: skip
    assert second.found == "fine"
    never.set()


def test_slow_look_at_what_cannot_hang_is_no_problem(home):
    never = threading.Event()
    (found,) = examine([Check("settings", lambda _: [never.wait()])], 0.2)  # type: ignore[list-item]
    never.set()
    assert (found.level, found.found, found.remedy) == (
        NOTE, "no answer in 0.2 s", "try again when the machine has less to do"
    )  # fmt: skip


def test_what_nobody_thought_of_is_a_finding_and_no_traceback():
    def fails(_):
        raise RuntimeError("odd\nstate")

    (found,) = examine([Check("a thing", fails)])
    assert (found.level, found.found) == (PROBLEM, "cannot be looked at: odd state")


def test_servers_that_say_nothing_and_a_dead_disk_are_named_in_time(home, monkeypatch, tmp_path):
    with a_server(None) as place, stalled_disk(tmp_path / "dead"):
        monkeypatch.setenv("DATA", "auto")
        monkeypatch.setenv("TLC_URL", f"http://{place}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}")
        monkeypatch.setenv("LOG_URL", f"postgresql://taxi@{place}/taxi")
        monkeypatch.setenv("MODELS_DIR", str(tmp_path / "dead" / "models"))
        levels = {f.check: f for f in consult(seconds=4)}
    assert {levels[name].level for name in ("tracking", "log", "models", "deployment")} == {PROBLEM}
    assert levels["months"].level == NOTE
    assert "disk or network folder hangs" in levels["models"].found
    assert levels["data"].level == OK


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
            for path in [folder, *folder.rglob("*")]}  # fmt: skip


def test_nothing_is_written(home, monkeypatch):
    before = tree(home)
    assert not [name for name in before if name.endswith(("-wal", "-shm"))]
    consult(docker=True, seconds=60)
    assert tree(home) == before


@pytest.mark.parametrize("spoiled", [False, True])
def test_command_prints_lines_or_json_and_its_exit_code_tells(home, monkeypatch, spoiled):
    # Whatever else this machine lacks is not asked about here.
    few = [c for c in checks(docker=False) if c.name in ("deployment", "log", "settings")]
    monkeypatch.setattr("taxi_duration.doctor.doctor.checks", lambda docker: few)
    if spoiled:
        (home / BUNDLE / "model.bin").unlink()
    for words in (["doctor"], ["doctor", "--json"]):
        done = CliRunner().invoke(pipeline.cli, words, standalone_mode=False)
        assert done.exception is None
        assert done.return_value == (pipeline.EXIT_FAILED if spoiled else pipeline.EXIT_DONE)
    found = json.loads(done.stdout)
    assert [f["check"] for f in found] == ["settings", "deployment", "log"]
    assert all(f.keys() == {"check", "level", "found", "remedy"} for f in found)


# --- its page -----------------------------------------------------------------------------------

PAGE = Page(PROJECT / "docs" / "doctor.md")


def test_every_check_stands_on_its_page_and_no_other():
    told = {name for row in PAGE.rows("check") for name in INLINE.findall(row[0])}
    assert told == {check.name for check in checks(docker=True)}


def test_every_question_names_lines_that_exist_or_a_test():
    names = {check.name for check in checks(docker=True)}
    for question, _, by in PAGE.rows("question"):
        lines, files = INLINE.findall(by), re.findall(r"tests/\S+\.py", by)
        assert lines or files, question
        assert set(lines) <= names, question
        assert all((PROJECT / file).is_file() for file in files), question


def test_every_line_of_the_doctor_is_provoked_above():
    text = Path(__file__).read_text()
    asked = set(re.findall(r'said\("([a-z ]+)"\)', text)) | {row[0] for row in STATES.values()}
    asked |= set(re.findall(r'levels\["([a-z]+)"\]', text))
    asked |= {"port mlflow", "port lab"}
    assert {check.name for check in checks(docker=True)} - asked == set(SAME)


def test_settings_of_a_run_are_checked_also_where_no_service_is_installed(monkeypatch):
    """As in the workshop's image, which has the pipeline alone."""
    monkeypatch.setitem(sys.modules, "serve", None)
    monkeypatch.setenv("SAMPLE_ROWS", "4000")
    settings.check_settings_of_a_run()
    monkeypatch.setenv("SAMPLE_ROWS", "few")
    with pytest.raises(SettingError, match="SAMPLE_ROWS"):
        settings.check_settings_of_a_run()


def test_doctor_looks_at_all_but_the_service_where_that_is_not_installed(monkeypatch):
    whole = {check.name for check in checks(docker=False)}
    monkeypatch.setitem(sys.modules, "serve", None)
    monkeypatch.setattr(psutil, "process_iter", lambda _: [])  # a service of the user's may run
    found = consult(seconds=60)
    assert whole - {finding.check for finding in found} == {"port", "metrics"}
    assert not [finding.found for finding in found if "serve" in finding.found]
