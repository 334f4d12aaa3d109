"""What may happen to the whole service while it answers: tried on its processes, over HTTP.

How long and how often is `FAULT_MINUTES`: 1 by default and in CI, 30 for docs/reliability.md.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import load
import psutil
import pytest
from faulty_service import Place, missing, riding
from msgspec import to_builtins
from msgspec.structs import replace
from postgres import postgres_server
from running import Running
from servers import ask
from service_samples import make_card
from test_generated_requests import check_operations

from taxi_duration import environment
from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.files import sha256_file, write_json
from taxi_duration.live.deployment import (
    deploy_champion,
    read_deployment,
    roll_back,
    set_challenger,
)
from taxi_duration.live.prediction_log import open_log
from taxi_duration.model.bundle import save_bundle

pytestmark = [pytest.mark.long, pytest.mark.faults]

MINUTES = int(os.environ.get("FAULT_MINUTES", "1"))
IS_WHOLE = MINUTES >= 30
SWAP_SECONDS = 1.2  # between two swaps: a worker looks twice a second
# Times as much as after the first fifth of the load. That of a minute is over before all that is
# read once (pages, both versions, sums) was read: 1.11 was seen; a leak shows in the long run.
MORE_MEMORY = 1.1 if MINUTES >= 5 else 1.3


@pytest.fixture
def place(start, registered) -> Callable[..., Place]:
    """Start a service with two workers on version 1."""

    def begin(**settings: str) -> Place:
        if read_deployment() is None:
            deploy_champion(registered[1], "first")
        service = start(WORKERS="2", **settings)
        place = Place(f"http://127.0.0.1:{service.port}")
        place.service = service
        place.wait(None)
        return place

    return begin


def test_killed_worker(place, reliability):
    place = place()
    for _ in range(20 if IS_WHOLE else 3):
        kept = place.acknowledged
        with riding(place, breaks=True) as client:
            os.kill(random.choice(place.service.workers()), signal.SIGKILL)
            place.wait(None)
        assert missing(client) == []
        assert len(client.broken) <= 1  # what was in flight
        reliability("`kill -9` of a worker", 1, place.acknowledged - kept, 0, place.back_after)


def test_killed_master(place, start, reliability):
    for _ in range(10 if IS_WHOLE else 2):
        here = place()
        with riding(here, breaks=True) as client:
            began = time.monotonic()
            here.service.process.kill()
        for worker in _children(here.service):  # they end by themselves, or are ended by systemd
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        here.service.process.wait()
        again = place()
        lost = missing(client)
        assert lost == []
        back = time.monotonic() - began
        reliability("`kill -9` of the master", 1, here.acknowledged, 0, back)
        again.service.process.terminate()
        again.service.process.wait(timeout=40)


def test_two_services_on_one_log(place, reliability):
    first, second = place(), place()
    with riding(first) as one, riding(second) as other:
        time.sleep(10 * MINUTES if not IS_WHOLE else 60)
    assert missing(one) == missing(other) == []
    kept = first.acknowledged + second.acknowledged
    reliability("two services on one log", 1, kept, 0, None)


def test_postgresql_restarted(place, tmp_path, monkeypatch, reliability):
    with postgres_server(tmp_path) as server:
        monkeypatch.setenv("LOG_URL", server.url)
        place = place()
        for _ in range(5 if IS_WHOLE else 2):
            kept = place.acknowledged
            with riding(place) as client:
                server.stop()
                place.wait(".")
                server.start()
                place.wait(None)
            assert missing(client) == []
            kept = place.acknowledged - kept
            reliability("PostgreSQL stopped and started", 1, kept, 0, place.back_after)


CLOCK = """
import os, time
REAL, REAL_NS = time.time, time.time_ns
def ahead():
    try:
        return float(open({file!r}).read() or 0)
    except OSError:
        return 0.0
time.time = lambda: REAL() + ahead()
time.time_ns = lambda: REAL_NS() + int(ahead() * 1e9)
"""


def test_clock_goes_back(place, tmp_path, reliability):
    """All of the service's own clock (`time.time`), an hour at a time."""
    file = tmp_path / "ahead"
    file.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(file=str(file)))
    place = place(PYTHONPATH=str(tmp_path))
    with riding(place) as client:
        for hours in range(1, 6 if IS_WHOLE else 3):
            file.write_text(str(-3600.0 * hours))
            time.sleep(2)
            place.wait(None)
    assert missing(client) == []
    reliability("the clock goes back by an hour", hours, place.acknowledged, 0, None)


