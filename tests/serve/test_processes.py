"""The whole service as it runs: gunicorn, two workers, kill -9, promote and rollback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_samples import RIDE

from taxi_duration.live.deployment import deploy_champion, roll_back
from taxi_duration.live.prediction_log import open_log

PROJECT = Path(__file__).resolve().parent.parent.parent


class Running:
    """A service of its own processes."""

    def __init__(self, port: int, process: subprocess.Popen, output: Path) -> None:
        self.port, self.process, self.output = port, process, output

    def ask(self, path: str = "/predict", content=RIDE, verb: str = "POST") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            body = None if verb == "GET" else json.dumps(content)
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def send(self, content: bytes) -> socket.socket:
        """Open a connection and send bytes as they are."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(content)
        return client

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def clients_of(self, worker: int) -> set[int]:
        """Ports of the clients whose connections a worker holds."""
        files = Path(f"/proc/{worker}/fd").iterdir()
        held = {str(file.readlink()).removeprefix("socket:").strip("[]") for file in files}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # Columns: the number, local and remote address as hexadecimal, …, the inode.
        return {
            int(row[2].rsplit(":")[-1], 16)
            for row in rows
            if row[9] in held and int(row[1].rsplit(":")[-1], 16) == self.port
        } - {0}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def start(home, tmp_path) -> Iterator:
    """Start services that are stopped after the test."""
    running: list[Running] = []

    def start(*arguments: str, wait: bool = True, **settings: str) -> Running:
        port = free_port()
        output = tmp_path / f"serve-{len(running)}.log"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "serve", *arguments],
                cwd=PROJECT,
                env={**os.environ, "HOST": "127.0.0.1", "PORT": str(port), **settings},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        service = Running(port, process, output)
        running.append(service)
        deadline = time.monotonic() + 60
        while wait and time.monotonic() < deadline and process.poll() is None:
            try:
                service.ask("/health", verb="GET")
                break
            except OSError:
                time.sleep(0.05)
        return service

    yield start
    for service in running:
        service.process.terminate()
        service.process.wait(timeout=40)


class Rider(threading.Thread):
    """Asks one ride after the other on a kept connection, and remembers what came."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop_asking = port, stop
        self.answered: list[str] = []
        self.models: set[str] = set()
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
            self.models.add(answer["model"])


@pytest.mark.slow
def test_under_load_a_killed_worker_and_swaps_lose_nothing(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    stop = threading.Event()
    riders = [Rider(service.port, stop) for _ in range(6)]
    for rider in riders:
        rider.start()
    time.sleep(1.5)
    deploy_champion(registered[2], "better")
    time.sleep(2.5)
    victim = service.workers()[0]
    os.kill(victim, signal.SIGSTOP)  # so that it takes no connection between the look and the kill
    time.sleep(0.1)
    on_victim = service.clients_of(victim)
    os.kill(victim, signal.SIGKILL)
    time.sleep(2)
    roll_back("worse after all")
    time.sleep(2.5)
    deploy_champion(registered[2], "better still")
    time.sleep(2.5)
    stop.set()
    for rider in riders:
        rider.join(timeout=30)

    answered = [prediction_id for rider in riders for prediction_id in rider.answered]
    broken = [port for rider in riders for port in rider.broken]
    assert [status for rider in riders for status in rider.refused] == []
    assert on_victim
    assert len(broken) == len(set(broken))  # one in flight for each connection …
    assert set(broken) <= on_victim  # … and only on the killed worker
    assert set.union(*(rider.models for rider in riders)) == {
        "green-duration:1",
        "green-duration:2",
    }
    assert victim not in service.workers()
    assert len(service.workers()) == 2
    assert len(answered) > 200
    log = open_log()
    logged = {row["prediction_id"] for row in log.answered()}
    log.close()
    assert set(answered) <= logged
    assert len(logged) <= len(answered) + len(broken)


@pytest.mark.slow
def test_metrics_are_of_the_whole_service(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    for _ in range(30):
        assert service.ask()[0] == 200
    line = 'taxi_predictions_total{arm="champion",version="green-duration:1"} 30.0'
    assert all(line in service.ask("/metrics", verb="GET")[1] for _ in range(6))


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_stopping_in_order_leaves_nothing_in_the_spool(start, registered, home):
    deploy_champion(registered[1], "first")
    service = start()
    for _ in range(10):
        service.ask()
    service.process.terminate()
    service.process.wait(timeout=40)
    assert list((home / "data" / "live" / "spool").glob("*.spool")) == []
    assert service.process.returncode == 0


def test_with_nothing_deployed_it_says_how_to_get_there(start):
    service = start(wait=False)
    assert service.process.wait(timeout=60) == 1
    assert "make run" in service.output.read_text()


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_command_of_gunicorn_is_as_good(registered):
    deploy_champion(registered[1], "first")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "serve/gunicorn_conf.py",
               "-b", f"127.0.0.1:{port}", "serve:create_app()"]  # fmt: skip
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


# --- what reaches gunicorn and not the application --------------------------------------

HALF_A_BODY = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 60\r\n\r\n{"PUL'
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "clients"),
    [(b"", 12), (HALF_A_BODY[:30], 4), (HALF_A_BODY, 4)],
    ids=["nothing", "header", "body"],
)
def test_clients_that_stall_do_not_keep_others_waiting_for_long(start, registered, sent, clients):
    deploy_champion(registered[1], "first")
    service = start(WORKERS="1", THREADS="2")
    stalled = [service.send(sent) for _ in range(clients)]
    assert service.ask()[0] == 200
    for client in stalled:
        client.close()


@pytest.mark.slow
def test_a_body_that_stops_arriving_is_answered_with_408(start, registered):
    deploy_champion(registered[1], "first")
    status, body = answer_of(start().send(HALF_A_BODY))
    assert (status, json.loads(body)["error"]["code"]) == (408, "timeout")


@pytest.mark.slow
def test_what_is_no_http_is_refused_as_json_too(start, registered):
    deploy_champion(registered[1], "first")
    service = start()
    start_line = b"GET /health HTTP/1.1\r\n"
    cases = {
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n": 400,
        b"hello\r\n\r\n": 400,
        b"GET / HTTP/3.0\r\n\r\n": 400,
        start_line + b"no colon\r\n\r\n": 400,
        start_line + b"Content-Length: -1\r\n\r\n": 400,
        start_line + b"Expect: wonders\r\n\r\n": 417,
        start_line + b"X: " + b"a" * 20_000 + b"\r\n\r\n": 431,
    }
    for sent, expected in cases.items():
        status, body = answer_of(service.send(sent))
        error = json.loads(body)["error"]
        assert (status, error["code"], error["field"]) == (expected, "bad_request", None)
        assert len(error["message"]) < 300


@pytest.mark.slow
def test_a_body_too_large_is_refused_however_it_is_sent(start, registered):
    deploy_champion(registered[1], "first")
    service = start(MAX_BODY_MB="1")
    large = json.dumps([RIDE] * 100_000).encode()
    for body in (large, iter([large])):  # an iterator is sent in chunks
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, json.load(response)["error"]["code"]) == (413, "too_large")
        connection.close()


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    """Read a whole answer; the server closes the connection after it."""
    with client, client.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body
