"""The service while one of its folders has no room or may not be written."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from faulty_service import Place, missing, riding
from servers import ask, service_process
from service_samples import RIDE
from truth_sets import feedback_rows, log_rows, told_rides

from taxi_duration import environment
from taxi_duration.errors import LogError
from taxi_duration.live import log_archive
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.live.prediction_log import PredictionLog, open_log

pytestmark = [pytest.mark.long, pytest.mark.faults]


def mount(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk in place of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """As a folder is mounted read-only anew: files that are open stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def deployed(home, registered) -> None:
    deploy_champion(registered[1], "first")


def test_spool_without_room_is_said_and_outlived(deployed, home, tmp_path, reliability):
    spool = home / "data" / "live" / "spool"
    with disk(spool, "2m"), service_process(tmp_path, WORKERS="2") as address:
        place = Place(address)
        with riding(place) as client:
            with full(spool):
                place.wait("full")
                assert client.unlogged > 0
            place.wait(None)
        assert missing(client) == []
    reliability("disk of the spool full", 1, place.acknowledged, 0, place.back_after)


def test_metrics_without_room_cost_no_ride(deployed, tmp_path, reliability):
    metrics = tmp_path / "metrics"
    with (
        disk(metrics, "2m"),
        service_process(tmp_path, WORKERS="2", PROMETHEUS_MULTIPROC_DIR=str(metrics)) as address,
    ):
        place = Place(address)
        (service,) = {psutil.Process(int(file.stem.split("_")[1])).ppid()
                      for file in metrics.glob("counter_*")} - {os.getpid()}  # fmt: skip
        with riding(place, breaks=True) as client, full(metrics):
            psutil.Process(service).children()[0].kill()
            time.sleep(2)
            for path in ("/nothing", "/zones", "/reach?PULocationID=10", "/monitor/data") * 4:
                assert ask(address + path)[0] < 500
        assert len(client.broken) <= 1  # the ride that the killed worker was at
        assert missing(client) == []
        assert "not shared from now on" in (tmp_path / "serve.log").read_text()
    reliability("disk of the metrics full, a worker killed", 1, place.acknowledged, 0, None)


@pytest.mark.parametrize("which", ["live", "live/spool"])
def test_folder_mounted_read_only_is_said_and_written_again_when_it_may(
    deployed, home, tmp_path, reliability, which
):
    folder = home / "data" / which
    with service_process(tmp_path, WORKERS="2") as address:
        place = Place(address)
        with riding(place) as client:
            with read_only(folder):
                place.wait("may not be written any more")
            place.wait(None)
        assert missing(client) == []
    what = f"{folder.name}/ mounted read-only"
    reliability(what, 1, place.acknowledged, 0, place.back_after)


def test_service_that_starts_on_a_read_only_folder_says_so_and_mends(deployed, home, start):
    with read_only(home / "data"):
        service = start(WORKERS="2")
        place = Place(f"http://127.0.0.1:{service.port}")
        place.wait("Read-only file system")
        assert json.loads(ask(f"{place.address}/predict", RIDE)[1])["logged"] is False
    place.wait(None)
    with riding(place) as client:
        pass
    assert client.unlogged == 0
    assert missing(client) == []


def of_all(log: PredictionLog) -> dict[str, tuple[object, ...]]:
    """What no archiving may change; it rounds minutes that were answered."""
    names = ("pickup_at", "PULocationID", "DOLocationID", "asked_at", "true_duration")
    return {row["prediction_id"]: tuple(row[name] for name in names) for row in log.answered()}


def test_archive_without_room_in_the_middle_of_a_month_loses_no_ride(tmp_path, monkeypatch):
    """Its disk takes some files and then no more; rides and truths are all in log or archive."""
    monkeypatch.setattr(log_archive, "PART_RIDES", 500)
    url = f"sqlite:///{tmp_path}/live/x.db"
    archive = environment.log_archive(url)
    with disk(archive, "64k"), closing(open_log(url)) as log:
        rides = told_rides(days=5, a_day=800)
        log.add(log_rows(rides))
        log.add_feedback(feedback_rows(rides.iloc[:2000]))
        before = of_all(log)
        with pytest.raises(LogError, match="No space left"):
            log.archive(1, 0)
        assert 0 < len(list(archive.glob("*/*.parquet"))) < 8
        assert not list(archive.glob("*/.*"))
        assert of_all(log) == before
        mount("-o", "remount,size=4m", archive)
        assert log.archive(1, 0).rides > 0
        assert of_all(log) == before
