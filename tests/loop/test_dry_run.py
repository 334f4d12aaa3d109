"""A dry run says what the turn would say, and leaves the whole home as it was."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import time
from pathlib import Path

import pytest

import pipeline
from taxi_duration import environment
from taxi_duration.data.sources import fetch_month
from taxi_duration.domain.months import Month
from taxi_duration.domain.version import Version
from taxi_duration.errors import ContentError
from taxi_duration.live.deployment import deploy_champion, read_deployment, set_challenger
from taxi_duration.live.log_engine import read_only_address
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.dry_run import dry_run
from taxi_duration.loop.pausing import pause
from taxi_duration.loop.state import State, write_state
from taxi_duration.loop.turn import STEPS
from taxi_duration.model.bundle import load_bundle, load_card, save_bundle

NAME = "green-duration"


def digest(home: Path) -> dict[str, tuple[str, int]]:
    """Every file of a home with its bytes and its time."""
    return {
        str(path.relative_to(home)): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns
        )
        for path in sorted(home.rglob("*")) if path.is_file()
    }  # fmt: skip


@pytest.fixture
def first(moved_home) -> Version:
    """The champion, a weak linear model, with a ride in the log that has its truth."""
    champion = read_deployment().champion
    row = {
        "prediction_id": "a", "ride_id": None, "asked_at": time.time() - 60, "PULocationID": 74,
        "DOLocationID": 75, "pickup_at": "2021-03-01T08:00:00", "trip_distance": 1.0,
        "duration": 8.0, "p10": 5.0, "p50": 8.0, "p90": 12.0, "support": 3,
        "used_distance": True, "model": champion.ref, "model_sha256": champion.sha256,
        "arm": "champion", "latency_ms": 1.0,
    }  # fmt: skip
    log = open_log()
    log.add([row])
    log.add_feedback([{"prediction_id": "a", "duration": 9.0}])
    log.close()
    return champion


@pytest.fixture
def second(first, fitted) -> Version:
    """Version 2: trees."""
    card = {**load_card(first.folder), "version": 2, "model_kind": "XGB"}
    card = save_bundle(environment.models_dir() / NAME / "2", fitted("XGB"), card, None)
    return Version.of(card)


def state_of(stage: str, first: Version, second: Version) -> State:
    return State(
        stage, serial=4, since=time.time(), month="2021-03", window=1, challenger=second,
        champion=first, why="nearer", ab_share=0.2 if stage == "ab" else 0.0,
    )  # fmt: skip


WOULD = {
    "idle": "judge|train XGB|retrain on the months before",
    "train": "train XGB: on 2021-02, to be judged on 2021-03",
    "gate": f"judge {NAME}:2 against {NAME}:1 on 2021-03",
    "refit": f"fit {NAME}:2 again, on 2021-02",
    "start_shadow": f"shadow {NAME}:2",
    "shadow": f"wait: {NAME}:2 is being tested",
    "start_ab": f"A/B-test {NAME}:2",
    "ab": f"wait: {NAME}:2 is being tested",
    "promote": f"promote {NAME}:2",
    "drop": f"drop {NAME}:2: nearer",
    "roll_back": f"roll back {NAME}:1 to {NAME}:2",
    "baking": f"wait: {NAME}:1 is baking",
    "end_baking": f"baked {NAME}:1",
}


def test_every_stage_is_tried():
    assert WOULD.keys() == STEPS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("stage", WOULD)
def test_every_stage_says_what_comes_and_changes_no_byte(moved_home, first, second, stage):
    if stage in ("shadow", "start_ab", "promote", "drop"):
        set_challenger(second, "test", shadow=True)
    if stage == "ab":
        set_challenger(second, "test", ab_share=0.2, shadow=True)
    if stage in ("roll_back", "baking", "end_baking"):
        deploy_champion(second, "better")
        deploy_champion(first, "not so", bake=stage != "roll_back")
    write_state(State() if stage == "idle" else state_of(stage, first, second))
    before = digest(moved_home)
    said = dry_run().said
    assert digest(moved_home) == before
    assert any(words in line for line in said for words in WOULD[stage].split("|")), said


@pytest.fixture
def tlc(moved_home, first, tmp_path, monkeypatch) -> Path:
    """A source of real months, empty; the champion learned from real ones."""
    months = tmp_path / "tlc" / "trip-data"
    months.mkdir(parents=True)
    monkeypatch.setenv("TLC_URL", str(months.parent))
    monkeypatch.setenv("DATA", "tlc")
    model, card = load_bundle(first.folder)
    card = {**card, "version": 2, "data_source": "tlc"}
    real = Version.of(save_bundle(environment.models_dir() / NAME / "2", model, card, None))
    deploy_champion(real, "of real trips")
    return months


@pytest.mark.slow
def test_month_that_is_published_is_named_and_not_downloaded(tlc, tmp_path):
    (tlc / "green_tripdata_2021-02.parquet").write_bytes(b"PAR1 to learn from PAR1")
    assert dry_run().said[-1].startswith("nothing: no month after 2021-02 is published")
    (tlc / "green_tripdata_2021-03.parquet").write_bytes(b"PAR1 never read PAR1")
    before = digest(tmp_path)
    assert dry_run().said == ["fetch green_tripdata_2021-03.parquet, and decide then"]
    assert digest(tmp_path) == before


@pytest.mark.slow
def test_month_that_is_published_anew_is_named_and_not_downloaded(tlc, tmp_path):
    name = "green_tripdata_2021-01.parquet"
    (tlc / name).write_bytes(b"PAR1 the old bytes PAR1")
    fetch_month("green", Month(2021, 1))
    (tlc / name).write_bytes(b"PAR1 the new bytes, more of them PAR1")
    before = digest(tmp_path)
    assert dry_run().said == ["fetch green_tripdata_2021-01.v2.parquet, and decide then"]
    assert digest(tmp_path) == before


@pytest.mark.slow
def test_rows_on_their_way_into_the_log_stay_where_they_are(moved_home, first):
    spool = environment.live_dir() / "spool"
    spool.mkdir(exist_ok=True)
    (spool / "1-a.spool").write_bytes(b"not moved\n")
    before = digest(moved_home)
    dry_run()
    assert digest(moved_home) == before


@pytest.mark.slow
def test_bundle_that_is_gone_is_named_and_not_pulled(moved_home, first):
    (first.folder / "model.bin").unlink()
    before = digest(moved_home)
    assert dry_run().said == [f"pull {NAME}:1: its bundle is gone from disk"]
    assert digest(moved_home) == before


@pytest.mark.slow
def test_paused_loop_says_so_and_what_it_would_do(moved_home, first, monkeypatch, capsys):
    pause("street fair")
    before = digest(moved_home)
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "auto", "--dry-run"])
    assert pipeline.main() == 0
    assert digest(moved_home) == before
    said = capsys.readouterr().out
    assert "street fair" in said and "nothing was changed" in said
    assert len(said.splitlines()) >= 3


def test_nothing_deployed_is_said(home):
    home.mkdir()
    assert "nothing is deployed yet" in dry_run().said[0]
    assert digest(home) == {}


def test_turn_that_would_fail_fails_and_changes_nothing(home):
    deploy_champion(Version(NAME, 1, "1" * 64, "sample"), "the first")
    (home / "deployment" / "auto.json").write_text("{")
    before = digest(home)
    with pytest.raises(ContentError, match=r"auto\.json"):
        dry_run()
    assert digest(home) == before


def test_dry_run_is_about_a_turn_alone(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "auto", "--dry-run", "pause"])
    assert pipeline.main() == 2
    assert "--dry-run" in capsys.readouterr().err
    assert not (home / "deployment" / "paused.json").exists()


# --- the log, only read ----------------------------------------------------------------------


def rows(url: str, spool: Path) -> list[str]:
    log = open_log(url, spool)
    try:
        return [row["prediction_id"] for row in log.answered()]
    finally:
        log.close()


@pytest.mark.parametrize("writer", [False, True], ids=["alone", "beside a writer"])
def test_log_is_read_without_leaving_a_file(tmp_path, writer):
    path = tmp_path / "predictions.db"
    log = open_log(f"sqlite:///{path}", tmp_path / "spool")
    log.counts()
    log.close()
    connection = sqlite3.connect(path) if writer else None
    if connection:
        connection.execute("INSERT INTO spool_offsets VALUES ('x', 1)")
        connection.commit()  # waits in the WAL
    before = {name: found[0] for name, found in digest(tmp_path).items() if "-shm" not in name}
    assert rows(read_only_address(f"sqlite:///{path}"), tmp_path / "none") == []
    after = {name: found[0] for name, found in digest(tmp_path).items() if "-shm" not in name}
    assert after == before
    if connection:
        connection.close()


def test_log_that_is_not_there_is_empty_and_is_not_made(tmp_path):
    url = read_only_address(f"sqlite:///{tmp_path / 'none.db'}")
    assert rows(url, tmp_path / "spool") == []
    assert digest(tmp_path) == {}
    assert read_only_address(url) == url


def test_log_on_a_server_is_asked_for_a_session_that_only_reads():
    url = "postgresql+psycopg://taxi@host/taxi"
    assert read_only_address(url) == f"{url}?options=-cdefault_transaction_read_only%3Don"
    assert read_only_address(f"{url}?sslmode=require").startswith(f"{url}?sslmode=require&options=")
