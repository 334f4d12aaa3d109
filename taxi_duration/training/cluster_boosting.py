"""Boosting on all workers of a Dask cluster by `xgboost.dask`, watched: it waits for lost workers.

Dask and XGBoost are imported where they work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from taxi_duration.data.cluster import POLL_S, Terms, connected, gone
from taxi_duration.data.window import BATCH_ROWS, MemoryPart, Window
from taxi_duration.errors import ClusterError
from taxi_duration.logs import tell_step
from taxi_duration.training.boosting import RowBatch

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")

# A worker that says nothing for so long is lost: a frozen one, or one of a host without network.
# They say something every second or so, also while XGBoost computes.
SILENT_S = 40
# What a lost worker is seen by may come before the scheduler knows of it.
LOST_S = 10
MakeRows = Callable[[Window], Iterator[RowBatch]]  # depends on nothing else, and can be sent


def boost_on_cluster(make: MakeRows, window: Window, parameters: dict[str, Any], seed: int) -> Any:
    """Return a booster fitted by all workers, each on its share of the window's trips.

    Of the trips, rows are made where they are learned from. A worker holds them as float32 beside
    the bins that XGBoost makes of them.

    Args:
        parameters: as `boost` takes them.
    Raises:
        ClusterError: a worker that held rows was lost, or the scheduler.
    """
    client = connected()
    workers = _workers(client.scheduler_info(n_workers=-1))
    tell_step(f"boost on {len(workers)} workers")
    return client.sync(_boost, client, workers, make, window, parameters, seed)


async def _boost(
    client: Client, workers: dict[str, _Seen], make: MakeRows, window: Window,
    parameters: dict[str, Any], seed: int,
) -> Any:  # fmt: skip
    rows = await _guarded(client, workers, _place_rows(client, sorted(workers), make, window))
    holding = {address: workers[address] for address in rows.workers}
    result = await _guarded(client, holding, _train(client, rows, parameters, seed))
    return result["booster"]


@dataclass(frozen=True)
class _Rows:
    """Futures of `RowBatch`, with as many rows each, and the workers that hold them."""

    batches: list[Future]
    sizes: list[int]
    columns: int
    weighted: bool
    workers: set[str]


async def _place_rows(
    client: Client, workers: Sequence[str], make: MakeRows, window: Window
) -> _Rows:
    """Have rows made on the workers, about as many on each; shares without any are left out."""
    terms = Terms.of_client()
    tables = await client.scatter(make, broadcast=True, hash=False)
    futures = []
    for number, share in enumerate(shares(window, len(workers))):
        there = [workers[number % len(workers)]]
        sent = await client.scatter(share, workers=there, hash=False)
        futures.append(client.submit(_make_rows, terms, tables, sent, pure=False, workers=there))
    shapes = await client.gather([client.submit(_shape, future, pure=False) for future in futures])
    found = await client.scheduler.who_has(keys=[future.key for future in futures])
    kept = [(f, shape) for f, shape in zip(futures, shapes, strict=True) if shape[0]]
    return _Rows(
        [future for future, _ in kept],
        [rows for _, (rows, _, _) in kept],
        max(columns for _, (_, columns, _) in kept),
        any(weighted for _, (_, _, weighted) in kept),
        {address for future, _ in kept for address in found[future.key]},
    )


def _make_rows(terms: Terms, make: MakeRows, share: Window) -> RowBatch:
    terms.hold()
    some = [batch for batch in make(share) if len(batch.rows)]
    if len(some) == 1:
        return some[0]
    if not some:
        return RowBatch(np.empty((0, 0), "float32"), np.empty(0, "float32"), None)
    rows, minutes, weight = (
        None if some[0][n] is None else np.concatenate([batch[n] for batch in some])  # type: ignore[misc]
        for n in range(3)
    )
    assert rows is not None and minutes is not None
    return RowBatch(rows, minutes, weight)


def _shape(batch: RowBatch) -> tuple[int, int, bool]:
    return *batch.rows.shape, batch.weight is not None  # type: ignore[return-value]


def shares(window: Window, workers: int) -> list[Window]:
    """Return a window's trips as shares of about the same size, some for each worker; none empty.

    Trips in memory are cut, months are not: a worker reads its own.
    """
    whole = [part for part in window.parts if not isinstance(part, MemoryPart) and len(part)]
    held = [part for part in window.parts if isinstance(part, MemoryPart)]
    some = [Window((part,)) for part in sorted(whole, key=len, reverse=True)]
    rows = sum(map(len, held))
    if not rows:
        return some
    trips = Window(tuple(held)).whole()
    pieces = min(workers * -(-rows // (workers * BATCH_ROWS)), rows)
    edges = np.linspace(0, rows, pieces + 1).astype("int64")
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        cut = slice(start, end)
        some.append(Window.of(trips.rides.take(cut), trips.minutes[cut]))
    return some


async def _train(client: Client, rows: _Rows, parameters: dict[str, Any], seed: int) -> Any:
    import dask
    import dask.array as da
    from xgboost import dask as cluster_xgboost

    parts = [dask.delayed(future) for future in rows.batches]

    def column(n: int, *width: int) -> Any:
        chunks = [
            da.from_delayed(dask.delayed(itemgetter(n))(part), (size, *width), "float32")
            for part, size in zip(parts, rows.sizes, strict=True)
        ]
        return da.concatenate(chunks)

    given = {name: value for name, value in parameters.items() if name != "rounds"}
    with client.as_current():
        data = await cluster_xgboost.DaskQuantileDMatrix(
            client, column(0, rows.columns), column(1),
            weight=column(2) if rows.weighted else None, max_bin=parameters["max_bin"],
        )  # fmt: skip
        rows.batches.clear()  # the matrix holds the same arrays
        parts.clear()
        return await cluster_xgboost.train(
            client, {**given, "seed": seed}, data, num_boost_round=parameters["rounds"]
        )


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


async def _check_all_there(client: Client, workers: dict[str, _Seen]) -> None:
    try:
        found = (await client.scheduler.identity())["workers"]
    except (OSError, TimeoutError, AttributeError) as error:  # no connection any more
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
