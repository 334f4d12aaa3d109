"""What a request and a swap leave in memory: counted in blocks and bytes, none may add up."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
from running import PROJECT
from service_samples import RIDE, make_card

from serve.core import served_models
from serve.server.spread import Spread, shared_counts
from taxi_duration.live.deployment import deploy_champion


def adds_up(act, times: int) -> bool:
    """Whether each of `times` calls leaves a block of Python's memory, in each of ten rounds.

    Caches that fill leave some in the first rounds, what adds up in all.
    """
    for _ in range(10):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(times):
            act()
        gc.collect()
        if sys.getallocatedblocks() - before < times:
            return False
    return True


def ride(client, log) -> None:
    client.post("/predict", json=RIDE)


def ride_with_feedback(client, log) -> None:
    prediction_id = client.post("/predict", json=RIDE).json["prediction_id"]
    client.post("/feedback", json={"prediction_id": prediction_id, "duration": 12.0})


def array(client, log) -> None:
    client.post("/predict", json=[RIDE] * 20)
    log.drain()


def refusal(client, log) -> None:
    client.post("/predict", json={**RIDE, "PULocationID": 999})


def pages(client, log) -> None:
    for path in ("/monitor", "/monitor/data", "/metrics", "/health", "/ready"):
        client.get(path)


@pytest.mark.parametrize(
    ("act", "times"),
    [(ride, 100), (ride_with_feedback, 20), (array, 10), (refusal, 100), (pages, 6)],
)
def test_a_request_leaves_nothing(make_app, models, log, act, times):
    client = make_app(model=(models[1], make_card(1, "LR"))).test_client()
    assert not adds_up(lambda: act(client, log), times)


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_are_forgotten(workers):
    spread, number = Spread(shared_counts(workers), 0, start=False), iter(range(10**6))

    def act() -> None:
        spread.gives_up(f"10.0.0.1:{next(number)}")
        if workers > 1:  # alone, it is never asked to look
            spread.look()

    assert not adds_up(act, 2000)


def test_a_swap_gives_the_memory_of_the_old_model_back(make_app, registered, monkeypatch):
    alive = []
    seen: list[weakref.ref] = []

    def note() -> None:
        alive.append([old() is not None for old in seen])

    monkeypatch.setattr(served_models, "give_back_memory", note)
    deploy_champion(registered[1], "first")
    holder = make_app().extensions["taxi"].holder
    for number in (2, 1, 2):
        seen.append(weakref.ref(holder.serving.champion.model))
        deploy_champion(registered[number], "another")
        holder.refresh()
    holder.refresh()  # nothing new: nothing to give back
    assert alive == [[], [False], [False, False], [False, False, False]]


THREADS, BYTES = 6, 20_000_000
CHILD = f"""
import threading, psutil
from serve.core.memory import give_back_memory
at_once = threading.Barrier({THREADS})
kept = []
def read():
    at_once.wait()
    parts = [bytes(1000) for _ in range({BYTES} // 1000)]
    kept.append(parts[-1])  # lies at the end, so that the arena cannot shrink by itself
    at_once.wait()
def uss():
    return psutil.Process().memory_full_info().uss
threads = [threading.Thread(target=read) for _ in range({THREADS})]
before = uss()
for thread in threads: thread.start()
for thread in threads: thread.join()
after = uss()
give_back_memory()
print(after - before, uss() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone keeps arenas")
def test_what_threads_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=PROJECT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    kept, left = map(int, done.stdout.split())
    assert kept > BYTES  # else this test shows nothing
    assert left < kept / 4, (kept, left)
