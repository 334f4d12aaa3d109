"""The project and its home in a folder with a space, an accent and signs that addresses use."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from clones import clean_environment, clone, give_venv, shell
from commands import PROJECT
from servers import answers, ask, free_port
from sqlalchemy import create_engine, make_url

from taxi_duration import environment
from taxi_duration.live.prediction_log import open_log
from taxi_duration.registry import tracking

ODD = "my projects, é #1 100% %41?x"
CLONE = "my projects/é #1"


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / ODD / "home"))
    return tmp_path / ODD / "home"


def test_address_of_a_database_names_the_file_itself(tmp_path):
    path = tmp_path / ODD / "x.db"
    path.parent.mkdir()
    address = environment.sqlite_url(path)
    assert make_url(address).database == str(path)
    assert not make_url(address).query
    with create_engine(address).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE here (a)")
    assert path.exists()


@pytest.mark.parametrize("plain", ["/home/me/taxi/x.db", "/home/me/my taxi é#1/100% x.db"])
def test_address_is_the_plain_path_where_that_is_enough(plain):
    assert environment.sqlite_url(Path(plain)) == f"sqlite:///{plain}"


def test_log_and_its_archive_lie_at_home(odd):
    log = open_log()
    log.counts()
    log.close()
    assert (odd / "data" / "live" / "predictions.db").is_file()
    assert environment.log_archive(environment.log_url()) == (
        odd / "data" / "live" / "predictions-archive"
    )


@pytest.mark.slow
def test_mlflow_keeps_runs_and_files_at_home_and_follows_a_move(odd, tmp_path, monkeypatch):
    note = tmp_path / "note.txt"
    note.write_text("here")
    run = tracking.start_run(client := tracking.connect(), "a run", {})
    client.log_artifact(run, str(note))
    moved = tmp_path / "moved é#2 %" / "home"
    shutil.copytree(odd, moved)
    shutil.rmtree(odd)
    monkeypatch.setenv("TAXI_HOME", str(moved))
    client = tracking.connect()
    (tmp_path / "got").mkdir()
    got = client.download_artifacts(run, note.name, str(tmp_path / "got"))
    assert Path(got).read_text() == "here"
    assert not odd.exists()


@pytest.mark.slow
def test_store_that_was_moved_without_its_note_is_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "old é"))
    run = tracking.start_run(tracking.connect(), "a run", {})
    shutil.copytree(tmp_path / "old é" / "tracking", tmp_path / "new #" / "tracking")
    (tmp_path / "new #" / "tracking" / environment.LOCATION_FILE).unlink()
    shutil.rmtree(tmp_path / "old é")
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "new #"))
    address = tracking.connect().get_run(run).info.artifact_uri
    assert address.startswith((tmp_path / "new #" / "tracking" / "artifacts").as_uri())


def test_recipes_name_no_path_that_a_shell_would_take_apart():
    text = (PROJECT / "Makefile").read_text()
    assert "$(CURDIR)" not in text.replace('"$(CURDIR)', "")
    unit = (PROJECT / "ops/systemd/taxi-auto.service").read_text()
    # One line to change where the project lies elsewhere; it is taken as it stands.
    assert unit.count("/home/ubuntu/taxi-duration") == 1


@pytest.mark.long
def test_clone_in_an_odd_folder_is_set_up_trains_and_serves(tmp_path, uv_cache):
    folder = clone(tmp_path / CLONE)
    give_venv(folder)
    small = {"DATA": "sample", "SAMPLE_ROWS": "4000", "MODEL": "LR"}
    port = str(free_port())
    settings = clean_environment(folder, uv_cache, **small, PORT=port)
    try:
        shell("make setup BYTECODE=", folder, settings)
        assert "registered green-duration:1 (champion)" in shell("make run", folder, settings)
        assert "green-duration:1" in shell(
            ".venv/bin/python pipeline.py doctor || true", folder, settings
        )
        shell(".venv/bin/python pipeline.py pull green-duration:1 --to ../pulled", folder, settings)
        service = subprocess.Popen(["make", "serve"], cwd=folder, env=settings,
                                   start_new_session=True)  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            while not answers(f"{address}/ready"):
                assert service.poll() is None
            ride = {"PULocationID": 74, "DOLocationID": 75, "trip_distance": 2}
            assert ask(f"{address}/predict", ride)[0] == 200
        finally:
            subprocess.run(["kill", "--", f"-{service.pid}"], check=False)
            service.wait(timeout=60)
        with closing(sqlite3.connect(folder / "data" / "live" / "predictions.db")) as log:
            assert log.execute("SELECT count(*) FROM predictions").fetchone() == (1,)
        changed = shell(f"git -C {shlex.quote(str(folder))} status --porcelain", folder, settings)
        assert changed == ""
        assert {path.name for path in (tmp_path / "my projects").iterdir()} == {
            folder.name, f"{folder.name}-home", "pulled"
        }  # fmt: skip
    finally:
        shutil.rmtree(folder / ".venv")