# --- bundles --------------------------------------------------------------------------------


def _flipped(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _foreign(content: bytes, chance: random.Random) -> bytes:
    return random.Random(chance.random()).randbytes(len(content))


def _hostile(content: bytes, chance: random.Random) -> bytes:
    return b"cos\nsystem\n(S'touch hostile'\ntR."  # a pickle that would run a command


SPOILERS = (_flipped, _flipped, _cut, _foreign, _hostile)


@pytest.mark.parametrize("file", ["model.bin", "card.json"])
def test_bad_bundles(place, registered, reliability, file):
    place, chance = place(), random.Random(0)
    times = 100 if IS_WHOLE else 6
    with riding(place) as client:
        for number in range(times):
            spoil = SPOILERS[number % len(SPOILERS)]
            folder = bundle_folder("green-duration", 100 + number)
            shutil.copytree(registered[2].folder, folder)
            path = folder / file
            path.write_bytes(spoil(path.read_bytes(), chance))
            # As an attacker would: the deployment names the bundle with the digest that it has.
            sha256 = sha256_file(folder / "model.bin")
            bad = replace(registered[2], number=100 + number, sha256=sha256)
            _deploy(bad)
            time.sleep(SWAP_SECONDS)
            assert _served(place) == "green-duration:1", spoil
    assert missing(client) == []
    assert not Path("hostile").exists()
    assert "green-duration:" in ask(f"{place.address}/ready")[1]
    reliability(f"a bad bundle deployed ({file} flipped, cut, foreign, hostile)", times,
                place.acknowledged, 0, None)  # fmt: skip


def test_unsigned_wrongly_signed_and_older_bundles(place, registered, models, reliability):
    """With a key, nothing that it did not sign; another version under the name of the deployed."""
    key = "the right key"
    for number in (1, 2):
        folder = bundle_folder("green-duration", number)
        card = make_card(number, models[number].kind)
        registered[number] = Version.of(save_bundle(folder, models[number], card, key.encode()))
    place = place(MODEL_SIGNING_KEY=key)
    cards = {3: None, 4: b"another key"}
    with riding(place) as client:
        for number, signed_with in cards.items():
            folder = bundle_folder("green-duration", number)
            card = make_card(number, models[2].kind)
            _deploy(Version.of(save_bundle(folder, models[2], card, signed_with)))
            time.sleep(SWAP_SECONDS)
            assert _served(place) == "green-duration:1"
        older = bundle_folder("green-duration", 5)  # version 2's bundle, signed, in place of 5's
        shutil.copytree(registered[2].folder, older)
        _deploy(replace(registered[2], number=5))
        time.sleep(SWAP_SECONDS)
        assert _served(place) == "green-duration:1"
    assert missing(client) == []
    reliability("a bundle unsigned, wrongly signed, or an older one under a new name", 3,
                place.acknowledged, 0, None)  # fmt: skip


def test_swaps_under_load(place, registered, reliability):
    place = place()
    times = 50 if IS_WHOLE else 10
    with riding(place) as client:
        for number in range(times):
            if number % 2:
                roll_back("worse after all")
            else:
                deploy_champion(registered[2], "better")
            time.sleep(SWAP_SECONDS)
    assert missing(client) == []
    assert client.models == {"green-duration:1", "green-duration:2"}
    reliability("promote and rollback under load", times, place.acknowledged, 0, None)


# --- much -----------------------------------------------------------------------------------


def test_generated_requests(place, reliability):
    """Right and wrong requests of our own document, over HTTP: no 500, no worker dies."""
    import schemathesis  # here, for each worker imports this file and one runs the test

    place = place()
    workers, before = set(place.service.workers()), _memory(place.service)
    document = schemathesis.openapi.from_url(f"{place.address}/openapi.json")
    wanted, sent = (10_000, 0) if IS_WHOLE else (1, 0)
    while sent < wanted:  # some operations have few ways to be asked
        sent += check_operations(document, 450 if IS_WHOLE else 15)
    place.wait(None)
    assert set(place.service.workers()) == workers
    grown = _memory(place.service) / before
    assert grown < 2, grown  # what reads CSV and Parquet is loaded on first use
    reliability("generated requests (schemathesis, hypothesis), bad ones too", sent, 0, 0, None)


def test_load_with_swaps_feedback_and_a_reader(place, registered, reliability, tmp_path):
    """At 70 % of what it bears: nothing fails, nothing is lost, memory stays."""
    place = place()
    clients = Clients(place.service.port, math.inf, tmp_path / "limit")
    time.sleep(10)
    clients.finish()
    limit = len(clients.answered) / 10
    stop = threading.Event()
    others = [threading.Thread(target=act, args=(place, registered, stop), daemon=True)
              for act in (_read_pages, _swap)]  # fmt: skip
    clients = Clients(place.service.port, clients.times / 10 * 0.7, tmp_path / "load")
    for thread in others:
        thread.start()
    time.sleep(12 * MINUTES)
    early = _memory_at_rest(place.service)
    time.sleep(48 * MINUTES)
    late = _memory_at_rest(place.service)
    clients.finish()
    stop.set()
    for thread in others:
        thread.join(60)
    assert clients.failed == []
    asked, told = clients.answered, clients.told
    print(f"{early / 1e6:.1f} MB, then {late / 1e6:.1f} MB at {len(asked) / 60 / MINUTES:,.0f} "
          f"rides/s; the limit is {limit:,.0f}")  # fmt: skip
    assert late <= early * MORE_MEMORY, (early, late)
    log, n = open_log(), len(asked) + len(told)
    for row in log.answered():
        name = bytes.fromhex(row["prediction_id"])
        asked.discard(name)
        if row["true_duration"] is not None:
            told.discard(name)
    log.close()
    assert (len(asked), len(told)) == (0, 0)
    what = "minutes at 70 % of the limit, with feedback, swaps and a reader of the pages"
    reliability(what, MINUTES, n, 0, None)


class Clients:
    """Processes that ask a service; see `load`.

    Args:
        rate: times a second, of all together.
        folder: for what was promised to them.
    """

    NUMBER = 3

    def __init__(self, port: int, rate: float, folder: Path) -> None:
        folder.mkdir()
        self._files = [folder / f"{seed}" for seed in range(self.NUMBER)]
        self._running = [
            subprocess.Popen(
                [
                    sys.executable,
                    load.__file__,
                    str(port),
                    str(rate / self.NUMBER),
                    str(seed),
                    path,
                ],
                stdin=subprocess.PIPE,
            )
            for seed, path in enumerate(self._files)
        ]
        self.answered: set[bytes] = set()  # prediction ids: 16 bytes take half of what text does
        self.told: set[bytes] = set()
        self.failed: list[str] = []
        self.times = 0

    def finish(self) -> None:
        """Let them end, and read what they were promised."""
        for process in self._running:
            process.stdin.close()
        for process, path in zip(self._running, self._files, strict=True):
            assert process.wait(90) == 0
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    self._note(line[0], line[2:].rstrip())

    def _note(self, what: str, found: str) -> None:
        if what == "n":
            self.times += int(found)
        elif what == "f":
            self.failed.append(found)
        else:
            (self.answered if what == "a" else self.told).add(bytes.fromhex(found))


def _read_pages(place: Place, registered: dict[int, Version], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for path in ("/monitor", "/monitor/data", "/metrics"):
            place.service.ask(path, verb="GET")


def _swap(place: Place, registered: dict[int, Version], stop: threading.Event) -> None:
    """Deploy one version after the other, each for a while with the one before in the shadow."""
    number = 0
    while not stop.wait(2.5):
        number += 1
        champion, before = registered[1 + number // 2 % 2], registered[2 - number // 2 % 2]
        if number % 2:
            set_challenger(before, f"test {number}")
        else:
            deploy_champion(champion, f"swap {number}")


def _children(service: Running) -> list[psutil.Process]:
    try:
        return psutil.Process(service.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _memory(service: Running) -> int:
    """Bytes that its processes have for themselves."""
    return sum(process.memory_full_info().uss for process in _children(service))


def _memory_at_rest(service: Running) -> int:
    """The least of some seconds: what an array or a swap has for a moment is not there always."""
    return min((_memory(service), time.sleep(0.2))[0] for _ in range(25))


def _served(place: Place) -> str:
    return str(json.loads(ask(f"{place.address}/health")[1])["model"])


def _deploy(version: Version) -> None:
    """Write what an operator's commands would refuse to write."""
    path = environment.deployment_dir() / "deployment.json"
    deployment = read_deployment()
    write_json(path, {**deployment.as_dict(), "champion": to_builtins(version)})
