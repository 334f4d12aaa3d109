"""Boosting on a Dask cluster, watched: a booster of few rows by one worker, others by all.

All workers boost together by `xgboost.dask`, which waits for lost workers for ever. Dask and
XGBoost are imported where they work.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from taxi_duration import environment
from taxi_duration.data.cluster import POLL_S, Terms, connected, scheduler_gone
from taxi_duration.data.engine import failed_beside, map_parts
from taxi_duration.data.window import BATCH_ROWS, MemoryPart, Window, in_memory
from taxi_duration.errors import ClusterError, SettingError
from taxi_duration.logs import log_step
from taxi_duration.training.boosting import (
    Batches,
    RowBatch,
    WindowRows,
    boost_here,
    stages,
    with_free_trees,
)

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")

# A worker that sends no heartbeat for so long is lost: frozen, or on a host without network.
# They send one every second or so, also while XGBoost computes.
SILENT_S = 40
# The error of a lost worker may come before the scheduler knows that it is lost.
LOST_S = 10
# All workers must have come together by then: one may be busy with a month before.
TRACKER_S = 600
# Months for each worker from which on they are dealt out whole: with fewer one might have twice as
# many rows as another, and all wait for it.
MONTHS_EACH = 4
FREE_S = 30  # for a worker to be started anew
# A booster of so many rows is one worker's: its bins take 0.1 GB, and workers that boost together
# wait for each other some 30 times for each tree, and send each other all its histograms.
ALONE_ROWS = 1_000_000
# The boosters of a fit are two, with and without distance: so few workers take one each.
PAIR = 2
RANK_LINE = b" got rank "  # XGBoost's, of every worker and booster, whatever its verbosity
# Makes rows of a share of what is learned from; depends on nothing else, and can be sent.
MakeRows = Callable[[Any], Iterable[RowBatch]]


# Workers that boost alone for this process, and the condition that one has finished.
_alone: set[str] = set()
_finished = threading.Condition()
_together = threading.Lock()  # two boosters on all workers would hold their rows at once


def boost_on_cluster(
    batches: Batches, parameters: dict[str, Any], seed: int, on_disk: bool = False
) -> Any:
    """Return a booster fitted by one worker or by all; None when there are no rows.

    Rows of a window are made where they are learned from. Where all workers boost, each holds its
    share as float32 beside the bins that XGBoost makes of them; one worker holds bins alone.

    Args:
        parameters: as `boost` takes them.
        on_disk: bins of a worker alone lie in its files; those of all workers lie in memory.
    Raises:
        SettingError: `DEVICE` asks for a GPU: boosting was not tried on those of several hosts.
        ClusterError: a worker that held rows was lost, or the scheduler.
    """
    if environment.device() != "cpu":
        raise SettingError("DEVICE=cuda learns in one process: ENGINE=local, or DEVICE=cpu")
    client = connected()
    workers = _workers(client.scheduler_info(n_workers=-1))
    if not workers:
        raise ClusterError("no worker of the Dask cluster takes tasks; docs/dask.md says why")
    if isinstance(batches, WindowRows):
        rows = len(batches.window)
        if rows and (rows <= ALONE_ROWS or len(workers) <= PAIR):
            return _boost_alone(client, workers, batches, parameters, seed, on_disk)
    with _together:
        return _boost_together(client, workers, batches, parameters, seed)


def _boost_alone(
    client: Client, workers: dict[str, _Seen], batches: WindowRows, parameters: dict[str, Any],
    seed: int, on_disk: bool,
) -> Any:  # fmt: skip
    """Have a worker boost that does nothing else for this process; wait until there is one."""
    # Read where the months are: the worker that boosts may be on another host.
    window = Window(tuple(map_parts(in_memory, batches.window.parts)))
    if not len(window):
        return None
    with _one_of(workers) as address:
        log_step(f"boost on worker {address}")
        work = _on_worker(client, address, batches.make, window, parameters, seed, on_disk)
        seen = _workers(client.scheduler_info(n_workers=-1))
        needed = {address: seen.get(address, workers[address])}
        return client.sync(_guarded, client, needed, work, failed_beside())


@contextmanager
def _one_of(workers: Iterable[str]) -> Iterator[str]:
    with _finished:
        while not (free := sorted(set(workers) - _alone)):
            _finished.wait(POLL_S)
            _check_beside(failed_beside())
        _check_beside(failed_beside())  # the worker that is free may be the lost one
        _alone.add(free[0])
    try:
        yield free[0]
    finally:
        with _finished:
            _alone.discard(free[0])
            _finished.notify_all()


async def _on_worker(
    client: Client, address: str, make: MakeRows, window: Window, parameters: dict[str, Any],
    seed: int, on_disk: bool,
) -> Any:  # fmt: skip
    sent = [await client.scatter(one, workers=[address], hash=False) for one in (make, window)]
    asked: Any = client.submit(
        _boost_window, Terms.of_client(), *sent, parameters, seed, on_disk, pure=False,
        workers=[address],
    )  # fmt: skip
    return await asked


def _boost_window(
    terms: Terms, make: MakeRows, window: Window, parameters: dict[str, Any], seed: int,
    on_disk: bool,
) -> Any:  # fmt: skip
    """Boost in the worker that this runs in, with its threads."""
    from distributed import get_worker

    terms.hold()
    kept = list(make(window)) if len(window) <= BATCH_ROWS else None
    batches: Batches = lambda: iter(make(window) if kept is None else kept)  # noqa: E731
    return boost_here(batches, parameters, seed, get_worker().state.nthreads, on_disk)


def _boost_together(
    client: Client, workers: dict[str, _Seen], batches: Batches, parameters: dict[str, Any],
    seed: int,
) -> Any:  # fmt: skip
    log_step(f"boost on {len(workers)} workers")
    make: MakeRows = _given
    shares: Iterable[Any] = (cut for batch in batches() for cut in _cut(batch, len(workers)))
    if isinstance(batches, WindowRows):
        make, shares = batches.make, _window_shares(batches.window, len(workers))
    beside = failed_beside()
    return client.sync(_boost, client, workers, make, shares, parameters, seed, beside)


async def _boost(
    client: Client, workers: dict[str, _Seen], make: MakeRows, shares: Iterable[Any],
    parameters: dict[str, Any], seed: int, beside: list[BaseException],
) -> Any:  # fmt: skip
    placed = _place_rows(client, sorted(workers), make, shares)
    rows = await _guarded(client, workers, placed, beside)
    if not rows.sizes:
        return None
    holding = {address: workers[address] for address in rows.workers}
    try:
        return await _guarded(client, holding, _train(client, rows, parameters, seed), beside)
    except ClusterError:
        await _free(client, holding)
        raise


def _window_shares(window: Window, workers: int) -> Iterator[Window]:
    """Yield a window's trips in shares: many months as they are; a few, or trips in memory, cut."""
    months = sum(not isinstance(part, MemoryPart) for part in window.parts)
    is_few = months < MONTHS_EACH * workers
    for part in window.parts:
        if is_few or isinstance(part, MemoryPart):
            for rides, minutes in part.batches():
                for rows in _slices(len(minutes), workers):
                    yield Window.of(rides.take(rows), minutes[rows])
        else:
            yield Window((part,))


