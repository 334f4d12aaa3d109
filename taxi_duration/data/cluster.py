"""A Dask cluster to work on: the one that is named, or this machine's own cores (docs/dask.md).

Dask is imported when it is first asked for: serving and `--help` do without it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, TypeVar

from taxi_duration import environment
from taxi_duration.errors import ClusterError
from taxi_duration.files import code_digest

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

CONNECT_S = 10  # for a scheduler to answer, as Dask's own clients wait
# So long there may be no worker: a nanny has a dead worker back within seconds.
ALONE_S = 60
POLL_S = 1.0
IN_FLIGHT = 2  # tasks for each thread: while one is worked on, the next is on its way
# What a worker must have as the client has it: results, or what is sent, would differ otherwise.
# A scheduler passes on what it is sent, and starts XGBoost's tracker.
ON_WORKERS = ("python", "dask", "distributed", "cloudpickle", "numpy", "pandas", "pyarrow",
              "scikit-learn", "scipy", "xgboost", "taxi-duration")  # fmt: skip
ON_SCHEDULER = ("python", "dask", "distributed", "xgboost")
# Settings that decide what a month is; the client's hold on every worker.
SENT = ("TLC_URL", "SAMPLE_ROWS", "UTC_TIMES", "MAX_BAD_SHARE")
NEW_RUN = "docs/dask.md says how to start one"

_lock = threading.Lock()
_ours: _Connection | None = None


@dataclass(frozen=True)
class Terms:
    """What a task relies on where it runs: settings by name, and the digest of our code."""

    settings: tuple[tuple[str, str], ...]
    code: str

    @classmethod
    def of_client(cls) -> Terms:
        """Return the terms of this process."""
        values = {name: environment.setting(name) or "" for name in SENT}
        if values["TLC_URL"]:  # a relative folder means another one elsewhere
            values["TLC_URL"] = environment.tlc_url()
        return cls(tuple(values.items()), _code_here())

    def hold(self) -> None:
        """Take over the settings.

        Raises:
            ClusterError: the code here is another.
        """
        if (problem := _other_code(self.code, {socket.gethostname(): _code_here()})) is not None:
            raise ClusterError(problem)
        os.environ.update(self.settings)


@dataclass(frozen=True)
class _Connection:
    """A process's client, the address that was named, and the cluster that was started for it."""

    process: int
    named: str | None
    client: Client
    cluster: LocalCluster | None


def map_in_order(task: Callable[[T], R], items: Iterable[tuple[T, int]]) -> Iterator[R]:
    """Yield what a task makes of each item on the cluster's workers, in the order of the items.

    A task whose worker dies is done again by another. Only as many are under way as keep the
    workers busy. Workers that share a data folder form a place; the others fetch for themselves.

    Args:
        items: each with a number; the same one goes to the same place as long as places stay so.
    Raises:
        ClusterError: nobody is there to work, a task killed its workers, or the scheduler is gone.
    """
    client, terms = connected(), Terms.of_client()
    places = _places(client)
    waiting: deque[tuple[T, Future]] = deque()
    try:
        for item, number in items:
            if len(waiting) >= IN_FLIGHT * max(sum(client.nthreads().values()), 1):
                yield _result(client, *waiting.popleft())
            where: dict[str, Any] = {}
            if len(places) > 1:
                there = places[number % len(places)]
                where = {"workers": there, "allow_other_workers": True}
            future = client.submit(_do, terms, task, item, pure=False, **where)
            waiting.append((item, future))
        while waiting:
            yield _result(client, *waiting.popleft())
    finally:
        if client.status == "running":
            client.cancel([future for _, future in waiting])


def connected() -> Client:
    """Return this process's client; it is made when it is first asked for.

    Raises:
        SettingError: DASK_SCHEDULER is no address.
        ClusterError: nobody answers there, nobody works there, or versions differ.
    """
    global _ours
    named = environment.dask_scheduler()
    with _lock:
        if _ours is not None and _ours.process != os.getpid():
            _ours = None  # of the process that forked this one
        if _ours and (_ours.named != named or _ours.client.status != "running"):
            _close()
        if _ours is None:
            _ours = _connect(named)
        return _ours.client


def close() -> None:
    """End this process's client, and the cluster that was started for it."""
    with _lock:
        _close()


def _close() -> None:
    global _ours
    ours, _ours = _ours, None
    if ours is None or ours.process != os.getpid():
        return
    # Closing fails when the scheduler is gone.
    with suppress(OSError, TimeoutError):
        ours.client.close(timeout=CONNECT_S)
    if ours.cluster is not None:
        with suppress(OSError, TimeoutError):
            ours.cluster.close(timeout=CONNECT_S)


def _connect(named: str | None) -> _Connection:
    cluster = None if named else _cluster_of_cores()
    try:
        client = _client(cluster or named)
    # The first bytes of another kind of server are read as a length: MemoryError.
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at DASK_SCHEDULER={named} ({_line(error)}); {NEW_RUN}, and "
            "without DASK_SCHEDULER this machine's own cores are used"
        ) from error
    ours = _Connection(os.getpid(), named, client, cluster)
    try:
        client.wait_for_workers(1, timeout=ALONE_S)
        check_versions(client)
    except TimeoutError as error:
        _end(ours)
        raise ClusterError(f"the Dask scheduler at {named} has no workers; {NEW_RUN}") from error
    except BaseException:
        _end(ours)
        raise
    # Before multiprocessing ends the workers of a local cluster, which would be started anew.
    Finalize(None, close, exitpriority=10)
    log.info("Dask: %s workers, %s", len(client.nthreads()), named or "this machine's cores")
    return ours


