"""Boosting on all workers of a Dask cluster by `xgboost.dask`, watched: it waits for lost workers.

Dask and XGBoost are imported where they work.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from taxi_duration import environment
from taxi_duration.data.cluster import POLL_S, Terms, connected, gone
from taxi_duration.data.window import MemoryPart, Window
from taxi_duration.errors import ClusterError, SettingError
from taxi_duration.logs import tell_step
from taxi_duration.training.boosting import (
    Batches,
    RowBatch,
    WindowRows,
    stages,
    with_free_trees,
)

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")

# A worker that says nothing for so long is lost: a frozen one, or one of a host without network.
# They say something every second or so, also while XGBoost computes.
SILENT_S = 40
# What a lost worker is seen by may come before the scheduler knows of it.
LOST_S = 10
# All workers must have come together by then: one may be busy with a month before.
TRACKER_S = 600
# Months for each worker from which on they are dealt out whole: with fewer one might have twice as
# many rows as another, and all wait for it.
MONTHS_EACH = 4
FREE_S = 30  # for a worker to be started anew
# Makes rows of a share of what is learned from; depends on nothing else, and can be sent.
MakeRows = Callable[[Any], Iterable[RowBatch]]


def boost_on_cluster(batches: Batches, parameters: dict[str, Any], seed: int) -> Any:
    """Return a booster fitted by all workers, each on its share; None when there are no rows.

    Rows of a window are made where they are learned from. A worker holds its rows as float32
    beside the bins that XGBoost makes of them.

    Args:
        parameters: as `boost` takes them.
    Raises:
        SettingError: `DEVICE` asks for a GPU: boosting was not tried on those of several hosts.
        ClusterError: a worker that held rows was lost, or the scheduler.
    """
    if environment.device() != "cpu":
        raise SettingError("DEVICE=cuda learns in one process: ENGINE=local, or DEVICE=cpu")
    client = connected()
    workers = _workers(client.scheduler_info(n_workers=-1))
    tell_step(f"boost on {len(workers)} workers")
    make: MakeRows = _given
    shares: Iterable[Any] = (cut for batch in batches() for cut in _cut(batch, len(workers)))
    if isinstance(batches, WindowRows):
        make, shares = batches.make, _window_shares(batches.window, len(workers))
    return client.sync(_boost, client, workers, make, shares, parameters, seed)


async def _boost(
    client: Client, workers: dict[str, _Seen], make: MakeRows, shares: Iterable[Any],
    parameters: dict[str, Any], seed: int,
) -> Any:  # fmt: skip
    rows = await _guarded(client, workers, _place_rows(client, sorted(workers), make, shares))
    if not rows.sizes:
        return None
    holding = {address: workers[address] for address in rows.workers}
    try:
        return await _guarded(client, holding, _train(client, rows, parameters, seed))
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
    made = [batch for batch in make(share) if len(batch.rows)]
    if not made:
        return RowBatch(np.empty((0, 0), "float32"), np.empty(0, "float32"), None)
    if len(made) == 1:
        return made[0]
    rows, minutes, weights = zip(*made, strict=True)
    weight = None if weights[0] is None else np.concatenate(weights)
    return RowBatch(np.concatenate(rows), np.concatenate(minutes), weight)


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
    """Which process a worker is (its folder is its own), what it said last, and when we heard."""

    process: str
    said: float
    heard: float

    def hears(self, said: float) -> bool:
        """True while the worker says something now and then."""
        if said != self.said:
            self.said, self.heard = said, time.monotonic()
        return time.monotonic() - self.heard < SILENT_S


def _scheduler(client: Client) -> Any:
    """What the scheduler can be asked by.

    Raises:
        ClusterError: it is gone.
    """
    if client.status != "running" or client.scheduler is None:
        raise gone(client)
    return client.scheduler


def _workers(info: dict[str, Any]) -> dict[str, _Seen]:
    return {
        address: _Seen(worker["local_directory"], worker["last_seen"], time.monotonic())
        for address, worker in info["workers"].items()
        if worker["status"] == "running"
    }


async def _guarded(client: Client, workers: dict[str, _Seen], work: Awaitable[T]) -> T:
    """Return what some work returns; it ends at once when a worker that it needs is lost.

    Raises:
        ClusterError: names the worker, or says that the scheduler is gone.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_S)
            if not task.done():
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


async def _check_all_there(client: Client, workers: dict[str, _Seen]) -> None:
    try:
        found = (await _scheduler(client).identity())["workers"]
    except (OSError, TimeoutError) as error:
        raise gone(client) from error
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
