"""`DEVICE=cuda` is passed on where XGBoost can use a GPU, and refused at once where it cannot.

A stand-in says what a build with CUDA says. What is learned on a GPU is held where there is one.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from taxi_duration.errors import SettingError
from taxi_duration.training import device
from taxi_duration.training.boosting import xgb_parameters
from taxi_duration.training.boosting_engine import learn_booster
from taxi_duration.training.tree_packing import from_xgboost

CPU_BUILD, GPU_BUILD = {"USE_CUDA": False, "version": [3, 2, 0]}, {"USE_CUDA": True}


@pytest.fixture
def machine(monkeypatch):
    """Says what is installed and what the driver sees; asks for cuda."""

    def has(build: dict[str, object], gpus: int) -> None:
        monkeypatch.setenv("DEVICE", "cuda")
        monkeypatch.setattr(device, "build_info", lambda: build)
        monkeypatch.setattr(device, "visible_gpus", lambda: gpus)

    return has


def test_a_gpu_and_a_build_with_cuda_are_well(machine):
    machine(GPU_BUILD, 1)
    device.check_device()


@pytest.mark.parametrize("build", [CPU_BUILD, {}])
def test_a_build_without_cuda_is_refused_with_the_remedy(machine, build):
    machine(build, 1)
    with pytest.raises(SettingError, match=r"DEVICE is 'cuda'.*built without CUDA.*DEVICE=cpu"):
        device.check_device()


def test_the_remedy_names_the_version_that_is_installed(machine):
    machine(CPU_BUILD, 1)
    with pytest.raises(SettingError, match=r"uninstall.*xgboost-cpu.*install.*xgboost==3.2.0`"):
        device.check_device()


def test_no_gpu_is_refused_with_the_remedy(machine):
    machine(GPU_BUILD, 0)
    with pytest.raises(SettingError, match=r"no NVIDIA GPU is to be seen.*nvidia-smi.*DEVICE=cpu"):
        device.check_device()


def test_without_the_setting_nothing_is_looked_at(monkeypatch):
    for name in ("build_info", "visible_gpus"):
        monkeypatch.setattr(device, name, lambda: pytest.fail("looked at"))
    device.check_device()


def test_the_library_says_of_itself_what_xgboost_says():
    import xgboost

    said, ours = xgboost.build_info(), device.build_info()
    said.pop("libxgboost")
    version = ".".join(map(str, ours.pop("version")))
    assert (ours, version) == (said, xgboost.__version__)


def driver(gpus: int, said: int = 0, counted: int = 0) -> SimpleNamespace:
    """NVIDIA's, with so many GPUs and what its two calls return."""

    def count(number) -> int:
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = gpus
        return counted

    return SimpleNamespace(cuInit=lambda flags: said, cuDeviceGetCount=count)


@pytest.mark.parametrize(
    ("there", "gpus"),
    [(driver(2), 2), (driver(0), 0), (driver(2, said=100), 0), (driver(2, counted=3), 0),
     (None, 0)],
)  # fmt: skip
def test_gpus_are_counted_by_the_driver(monkeypatch, there, gpus):
    def load(name: str) -> SimpleNamespace:
        if there is None:
            raise OSError(f"{name}: cannot open shared object file")
        return there

    monkeypatch.setattr(device.ctypes, "CDLL", load)
    assert device.visible_gpus() == gpus


@pytest.mark.skipif(
    not (device.build_info().get("USE_CUDA") and device.visible_gpus()),
    reason="needs a GPU, and an XGBoost that was built with CUDA",
)
def test_on_a_gpu_the_same_is_learned(monkeypatch):
    rng = np.random.default_rng(4)
    rows = rng.gamma(2.0, 2.0, (20_000, 4)).astype("float32")
    minutes = (5 + 2 * rows[:, 0] + rows[:, 1] * rows[:, 2]).astype("float32")
    rows[rng.random(len(rows)) < 0.1, 3] = np.nan
    # What is drawn by chance is drawn otherwise on a GPU, and weighs in so few trees and features.
    every = dict.fromkeys(("subsample", "colsample_bytree", "colsample_bynode"), 1)
    parameters = {**xgb_parameters(), **every, "rounds": 60, "monotone_constraints": (1, 0, 0, 0)}

    def answers(of: str) -> np.ndarray:
        monkeypatch.setenv("DEVICE", of)
        booster = learn_booster(rows, minutes, None, parameters, seed=0, threads=2)
        return from_xgboost(booster).predict(rows)  # walked as a service does, without a GPU

    here, there = answers("cpu"), answers("cuda")
    assert np.array_equal(there, answers("cuda"))
    off = [float(np.sqrt(np.mean((some - minutes) ** 2))) for some in (here, there)]
    assert off[1] == pytest.approx(off[0], rel=0.03)
    assert np.mean(np.abs(here - there)) < off[0]
