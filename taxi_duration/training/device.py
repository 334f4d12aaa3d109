"""What XGBoost computes on: this machine's processor, or a GPU when `DEVICE=cuda` asks for one.

Looked at before anything is fitted: XGBoost itself would go on without a GPU, many times slower.
"""

from __future__ import annotations

import ctypes
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.errors import SettingError

NO_GPU = "mend the driver (`nvidia-smi` shows the GPUs it sees), or DEVICE=cpu"
NO_CUDA = (  # the lock takes the build without CUDA, a tenth of the size
    "`.venv/bin/uv pip uninstall --python .venv xgboost-cpu` and "
    "`.venv/bin/uv pip install --python .venv xgboost=={version}`, or DEVICE=cpu"
)


def check_device() -> None:
    """Make sure that XGBoost can compute where `DEVICE` says.

    Raises:
        SettingError: another word, or there is no GPU, or no XGBoost that can use it.
    """
    if environment.device() == "cpu":
        return
    info = build_info()
    if not info.get("USE_CUDA"):
        version = ".".join(map(str, info.get("version", ["VERSION"])))
        raise SettingError(
            "DEVICE is 'cuda', and the installed XGBoost was built without CUDA: "
            + NO_CUDA.format(version=version)
        )
    if not visible_gpus():
        raise SettingError(f"DEVICE is 'cuda', and no NVIDIA GPU is to be seen: {NO_GPU}")


def build_info() -> dict[str, Any]:
    """Return what XGBoost's library says of itself, such as USE_CUDA; {} when there is none.

    `xgboost.build_info()` says the same, after seconds of importing.
    """
    found = find_spec("xgboost")
    for folder in (found and found.submodule_search_locations) or []:
        for path in Path(folder, "lib").glob("libxgboost.*"):
            library, text = ctypes.CDLL(str(path)), ctypes.c_char_p()
            version = [ctypes.c_int() for _ in range(3)]
            library.XGBuildInfo(ctypes.byref(text))
            library.XGBoostVersion(*map(ctypes.byref, version))
            return {**json.loads(text.value or b"{}"), "version": [n.value for n in version]}
    return {}


def visible_gpus() -> int:
    """Return how many GPUs NVIDIA's driver shows this process; CUDA_VISIBLE_DEVICES hides some."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    number = ctypes.c_int()
    is_well = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(number)) == 0
    return number.value if is_well else 0
