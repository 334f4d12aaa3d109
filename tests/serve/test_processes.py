"""The whole service as it runs: two workers, kill -9, promote and rollback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from running import PROJECT, Running, free_port
from service_samples import RIDE
from test_unpacker import packed

from serve.bodies.parquet import PARQUET_TYPES
from taxi_duration.live.deployment import deploy_champion, roll_back
from taxi_duration.live.prediction_log import open_log

pytestmark = pytest.mark.long  # each test starts, kills or floods a whole service


class Rider(threading.Thread):
    """Asks one ride after the other on a kept connection, and remembers what came."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop_asking = port, stop
        self.answered: list[str] = []
        self.models: list[str] = []  # who answered, in order
        self.refused: list[int] = []
        self.broken: list[int] = []  # ports of the connections that broke

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stop_asking.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
                port = connection.sock.getsockname()[1]
                connection.request(
                    "POST", "/predict", json.dumps(RIDE), {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                self.broken.append(port)
                connection.close()
                continue
            if response.status != 200:
                self.refused.append(response.status)
                continue
            answer = json.loads(body)
            self.answered.append(answer["prediction_id"])
            self.models.append(answer["model"])


def all_meet(riders: list[Rider], version: str) -> None:
    """Wait until every rider has asked on, and was answered by this version last."""
    asked = [len(rider.models) + 5 for rider in riders]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        met = [len(rider.models) >= n and rider.models[-1] == version
               for rider, n in zip(riders, asked, strict=True)]  # fmt: skip
        if all(met):
            return
        time.sleep(0.05)
    pytest.fail(f"not everybody is answered by {version}")


def test_under_load_a_killed_worker_and_swaps_lose_nothing(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    stop = threading.Event()
    riders = [Rider(service.port, stop) for _ in range(6)]
    for rider in riders:
        rider.start()
    all_meet(riders, "green-duration:1")
    deploy_champion(registered[2], "better")
    all_meet(riders, "green-duration:2")
    victim = service.workers()[0]
    os.kill(victim, signal.SIGSTOP)  # so that it takes no connection between the look and the kill
    time.sleep(0.1)
    on_victim = service.clients_of(victim)
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while victim in service.workers() or len(service.workers()) < 2:
        assert time.monotonic() < deadline, "it is not replaced"
        time.sleep(0.05)
    all_meet(riders, "green-duration:2")
    roll_back("worse after all")
    all_meet(riders, "green-duration:1")
    deploy_champion(registered[2], "better still")
    all_meet(riders, "green-duration:2")
    stop.set()
    for rider in riders:
        rider.join(timeout=30)

    answered = [prediction_id for rider in riders for prediction_id in rider.answered]
    broken = [port for rider in riders for port in rider.broken]
    assert [status for rider in riders for status in rider.refused] == []
    assert on_victim
    assert len(broken) == len(set(broken))  # one in flight for each connection …
    assert set(broken) <= on_victim  # … and only on the killed worker
    models = {model for rider in riders for model in rider.models}
    assert models == {"green-duration:1", "green-duration:2"}
    assert victim not in service.workers()
    assert len(service.workers()) == 2
    assert len(answered) > 200
    log = open_log()
    logged = {row["prediction_id"] for row in log.answered()}
    log.close()
    assert set(answered) <= logged
    assert len(logged) <= len(answered) + len(broken)


def test_metrics_are_of_the_whole_service(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    for _ in range(30):
        assert service.ask()[0] == 200
    line = 'taxi_predictions_total{arm="champion",version="green-duration:1"} 30.0'
    assert all(line in service.ask("/metrics", verb="GET")[1] for _ in range(6))


def test_every_worker_follows_the_deployment_and_takes_feedback(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    deploy_champion(registered[2], "better")
    time.sleep(2)
    answers = [json.loads(service.ask()[1]) for _ in range(20)]
    assert {answer["model"] for answer in answers} == {"green-duration:2"}
    given = [{"prediction_id": a["prediction_id"], "duration": 18.0} for a in answers]
    status, body = service.ask("/feedback", given)
    assert (status, json.loads(body)["unknown"]) == (200, [])


def test_a_worker_that_is_replaced_serves_what_is_deployed_now(start, registered):
    deploy_champion(registered[1], "first")
    service = start(WORKERS="1")
    deploy_champion(registered[2], "better")
    time.sleep(2)
    os.kill(service.workers()[0], signal.SIGKILL)
    deadline = time.monotonic() + 20
    status = 0
    while status != 200 and time.monotonic() < deadline:
        try:
            status, body = service.ask()
        except OSError:
            time.sleep(0.05)
    assert json.loads(body)["model"] == "green-duration:2"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP], ids=lambda n: n.name
)
@pytest.mark.usefixtures("hearing")
def test_stopping_in_order_leaves_nothing_in_the_spool(start, registered, home, number):
    deploy_champion(registered[1], "first")
    service = start()
    for _ in range(10):
        service.ask()
    os.kill(service.process.pid, number)
    service.process.wait(timeout=40)
    assert list((home / "data" / "live" / "spool").glob("*.spool")) == []
    assert service.process.returncode == 0


def test_signals_that_mean_nothing_here_end_nobody(start, registered):
    deploy_champion(registered[1], "first")
    heard = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` starts it
    try:
        service = start()
    finally:
        signal.signal(signal.SIGHUP, heard)
    processes = service.processes()
    for pid in (service.process.pid, *processes):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            os.kill(pid, number)
    for _ in range(10):
        assert service.ask()[0] == 200
    assert service.processes() == processes


def test_a_stopped_worker_does_not_hold_up_the_end(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    for pid in service.processes():
        os.kill(pid, signal.SIGSTOP)
    service.process.terminate()
    assert service.process.wait(timeout=40) == 0
    assert "killed" not in service.output.read_text()


@pytest.mark.long
def test_a_worker_without_a_sign_of_life_is_replaced(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    stopped, other = service.workers()
    os.kill(stopped, signal.SIGSTOP)
    await_that(lambda: not {stopped}.intersection(service.workers()), seconds=120)
    await_that(lambda: len(service.workers()) == 2)
    assert other in service.workers()
    assert f"worker 1 ({stopped}) gave no sign of life" in service.output.read_text() or (
        f"worker 2 ({stopped}) gave no sign of life" in service.output.read_text()
    )


def test_with_nothing_deployed_it_says_how_to_get_there(start):
    service = start(wait=False)
    assert service.process.wait(timeout=60) == 1
    assert "make run" in service.output.read_text()


def test_port_of_another_program_is_not_shared_with_it(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    second = start(wait=False, PORT=str(service.port))
    assert second.process.wait(timeout=60) == 1
    assert f"port {service.port} of 127.0.0.1 is taken" in second.output.read_text()
    assert service.ask()[0] == 200


def test_it_can_wait_for_the_first_model(start, home, registered):
    import shutil

    for version in (1, 2):
        shutil.move(home / "models" / "green-duration" / str(version), home / str(version))
    service = start(WAIT_FOR_MODEL="1")
    assert service.ask()[0] == 503
    shutil.move(home / "1", home / "models" / "green-duration" / "1")
    deploy_champion(registered[1], "first")
    time.sleep(2)
    assert service.ask()[0] == 200


def test_the_command_of_gunicorn_is_as_good(registered):
    deploy_champion(registered[1], "first")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "serve:create_app()"]
    process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
    service = Running(port, process, Path())
    status = 0
    deadline = time.monotonic() + 60
    while status != 200 and time.monotonic() < deadline:
        try:
            status, _ = service.ask()
        except OSError:
            time.sleep(0.05)
    process.terminate()
    process.wait(timeout=40)
    assert status == 200


def test_workers_killed_together_and_again_are_replaced(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    for _ in range(3):
        killed = service.workers()
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(set(service.workers()) - set(killed)) == 2:
                break
            time.sleep(0.05)
        assert service.ask()[0] == 200  # it waits for the next worker, and is not refused


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a process")
def test_orphans_of_a_killed_worker_are_reaped(start, registered, tmp_path):
    """The first process of a container is given them."""
    deploy_champion(registered[1], "first")
    is_given_them = "import ctypes; ctypes.CDLL(None).prctl(36, 1)"  # PR_SET_CHILD_SUBREAPER
    (tmp_path / "sitecustomize.py").write_text(is_given_them)
    service = start(WORKERS="1", PYTHONPATH=str(tmp_path))
    parent, (worker,) = psutil.Process(service.process.pid), service.workers()
    body = packed({"PULocationID": [74], "DOLocationID": [42]})
    client = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    client.request("POST", "/predict", body, {"Content-Type": PARQUET_TYPES[0]})
    assert client.getresponse().status == 200
    orphans = psutil.Process(worker).children(recursive=True)
    assert orphans
    os.kill(worker, signal.SIGKILL)
    until = time.monotonic() + 20
    while any(each.is_running() for each in orphans) or len(service.processes()) < 2:
        assert time.monotonic() < until, [(e.pid, e.status()) for e in parent.children()]
        time.sleep(0.05)
    assert [e.pid for e in parent.children() if e.status() == psutil.STATUS_ZOMBIE] == []
    assert service.ask()[0] == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_its_keeper_the_log_takes_every_ride(start, registered, home, number):
    deploy_champion(registered[1], "first")
    service = start()
    await_that(lambda: service.keeper() is not None)
    keeper = service.keeper()
    assert service.ask()[0] == 200
    await_that(lambda: rows_in(home) == 1)  # it does not make the tables any more, with their lock
    os.kill(keeper, number)
    for _ in range(5):
        assert service.ask()[0] == 200
    await_that(lambda: rows_in(home) == 6)
    assert service.ask("/ready", verb="GET")[0] == 200
    if number == signal.SIGSTOP:
        with suppress(ProcessLookupError):  # on a busy machine its parent was quicker
            os.kill(keeper, signal.SIGKILL)
    await_that(lambda: service.keeper() not in (None, keeper))
    assert "the log's keeper" in service.output.read_text()
    assert len(service.workers()) == 2


def rows_in(home) -> int | None:
    """Rides in the tables, without moving those that wait; None before there are tables."""
    path = home / "data" / "live" / "predictions.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM predictions").fetchone()[0]
    except sqlite3.OperationalError:
        return None


def await_that(is_so, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_end_in_order_when_their_parent_is_killed(start, registered, home):
    deploy_champion(registered[1], "first")
    service = start()
    assert service.ask()[0] == 200
    processes = service.processes()
    assert len(processes) == 3
    service.process.kill()
    service.process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list((home / "data" / "live" / "spool").glob("*.spool")) == []


@pytest.mark.long
def test_it_stops_in_order_though_clients_hold_on(start, registered, home):
    deploy_champion(registered[1], "first")
    service = start(WORKERS="1")
    assert service.ask()[0] == 200
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    half = (b"", head, head + b"Content-Length: 60\r\n\r\n{")
    clients = [service.send(sent) for sent in half for _ in range(20)]
    service.process.terminate()
    assert service.process.wait(timeout=30) == 0
    assert list((home / "data" / "live" / "spool").glob("*.spool")) == []
    assert "killed" not in service.output.read_text()
    for client in clients:
        client.close()


def test_an_argument_is_refused_with_a_word(start):
    service = start("--bind", "0.0.0.0:80", wait=False)
    assert service.process.wait(timeout=60) == 2
    assert "HOST, PORT, WORKERS" in service.output.read_text()


def test_a_port_that_is_taken_is_said(start, registered):
    deploy_champion(registered[1], "first")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = start(PORT=str(taken.getsockname()[1]), wait=False)
        assert service.process.wait(timeout=60) == 1
    assert "error: " in service.output.read_text()


def test_every_request_is_written_down_where_that_is_asked_for(start, registered):
    deploy_champion(registered[1], "first")
    service = start(ACCESS_LOG="1")
    service.ask()
    service.ask("/nothing?here=%0a", verb="GET")
    service.process.terminate()
    service.process.wait(timeout=40)
    lines = service.output.read_text()
    assert '127.0.0.1 "POST /predict HTTP/1.1" 200 ' in lines
    assert '127.0.0.1 "GET /nothing?here=%0a HTTP/1.1" 404 ' in lines