def _client(where: LocalCluster | str | None) -> Client:
    """Return a client, or close it where it could not connect.

    Dask leaves such a client to the garbage collector, which may come while the next one starts:
    closing takes a lock that starting holds, and the thread that does both waits for ever.
    """
    from distributed import Client

    class ClosedWhenRefused(Client):
        def start(self, **options: Any) -> None:
            try:
                super().start(**options)
            except BaseException:
                self.close(timeout=CONNECT_S)
                raise

    return ClosedWhenRefused(where, timeout=CONNECT_S, set_as_default=False)


def _end(ours: _Connection) -> None:
    ours.client.close()
    if ours.cluster is not None:
        ours.cluster.close()


def _cluster_of_cores() -> LocalCluster:
    """Start a worker of one thread for each core; the memory is theirs and this process's.

    On loopback alone, its pages on a free port: several clusters stand beside each other.
    """
    from dask.system import CPU_COUNT
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    return LocalCluster(
        n_workers=CPU_COUNT,
        threads_per_worker=1,
        memory_limit=MEMORY_LIMIT // (CPU_COUNT + 1),
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    )


# --- the same on all machines ----------------------------------------------------------------


def check_versions(client: Client) -> None:
    """Compare what is installed on scheduler and workers with what is installed here.

    Raises:
        ClusterError: names package and versions.
    """
    packages = [*ON_WORKERS[1:], "xgboost-cpu"]  # Dask reports Python's own
    found: Any = client.get_versions(packages=packages)
    here = _versions_of(found["client"])
    said = _differences(here, _versions_of(found["scheduler"]), ON_SCHEDULER, "the scheduler")
    for address, versions in found["workers"].items():
        said += _differences(here, _versions_of(versions), ON_WORKERS, f"worker {address}")
    if not said and (other := _other_code(_code_here(), client.run(_code_here))):
        said = [other]
    if said:
        raise ClusterError(f"{'; '.join(said)}; install the same on all of them (docs/dask.md)")


def _versions_of(versions: dict[str, Any]) -> dict[str, str]:
    """Version by name, as far as it matters: Python's patches change nothing that is sent."""
    packages = {name: found for name, found in versions["packages"].items() if found}
    packages["python"] = ".".join(packages["python"].split(".")[:2])
    if "xgboost-cpu" in packages:  # the same library without CUDA
        packages["xgboost"] = packages["xgboost-cpu"]
    return packages


def _differences(
    here: dict[str, str], there: dict[str, str], names: Iterable[str], who: str
) -> list[str]:
    return [
        f"{who} has {name} {there.get(name, 'not at all')}, this process has {here.get(name)}"
        for name in names
        if there.get(name) != here.get(name)
    ]


@cache
def _code_here() -> str:
    return code_digest()


def _other_code(ours: str, theirs: dict[str, str]) -> str | None:
    others = [f"{who} ({code[:12]})" for who, code in theirs.items() if code != ours]
    if not others:
        return None
    return f"the code of taxi_duration is another on {', '.join(others)} than here ({ours[:12]})"


# --- tasks -----------------------------------------------------------------------------------


def _do(terms: Terms, task: Callable[[T], R], item: T) -> R:
    terms.hold()
    return task(item)


def _places(client: Client) -> list[list[str]]:
    """Workers by the data folder that they share, in an order that stays."""
    places: dict[tuple[str, str], list[str]] = {}
    for address, place in client.run(_place, on_error="ignore").items():
        places.setdefault(place, []).append(address)
    return [places[place] for place in sorted(places)]


def _place() -> tuple[str, str]:
    return socket.gethostname(), str(environment.data_dir())


def _result(client: Client, item: object, future: Future) -> Any:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    seen = time.monotonic()
    while not future.done():
        with suppress(TimeoutError, FutureCancelledError):
            future.exception(timeout=POLL_S)
        if has_workers(client):
            seen = time.monotonic()
        elif time.monotonic() - seen > ALONE_S:
            raise ClusterError(f"no worker of the Dask cluster can work for {ALONE_S} s; {NEW_RUN}")
    try:
        return future.result()
    except FutureCancelledError as error:
        raise scheduler_gone() from error
    except KilledWorker as error:
        what = getattr(item, "key", item)
        raise ClusterError(
            f"{what}: {error.allowed_failures + 1} workers died of it one after the other, most "
            "likely for want of memory (docs/dask.md)"
        ) from error


def has_workers(client: Client) -> bool:
    """True when at least one worker takes tasks; one that is short of memory takes none.

    Raises:
        ClusterError: the scheduler is gone.
    """
    if client.status != "running":
        raise scheduler_gone()
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, TimeoutError) as error:
        raise scheduler_gone() from error
    return any(worker["status"] == "running" for worker in workers.values())


def scheduler_gone() -> ClusterError:
    """Return the error of a scheduler that does not answer any more."""
    named = environment.dask_scheduler() or "of this machine"
    return ClusterError(
        f"the Dask scheduler {named} is gone; {NEW_RUN}, then `python pipeline.py run --resume "
        "RUN_ID` goes on with what was done"
    )


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
