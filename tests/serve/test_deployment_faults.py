"""The whole service on bundles that do not end and disks that do not answer."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import ask, service_process
from service_samples import RIDE
from stalled_disk import stalled_disk

from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.files import read_json
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.model.bundle import write_card

pytestmark = pytest.mark.long

PATIENCE = 20.0


@contextmanager
def pipe_as_model(folder: Path) -> Iterator[None]:
    (folder / "model.bin").unlink()
    os.mkfifo(folder / "model.bin")
    yield


@contextmanager
def on_a_stalled_disk(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder)
    with stalled_disk(folder):
        yield


def version_three(registered: dict[int, Version]) -> Version:
    """A good one: version 1 under another number."""
    shutil.copytree(bundle_folder("green-duration", 1), bundle_folder("green-duration", 3))
    folder = bundle_folder("green-duration", 3)
    return Version.of(write_card(folder, {**read_json(folder / "card.json"), "version": 3}, None))


def wait(reached: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Return how long it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() < began + seconds
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("fault", "said"),
    [(pipe_as_model, "is a pipe, no file"), (on_a_stalled_disk, "could not be read within")],
)
def test_deployment_that_does_not_end_costs_nothing(home, registered, tmp_path, fault, said):
    third = version_three(registered)
    deploy_champion(registered[1], "first")

    def serves(model: str) -> bool:
        return all(
            json.loads(ask(f"{address}/predict", RIDE)[1])["model"] == model for _ in range(6)
        )

    def trouble() -> str:
        found: list[Any] = [json.loads(ask(f"{address}/model")[1])["trouble"] for _ in range(4)]
        return " ".join(map(str, found))

    with fault(bundle_folder("green-duration", 2)):
        with service_process(tmp_path, WORKERS="2") as address:
            deploy_champion(registered[2], "bad")
            wait(lambda: said in trouble())
            assert serves("green-duration:1")
            assert ask(f"{address}/ready")[0] == 200
            assert "taxi_deployment_refused 1.0" in ask(f"{address}/metrics")[1]
            deploy_champion(third, "good")
            wait(lambda: serves("green-duration:3"), 4)  # two seconds, and what a busy machine adds
            deploy_champion(registered[2], "bad again")
            time.sleep(1)
            began = time.monotonic()
        assert time.monotonic() - began < 8  # it took twenty


def test_metrics_outlive_their_folder(home, registered, tmp_path):
    deploy_champion(registered[1], "first")
    folder = tmp_path / "metrics"
    with service_process(tmp_path, WORKERS="1", PROMETHEUS_MULTIPROC_DIR=str(folder)) as address:
        ask(f"{address}/predict", RIDE)
        shutil.rmtree(folder)
        status, text = ask(f"{address}/metrics")
        assert (status, "taxi_log_writable 1.0" in text) == (200, True)
        assert ask(f"{address}/predict", RIDE)[0] == 200
