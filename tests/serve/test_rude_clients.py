"""Clients that drip, stall, flood or never read: everybody else is answered meanwhile."""

from __future__ import annotations

import json
import re
import resource
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from running import answer_of
from service_samples import RIDE

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = json.dumps(RIDE).encode()
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
HALF_A_BODY = HEAD + b'Content-Length: 60\r\n\r\n{"PUL'
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
DRIPS = {
    "header": HEAD + b"X-Slow: ",
    "body": HEAD + b"Content-Length: 10000\r\n\r\n",
    "chunk": CHUNKED + b"\r\n2710\r\n",
    "trailer": CHUNKED + b"Trailer: X-Slow\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\nX-Slow: ",
}


@pytest.fixture
def service(served):
    """One worker, so that whoever is held up is seen."""
    return served(THREADS="2", MAX_BODY_MB="3")


def drip(clients: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        for client in clients:
            client.sendall(b"1")


def assert_answers(service) -> None:
    assert service.ask("/health", verb="GET")[0] == 200
    assert service.ask("/ready", verb="GET")[0] == 200
    assert service.ask()[0] == 200
    assert service.ask(content=[RIDE] * 100)[0] == 200  # by a thread


@pytest.mark.slow
@pytest.mark.parametrize("where", DRIPS)
def test_who_drips_holds_nobody_up(service, where):
    clients = [service.send(DRIPS[where]) for _ in range(50)]
    stop = threading.Event()
    thread = threading.Thread(target=drip, args=(clients, stop))
    thread.start()
    try:
        time.sleep(0.5)
        assert_answers(service)
        assert all(is_open(client) for client in clients)  # they still hold on
    finally:
        stop.set()
        thread.join()
        for client in clients:
            client.close()


def is_open(client: socket.socket) -> bool:
    """True while the server has neither answered nor closed."""
    client.setblocking(False)
    try:
        client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.settimeout(20)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", HEAD[:30], HALF_A_BODY], ids=["nothing", "header", "body"])
def test_two_hundred_who_stop_half_way_hold_nobody_up(service, sent):
    clients = [service.send(sent) for _ in range(200)]
    assert_answers(service)
    for client in clients:
        client.close()


@pytest.mark.slow
def test_who_does_not_read_a_long_answer_holds_no_thread(service):
    body = json.dumps([RIDE] * 8000).encode()
    clients = []
    for _ in range(4):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        clients.append(client)
    for client in clients:
        assert client.recv(12) == b"HTTP/1.1 200"  # it is on its way
    assert_answers(service)
    for client in clients:
        client.close()


@pytest.mark.long
def test_ten_thousand_idle_connections_hold_nobody_up(service):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            for _ in range(min(10_000, hard - 500)):
                stack.enter_context(service.send(b""))
            assert_answers(service)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_of_too_many_connections_of_an_address_the_idle_are_ended(served):
    service = served(CLIENT_CONNECTIONS="20")
    clients = [service.send(sent) for sent in (b"", HEAD, HALF_A_BODY) for _ in range(20)]
    deadline = time.monotonic() + 20
    while sum(map(is_open, clients)) > 20 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sum(map(is_open, clients)) in range(15, 21)
    assert_answers(service)
    for client in clients:
        client.close()


@pytest.mark.slow
def test_requests_sent_at_once_are_answered_in_order(service):
    rides = [json.dumps({**RIDE, "ride_id": i}).encode() for i in range(3)]
    many = json.dumps([RIDE] * 500).encode()  # takes longer than those after it
    sent = [many, *rides]
    closing = [b""] * 3 + [b"Connection: close\r\n"]
    client = service.send(
        b"".join(
            HEAD + close + b"Content-Length: %d\r\n\r\n" % len(body) + body
            for body, close in zip(sent, closing, strict=True)
        )
    )
    with client, client.makefile("rb") as file:
        first, *answers = read_answers(file, 4)
        assert file.read() == b""
    assert len(json.loads(first)) == 500
    assert [json.loads(answer)["ride_id"] for answer in answers] == [0, 1, 2]


def read_answers(file, n: int) -> list[bytes]:
    answers = []
    for _ in range(n):
        assert file.readline() == b"HTTP/1.1 200 OK\r\n"
        length = 0
        while (line := file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answers.append(file.read(length))
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [HALF_A_BODY, HEAD + b"Content-Length: 60\r\n\r\n", CHUNKED + b"\r\n5\r\n[{}",
     HEAD + b"Content-Length: 2500000\r\n\r\n[1,"],
    ids=["half", "none", "chunk", "large"],
)  # fmt: skip
def test_a_body_that_stops_arriving_is_answered_with_408(served, sent):
    service = served(MAX_BODY_MB="3", BODY_SECONDS="1")
    before = timeouts(service)
    status, body = answer_of(service.send(sent))
    assert (status, json.loads(body)["error"]["code"]) == (408, "timeout")
    assert timeouts(service) == before + 1


def timeouts(service) -> float:
    """How many the service has counted."""
    metrics = service.ask("/metrics", verb="GET")[1]
    found = re.search(r'^taxi_errors_total\{code="408"\} (.*)$', metrics, re.M)
    return float(found[1]) if found else 0.0


@pytest.mark.slow
def test_a_body_too_large_is_refused_however_it_is_sent(service):
    large = json.dumps([RIDE] * 100_000).encode()
    chunks = b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n"
    for sent in (HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large,
                 CHUNKED + b"\r\n" + chunks):  # fmt: skip
        status, body = answer_of(service.send(sent))
        assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")


@pytest.mark.slow
def test_bodies_come_whole_in_chunks_with_trailers_and_in_files(service):
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    close = b"Connection: close\r\n"
    large = json.dumps([RIDE] * 11_000).encode()
    assert len(large) > 1_000_000
    cases = [
        CHUNKED + close + b"\r\n" + chunks + b"0\r\n\r\n",
        CHUNKED + close + b"Trailer: X-Sum\r\n\r\n" + chunks + b"0\r\nX-Sum: 1\r\n\r\n",
        HEAD + close + b"Content-Length: %d\r\n\r\n" % len(large) + large,
        CHUNKED + close + b"\r\n%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n",
    ]
    for sent in cases:
        assert answer_of(service.send(sent))[0] == 200


@pytest.mark.slow
def test_a_body_that_breaks_off_is_refused(service):
    client = service.send(CHUNKED + b"\r\n%x\r\n" % len(BODY) + BODY + b"\r\nno length\r\n")
    status, body = answer_of(client)
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_body")


@pytest.mark.slow
def test_who_waits_for_a_word_before_the_body_gets_it(service):
    expect = HEAD + b"Connection: close\r\nExpect: 100-continue\r\n"
    client = service.send(expect + b"Content-Length: %d\r\n\r\n" % len(BODY))
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(BODY)
    assert answer_of(client)[0] == 200
    assert answer_of(service.send(expect + b"Content-Length: 4000000\r\n\r\n"))[0] == 413


@pytest.mark.slow
def test_what_is_no_http_is_refused_and_its_connection_closed(service):
    start_line = b"GET /health HTTP/1.1\r\n"
    cases = {
        b"hello\r\n\r\n": 400,
        b"GET / HTTP/3.0\r\n\r\n": 400,
        start_line + b"no colon\r\n\r\n": 400,
        start_line + b"Content-Length: -1\r\n\r\n": 400,
        # The body is in chunks; what might be another request after it is never read.
        start_line + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n": 200,
        start_line + b"X: " + b"a" * 100_000 + b"\r\n\r\n": 431,
    }
    found = {sent: answer_of(service.send(sent))[0] for sent in cases}
    assert found == cases


@pytest.mark.long
def test_who_stays_too_long_is_ended(service):
    """By hyper's clock for heads, and by the kernel's for answers that nobody takes."""
    body = json.dumps([RIDE] * 8000).encode()
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", service.port))
    reader.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    clients = [service.send(sent) for sent in (b"", HEAD)]
    time.sleep(32)
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    with reader, pytest.raises(ConnectionError):
        while reader.recv(1_000_000):
            pass
    assert service.ask()[0] == 200