def _cut(batch: RowBatch, workers: int) -> Iterator[RowBatch]:
    for rows in _slices(len(batch.rows), workers):
        weight = None if batch.weight is None else batch.weight[rows]
        yield RowBatch(batch.rows[rows], batch.minutes[rows], weight)


def _slices(rows: int, workers: int) -> Iterator[slice]:
    """Yield a slice for each worker, about as long; fewer when there are fewer rows."""
    edges = np.linspace(0, rows, min(workers, rows) + 1).astype("int64").tolist()
    return (slice(*ends) for ends in pairwise(edges))


def _given(batch: RowBatch) -> list[RowBatch]:
    return [batch]


@dataclass(frozen=True)
class _Rows:
    """Futures of `RowBatch`, with as many rows each, and the workers that hold them."""

    batches: list[Future]
    sizes: list[int]
    columns: int
    weighted: bool
    workers: set[str]


async def _place_rows(
    client: Client, workers: Sequence[str], make: MakeRows, shares: Iterable[Any]
) -> _Rows:
    """Have rows made on the workers, the shares dealt out in turn; those without any left out."""
    terms = Terms.of_client()
    maker = await client.scatter(make, broadcast=True, hash=False)
    futures = []
    for number, share in enumerate(shares):
        there = [workers[number % len(workers)]]
        sent = await client.scatter(share, workers=there, hash=False)
        futures.append(client.submit(_make_rows, terms, maker, sent, pure=False, workers=there))
    asked: Any = client.gather([client.submit(_shape, one, pure=False) for one in futures])
    shapes: list[tuple[int, int, bool]] = await asked
    found = await _scheduler(client).who_has(keys=[one.key for one in futures])
    kept = [pair for pair in zip(futures, shapes, strict=True) if pair[1][0]]
    return _Rows(
        [future for future, _ in kept],
        [rows for _, (rows, _, _) in kept],
        max((columns for _, (_, columns, _) in kept), default=0),
        any(weighted for _, (_, _, weighted) in kept),
        {address for future, _ in kept for address in found[future.key]},
    )


def _make_rows(terms: Terms, make: MakeRows, share: Any) -> RowBatch:
    """Return all rows of a share as one batch; of no rows when it has none."""
    terms.hold()
    _leave_out_ranks()
    made = [batch for batch in make(share) if len(batch.rows)]
    if not made:
        return RowBatch(np.empty((0, 0), "float32"), np.empty(0, "float32"), None)
    if len(made) == 1:
        return made[0]
    rows, minutes, weights = zip(*made, strict=True)
    weight = None if weights[0] is None else np.concatenate(weights)
    return RowBatch(np.concatenate(rows), np.concatenate(minutes), weight)


