"""What a request and a swap leave in memory: counted in blocks and bytes, none may add up."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import PROJECT
from service_samples import RIDE, make_card

from serve.core import served_models
from serve.core.memory import LIMITS, M_ARENA_MAX
from serve.server.spread import Spread, shared_counts
from taxi_duration.live.deployment import deploy_champion

PAGES = ("/monitor", "/monitor/data", "/metrics", "/health", "/ready")
ARENA_BYTES = 64 << 20  # that glibc reserves for an arena's memory, at a multiple of them
ON_GLIBC = pytest.mark.skipif(
    sys.platform != "linux", reason="glibc's allocator alone keeps arenas"
)


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
    for path in PAGES:
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


@ON_GLIBC
def test_what_threads_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=PROJECT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    kept, left = map(int, done.stdout.split())
    assert kept > BYTES  # else this test shows nothing
    assert left < kept / 4, (kept, left)


# Many threads at once, after a large block was freed: then glibc itself keeps more than before.
MANY, BLOCKS, BLOCK = 24, 80, 100_000
KEPT = f"""
import sys, threading, psutil
from serve.core.memory import bound_memory
if sys.argv[1] == "bounded":
    bound_memory()
large = b"x" * 30_000_000
del large
at_once = threading.Barrier({MANY} + 1)
def use(blocks):
    at_once.wait()
    for i in range({BLOCKS}): blocks[i] = b"x" * {BLOCK}
    at_once.wait()
    for i in range({BLOCKS}): blocks[i] = None
    at_once.wait()
    at_once.wait()  # the threads go on, and so do their arenas
threads = [threading.Thread(target=use, args=([None] * {BLOCKS},), daemon=True)
           for _ in range({MANY})]
for thread in threads: thread.start()
before = psutil.Process().memory_full_info().uss
for _ in range(3): at_once.wait()
print(psutil.Process().memory_full_info().uss - before)
"""


@ON_GLIBC
def test_what_threads_freed_is_kept_within_bounds():
    def kept(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", KEPT, how], cwd=PROJECT, text=True,
                              capture_output=True, check=True)  # fmt: skip
        return int(done.stdout)

    assert kept("as glibc does") > MANY / 2 * BLOCKS * BLOCK  # else this test shows nothing
    assert kept("bounded") < 4 * BLOCKS * BLOCK


@ON_GLIBC
def test_the_service_has_few_arenas(start, registered):
    deploy_champion(registered[1], "first")
    service = start(WORKERS="1")
    with ThreadPoolExecutor(8) as clients:  # each feedback is written by a new thread
        truth = {"prediction_id": "0" * 32, "duration": 3.0}
        answers = list(clients.map(lambda _: service.ask("/feedback", truth)[0], range(80)))
    assert answers == [200] * 80
    (worker,) = service.workers()
    assert 1 <= arenas(worker) < LIMITS[M_ARENA_MAX]  # beside the main one


def arenas(process: int) -> int:
    """Count the arenas beside the main one: each reserves 64 MB, and uses them from the start."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    parts = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    rights = [line.split()[1] for line in lines]
    return sum(
        rights[i : i + 2] == ["rw-p", "---p"]
        and parts[i][0] % ARENA_BYTES == 0
        and parts[i + 1][1] - parts[i][0] == ARENA_BYTES
        for i in range(len(lines) - 1)
    )


def test_what_all_workers_need_is_loaded_before_they_are_forked(start, registered):
    """Else each would load it beside its first answers, and have it in memory for itself."""
    deploy_champion(registered[1], "first")
    service = start(WORKERS="2", PYTHONPROFILEIMPORTTIME="1")
    name = json.loads(service.ask("/predict", RIDE)[1])["prediction_id"]
    truth = {"prediction_id": name, "duration": 12.0}
    assert service.ask("/feedback", truth)[0] == 200
    assert [service.ask(path, verb="GET")[0] for path in PAGES] == [200] * len(PAGES)
    before, after = service.output.read_text().split("serving on ")
    assert " sqlalchemy" in before
    loaded = {
        line.rpartition("|")[2].strip() for line in after.splitlines() if "import time" in line
    }
    assert {name.partition(".")[0] for name in loaded} & {"sqlalchemy", "numpy", "serve",
                                                         "taxi_duration"} == set()  # fmt: skip
