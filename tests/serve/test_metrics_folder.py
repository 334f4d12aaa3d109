"""Folders of metrics: one for each service, and none of services that are gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from serve.core.metrics_folder import make_folder, remove_folder


def hold(parent, told):
    told.send(make_folder(parent))
    signal.pause()


def start(parent):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(parent, theirs))
    process.start()
    return process, Path(ours.recv())


def test_folder_of_a_killed_service_goes_with_the_next_start(tmp_path):
    killed, left = start(str(tmp_path))
    serving, kept = start(str(tmp_path))
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert left.exists()
    (tmp_path / "taxi-metrics-of-another-version").mkdir()  # without a lock: not ours to judge
    mine = make_folder(str(tmp_path))
    serving_still = kept.exists()
    serving.kill()
    serving.join()
    assert not left.exists()
    assert serving_still
    assert (tmp_path / "taxi-metrics-of-another-version").exists()
    remove_folder(mine)
    assert not Path(mine).exists()