def _leave_out_ranks() -> None:
    """Keep a worker's rank off its terminal, in this thread: XGBoost has a callback for each."""
    from xgboost import core

    core._LIB.XGBRegisterLogCallback(_say)


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)  # held here as long as the library calls it
def _say(line: bytes) -> None:
    from xgboost import core

    if RANK_LINE not in line:
        core._log_callback(line)


def _shape(batch: RowBatch) -> tuple[int, int, bool]:
    rows, columns = batch.rows.shape
    return rows, columns, batch.weight is not None


async def _train(client: Client, rows: _Rows, parameters: dict[str, Any], seed: int) -> Any:
    import dask
    import dask.array as da
    from xgboost import dask as cluster_xgboost
    from xgboost.collective import Config

    parts = [dask.delayed(future) for future in rows.batches]

    def column(n: int, *width: int) -> Any:
        chunks = [
            da.from_delayed(dask.delayed(itemgetter(n))(part), (size, *width), "float32")
            for part, size in zip(parts, rows.sizes, strict=True)
        ]
        return da.concatenate(chunks)

    with client.as_current():
        data = await cluster_xgboost.DaskQuantileDMatrix(
            client, column(0, rows.columns), column(1),
            weight=column(2) if rows.weighted else None, max_bin=parameters["max_bin"],
        )  # fmt: skip
        rows.batches.clear()  # the matrix holds the same arrays
        parts.clear()
        booster = None
        for given, rounds in stages(parameters):
            result = await cluster_xgboost.train(
                client, {**given, "seed": seed}, data, num_boost_round=rounds, xgb_model=booster,
                # A host of several networks would guess which one workers reach it by.
                coll_cfg=Config(tracker_host_ip=await _ip_of(client), tracker_timeout=TRACKER_S),
            )  # fmt: skip
            booster = result["booster"]
        return with_free_trees(booster, parameters)


async def _ip_of(client: Client) -> str:
    """Address of the scheduler's host, where XGBoost's tracker listens."""
    host, port = urlsplit(_scheduler(client).address).hostname, None
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


# --- the watchdog ------------------------------------------------------------------------------


@dataclass
class _Seen:
    """Which process a worker is (its folder is its own), its last heartbeat, and when we saw it."""

    process: str
    said: float
    heard: float

    def hears(self, said: float) -> bool:
        """True while the worker sends heartbeats."""
        if said != self.said:
            self.said, self.heard = said, time.monotonic()
        return time.monotonic() - self.heard < SILENT_S


def _scheduler(client: Client) -> Any:
    """What the scheduler can be asked by.

    Raises:
        ClusterError: it is gone.
    """
    if client.status != "running" or client.scheduler is None:
        raise scheduler_gone()
    return client.scheduler


def _workers(info: dict[str, Any]) -> dict[str, _Seen]:
    return {
        address: _Seen(worker["local_directory"], worker["last_seen"], time.monotonic())
        for address, worker in info["workers"].items()
        if worker["status"] == "running"
    }


async def _guarded(
    client: Client, workers: dict[str, _Seen], work: Awaitable[T], beside: list[BaseException]
) -> T:
    """Return what some work returns; it ends at once when a worker that it needs is lost.

    Args:
        beside: see `failed_beside`.
    Raises:
        ClusterError: names the worker, or says that the scheduler is gone.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_S)
            if not task.done():
                _check_beside(beside)
                await _check_all_there(client, workers)
        try:
            return task.result()
        except Exception:
            until = time.monotonic() + LOST_S
            while time.monotonic() < until:
                await _check_all_there(client, workers)
                await asyncio.sleep(POLL_S)
            raise
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _free(client: Client, workers: Iterable[str]) -> None:
    """Start workers anew, which may wait in XGBoost for the lost one; those that have a nanny."""
    with suppress(ClusterError, OSError, TimeoutError, ValueError):
        found = (await _scheduler(client).identity())["workers"]
        kept = [address for address in workers if found.get(address, {}).get("nanny")]
        restarted: Any = client.restart_workers(kept, timeout=FREE_S, raise_for_error=False)
        await restarted


def _check_beside(errors: list[BaseException]) -> None:
    """Give up when a call that runs beside this one has failed (see `call_all`)."""
    if errors:
        raise ClusterError("boosting ended: another booster of the same fit failed") from errors[0]


async def _check_all_there(client: Client, workers: dict[str, _Seen]) -> None:
    try:
        found = (await _scheduler(client).identity())["workers"]
    except (OSError, TimeoutError) as error:
        raise scheduler_gone() from error
    lost = [
        address
        for address, seen in workers.items()
        if address not in found
        or found[address]["local_directory"] != seen.process
        or not seen.hears(found[address]["last_seen"])
    ]
    if lost:
        raise ClusterError(
            f"boosting ended: worker {', '.join(lost)} was lost with the rows that it held; "
            "`python pipeline.py run --resume RUN_ID` begins this fit anew on the workers there are"
        )
