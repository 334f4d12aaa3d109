"""One warm process, forked for every notebook and once for the chain's own work.

A chain so imports its libraries once. Importing pandas, MLflow and seaborn anew in every process
would cost more than the work of most notebooks.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from typing import Any

from taxi_duration import environment
from taxi_duration.training.openmp import bound_spinning


def start_warming() -> None:
    """Start the warm process; it imports while the caller goes on.

    Raises:
        SettingError: as `environment.temporary_folder`.
    """
    from multiprocessing import forkserver

    environment.temporary_folder()  # in which it listens
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    bound_spinning()
    # The kernels' debugger, which is loaded here, warns of every Python that starts as usual.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    # OpenBLAS spins too, and nothing here multiplies matrices large enough to want two cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    forkserver.set_forkserver_preload(["taxi_duration.chain.preloaded"])
    forkserver.ensure_running()


def end_warming() -> None:
    """End the warm process in the middle of its imports, when what it was to do is refused."""
    import psutil

    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any("multiprocessing.forkserver" in word for word in child.cmdline()):
                child.kill()


def call_warm(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process forked from the warm one and return its result."""
    try:
        return _worker().submit(function, *args).result()
    except BrokenProcessPool:  # it was killed; the next call gets another
        _worker.cache_clear()
        raise


def begin_warm(function: Callable[..., Any], *args: Any) -> None:
    """Have a function called there and go on; calls that follow wait for it.

    What it returns or raises is not asked for: it may only prepare what they would do themselves.
    """
    try:
        _worker().submit(function, *args)
    except BrokenProcessPool:  # it was killed while it had nothing to do
        _worker.cache_clear()


@cache
def _worker() -> ProcessPoolExecutor:
    """One process for all calls: it connects to MLflow's store once."""
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(1, mp_context=context, initializer=end_with_caller)


def end_with_caller() -> None:
    """End this forked process when the one that asked for it is gone, even by `kill -9`.

    The warm process does not see to that: it lives as long as anyone it forked.
    """
    caller = multiprocessing.parent_process()

    def wait() -> None:
        if caller is not None:
            caller.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-caller", daemon=True).start()
