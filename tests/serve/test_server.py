"""The server's parts, each with fakes of its neighbours: lanes, bodies, WSGI, spread."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import threading
import time
from functools import partial

import pytest
from service_samples import RIDE, make_card

from serve.bodies.errors import ApiError
from serve.server import doorkeeper as doorkeepers
from serve.server import intake as intakes
from serve.server import pulse as pulses
from serve.server.door import QUICK_BYTES, Door, Lane
from serve.server.doorkeeper import Doorkeeper
from serve.server.intake import Intake
from serve.server.pulse import BEAT_SECONDS, MISSED, Pulse
from serve.server.spread import BUSY_REQUESTS, SEEN_SECONDS, Spread, shared_counts
from serve.server.wsgi import environ_of


class Headers(dict):
    """granian's: names in small letters, several values a name, those not ASCII kept back."""

    def __init__(self, *pairs):
        super().__init__({name: value for name, value in pairs if value.isascii()})
        self.pairs = pairs

    def items(self):
        return [(name, value) for name, value in self.pairs if value.isascii()]

    def keys(self):
        return list(dict(self.pairs))

    def __contains__(self, name):
        return name in dict(self.pairs)


class Scope:
    """A request's head as granian gives it."""

    scheme, http_version, server = "http", "1.1", "127.0.0.1:9696"

    def __init__(self, path="/predict", method="POST", query="", headers=(), client="9.9.9.9:4"):
        self.path, self.method, self.query_string, self.client = path, method, query, client
        self.headers = Headers(*headers)


class Proto:
    """granian's protocol: futures for the body, and what was answered."""

    def __init__(self, *chunks):
        self.chunks = list(chunks)
        self.answers = []
        self.at_once = False  # the whole body was asked for

    def __call__(self):
        self.at_once = True
        return Future(self.chunks)

    def __aiter__(self):
        return self

    def __anext__(self):
        if not self.chunks:
            raise StopAsyncIteration
        return Future([self.chunks.pop(0)])

    def response_bytes(self, status, headers, body):
        self.answers.append((status, sorted((k.lower(), v) for k, v in headers), body))


class Future:
    """A result that is there at once; None stands for one that never comes."""

    def __init__(self, chunks):
        self.chunks, self.is_cancelled = chunks, False

    def add_done_callback(self, callback):
        self.callback = callback
        if None not in self.chunks:
            callback(self)

    def cancel(self):
        self.is_cancelled = True
        self.callback(self)

    def cancelled(self):
        return self.is_cancelled

    def result(self):
        if self.is_cancelled:
            raise RuntimeError("cancelled")
        if any(isinstance(chunk, Exception) for chunk in self.chunks):
            raise self.chunks[0]
        return b"".join(self.chunks)


@pytest.fixture
def intake():
    intake = Intake(most=4000, seconds=20)
    yield intake
    intake.close()


@pytest.fixture
def make_door(make_app, models, intake):
    def make(settings=None, shared=1):
        app = make_app(settings, model=(models[1], make_card(1, "LR")))
        return app, Door(app, intake, 2, Spread(shared_counts(shared), 0, start=False))

    return make


def ask(door, scope, *chunks):
    """Return the answer to a request; those by threads are waited for."""
    proto = Proto(*chunks)
    door(type("Watcher", (), {"scope": scope, "proto": proto}))
    door.close(20)
    assert len(proto.answers) == 1
    return proto.answers[0]


JSON_HEADERS = (("content-type", "application/json"), ("content-length", "1"))


@pytest.mark.parametrize(
    "body",
    [json.dumps(RIDE), json.dumps([RIDE, {**RIDE, "ride_id": 7}]), "[]", "{}", "{", "\x00",
     json.dumps({**RIDE, "PULocationID": 999}),
     json.dumps({**RIDE, "trip_distance": float("nan")})],
)  # fmt: skip
def test_a_few_rides_are_answered_as_flask_answers_them(make_door, body):
    app, door = make_door()
    status, headers, content = ask(door, Scope(headers=JSON_HEADERS), body.encode())
    through_flask = app.test_client().post("/predict", data=body, content_type="application/json")
    theirs = sorted((k.lower(), v) for k, v in through_flask.headers if k != "Content-Length")
    assert (status, [h for h in headers if h[0] != "content-length"]) == (
        through_flask.status_code, theirs,
    )  # fmt: skip
    assert without_ids(json.loads(content)) == without_ids(through_flask.json)
    assert len(list(app.extensions["taxi"].log.answered())) in (0, 2, 4)
    counted = app.test_client().get("/metrics").text
    assert f'taxi_requests_total{{endpoint="predict.predict",status="{status}"}} 2.0' in counted


def without_ids(content):
    for answer in content if isinstance(content, list) else [content]:
        answer.pop("prediction_id", None)
    return content


def test_a_model_that_fails_is_said_once_and_as_flask_says_it(make_door, monkeypatch):
    app, door = make_door()
    serving = app.extensions["taxi"].holder.serving
    monkeypatch.setattr(serving.champion.predictor, "answer", lambda *_: 1 / 0)
    status, _, content = ask(door, Scope(headers=JSON_HEADERS), json.dumps(RIDE).encode())
    assert (status, json.loads(content)["error"]["code"]) == (500, "internal")
    assert 'taxi_model_failures_total{arm="champion",version="green-duration:1"} 1.0' in (
        app.test_client().get("/metrics").text
    )


@pytest.mark.parametrize(
    ("scope", "thread"),
    [
        (Scope(headers=JSON_HEADERS), "MainThread"),
        (Scope("/health", "GET"), "MainThread"),
        (Scope("/ping", "GET"), "MainThread"),
        (Scope("/ready", "GET"), "ready"),
        (Scope("/monitor/data", "GET"), "work"),
        (Scope(query="explain=true", headers=JSON_HEADERS), "work"),
        (Scope(method="GET", headers=JSON_HEADERS), "work"),
        (Scope(headers=(*JSON_HEADERS, ("content-encoding", "gzip"))), "work"),
        (Scope(headers=(("content-type", "text/csv"), ("content-length", "1"))), "work"),
        (Scope("/feedback", headers=JSON_HEADERS), "work"),
    ],
)
def test_what_may_take_long_is_answered_by_a_thread(make_door, monkeypatch, scope, thread):
    app, door = make_door()
    threads = []
    count = app.extensions["taxi"].instruments.count_request
    monkeypatch.setattr(
        app.extensions["taxi"].instruments, "count_request",
        lambda *a: (threads.append(threading.current_thread().name), count(*a)),
    )  # fmt: skip
    ask(door, scope, json.dumps(RIDE).encode())
    assert [name.split("_")[0] for name in threads] == [thread]


def test_many_rides_are_answered_by_a_thread(make_door, monkeypatch):
    _, door = make_door()
    monkeypatch.setattr(door, "_answer_ride", None)
    rides = [RIDE] * (QUICK_BYTES // len(json.dumps(RIDE)) + 1)
    done = ask(door, Scope(headers=JSON_HEADERS), json.dumps(rides).encode())
    assert (done[0], len(json.loads(done[2]))) == (200, len(rides))


def test_a_key_is_asked_for_however_short_the_way(make_door):
    _, door = make_door({"API_KEYS": ("secret",)})
    ride = json.dumps(RIDE).encode()
    assert ask(door, Scope(headers=JSON_HEADERS), ride)[0] == 401
    with_key = (*JSON_HEADERS, ("x-api-key", "secret"))
    assert ask(door, Scope(headers=with_key), ride)[0] == 200


# --- lanes ------------------------------------------------------------------------------


def test_a_lane_is_bounded_and_one_address_gets_half_of_it():
    free = threading.Event()
    wait = partial(free.wait, 20)  # or threads would keep a test that fails from ending
    lane = Lane("work", threads=1, waiting=5)
    taken = [lane.take("a", wait) for _ in range(4)]
    assert taken == [True, True, True, False]
    assert [lane.take(name, wait) for name in "bbcd"] == [True, True, True, False]
    free.set()
    done = threading.Event()
    while not lane.take("a", done.set):
        pass
    assert done.wait(20)


def test_too_many_that_wait_are_told_to_come_again(make_door, monkeypatch):
    _, door = make_door()
    monkeypatch.setattr(door._work, "take", lambda *_: False)
    status, headers, body = ask(door, Scope("/monitor/data", "GET"))
    assert (status, json.loads(body)["error"]["code"]) == (503, "busy")
    assert ("retry-after", "2") in headers
    assert ("connection", "close") in headers


def test_a_client_is_served_from_the_queue_to_the_answer(make_door, monkeypatch):
    """The doorkeeper leaves these alone, and not those who are still sending."""
    _, door = make_door()
    jobs, proto = [], Proto()
    monkeypatch.setattr(door._work, "take", lambda _, job: jobs.append(job) or True)
    for scope, given in ((Scope("/monitor/data", "GET"), proto),
                         (Scope(headers=CHUNKED, client="8.8.8.8:1"), Proto(None))):  # fmt: skip
        door(type("Watcher", (), {"scope": scope, "proto": given}))
    assert (door.served, door.open) == ({"9.9.9.9:4"}, {"9.9.9.9:4", "8.8.8.8:1"})
    jobs[0]()
    assert len(proto.answers) == 1
    assert (door.served, door.open) == (set(), {"8.8.8.8:1"})


# --- bodies -----------------------------------------------------------------------------


def received(intake, headers, *chunks):
    """Return body and refusal of a request with these headers."""
    came = []
    intake.receive(Proto(*chunks), Headers(*headers), lambda *what: came.append(what))
    assert len(came) == 1
    body, refusal = came[0]
    return body if isinstance(body, bytes) else body.read(), refusal and refusal.status


CHUNKED = (("transfer-encoding", "chunked"),)


@pytest.mark.parametrize(
    ("headers", "chunks", "expected"),
    [
        ((("content-length", "0"),), [], (b"", None)),
        ((("content-length", "3"),), [b"abc"], (b"abc", None)),
        ((("content-length", "3"),), [RuntimeError("closed")], (b"", 400)),
        (CHUNKED, [b"ab", b"c", b""], (b"abc", None)),
        (CHUNKED, [b""], (b"", None)),
        (CHUNKED, [b"ab", b"", b""], (b"", 400)),  # it broke
        ((*CHUNKED, ("trailer", "x-sum")), [b"ab", b"", b""], (b"ab", None)),
        (CHUNKED, [b"a" * 4000, b""], (b"a" * 4000, None)),
        (CHUNKED, [b"a" * 4000, b"b", b""], (b"", 413)),
        ((("content-length", "4001"),), [b"a" * 4001, b""], (b"", 413)),
        ((("content-length", "4001"), ("expect", "100-continue")), [None], (b"", 413)),
    ],
)
def test_a_body_comes_whole_or_is_refused(intake, headers, chunks, expected):
    assert received(intake, headers, *chunks) == expected
    assert (intake.arrivals, intake.held, intake.announced) == (set(), 0, 0)


def test_a_large_body_comes_in_a_file_and_a_cut_one_is_refused(monkeypatch, intake):
    monkeypatch.setattr(intakes, "WHOLE_BYTES", 10)
    announced = (("content-length", "12"),)
    assert received(intake, announced, b"abcdef", b"ghijkl", b"") == (b"abcdefghijkl", None)
    assert received(intake, announced, b"abcdef", b"") == (b"", 400)
    assert received(intake, CHUNKED, b"abcdef", b"ghijkl", b"") == (b"abcdefghijkl", None)
    assert intake.held == 0


def test_bodies_come_at_once_while_there_is_room_and_then_part_by_part(monkeypatch, intake):
    monkeypatch.setattr(intakes, "SMALL_BYTES", 5)
    monkeypatch.setattr(intakes, "ROOM_BYTES", 20)
    came = []

    def begin(length: int) -> Proto:
        proto, headers = Proto(None), Headers(("content-length", str(length)))
        intake.receive(proto, headers, lambda body, refusal: came.append((body, refusal.status)))
        return proto

    at_once = [begin(length) for length in (10, 10, 5, 10, 5)]
    assert [proto.at_once for proto in at_once] == [True, True, True, False, True]
    assert intake.announced == 20
    intake.look(time.monotonic() + 1000)  # their time is over
    assert came == [(b"", 408)] * 5
    assert intake.announced == 0
    assert begin(10).at_once


def test_there_is_room_for_so_many_large_bodies_and_no_more(monkeypatch, intake):
    monkeypatch.setattr(intakes, "HELD_BYTES", 5)
    intake.receive(Proto(b"abcd", None), Headers(*CHUNKED), lambda *_: None)
    assert received(intake, CHUNKED, b"ab", b"") == (b"", 503)
    assert intake.held == 4


@pytest.mark.parametrize(
    ("headers", "status"),
    [((("content-length", "9"),), 408), (CHUNKED, 408), ((("content-length", "4001"),), 413)],
)
def test_a_body_whose_time_is_over_is_refused(intake, headers, status):
    came = []
    intake.receive(Proto(None), Headers(*headers), lambda *what: came.append(what))
    (arrival,) = intake.arrivals
    intake.look(arrival.until)
    assert came == []
    intake.look(arrival.until + 0.001)
    assert [(body, refusal.status) for body, refusal in came] == [(b"", status)]
    assert intake.arrivals == set()


def test_a_refused_body_is_read_on_so_far_and_so_long(monkeypatch, intake):
    monkeypatch.setattr(intakes, "UNREAD_BYTES", 6000)
    proto, came = Proto(*[b"a" * 1000] * 20), []
    intake.receive(proto, Headers(("content-length", "20000")), lambda *what: came.append(what))
    assert [(body, refusal.status) for body, refusal in came] == [(b"", 413)]
    assert len(proto.chunks) == 20 - 7
    intake.receive(Proto(None), Headers(("content-length", "20000")), lambda *_: None)
    (arrival,) = intake.arrivals
    assert arrival.until <= time.monotonic() + intakes.UNREAD_SECONDS


def test_a_disk_that_takes_no_body_is_said(monkeypatch, intake):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(intakes.tempfile, "SpooledTemporaryFile", lambda _: Full())
    assert received(intake, CHUNKED, b"ab", b"") == (b"", 503)


def test_who_is_still_sending_when_the_service_stops_has_little_time(intake):
    intake.receive(Proto(None), Headers(*CHUNKED), lambda *_: None)
    (arrival,) = intake.arrivals
    before = arrival.until
    intake.hurry()
    assert arrival.until <= before - 20 + intakes.UNREAD_SECONDS + 1


# --- connections ------------------------------------------------------------------------


@pytest.fixture
def connect():
    """Connections to a listener of this process: client, and whether it was hung up on."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    ours, theirs = [], []

    def connect(n):
        for _ in range(n):
            ours.append(socket.create_connection(listener.getsockname()))
            theirs.append(listener.accept()[0])
        return [":".join(map(str, client.getsockname())) for client in ours]

    def ended():
        found = []
        for client in ours:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                found.append((client.recv(1), ours.index(client))[1])
        return found

    yield listener.getsockname()[1], connect, ended
    for connection in (*ours, *theirs, listener):
        connection.close()


@pytest.mark.parametrize(
    ("of_one", "most", "there", "ended"),
    [(10, 10_000, 10, []), (10, 10_000, 13, [0, 2, 3]), (1000, 20, 16, []), (1000, 20, 17, [0, 2])],
)
def test_too_many_connections_of_an_address_are_ended_the_oldest_first(
    connect, of_one, most, there, ended
):
    port, open_more, hung_up_on = connect
    served = set()
    keeper = Doorkeeper(port, of_one, most, served)
    served.add(open_more(5)[1])  # is being answered
    keeper.look()
    open_more(there - 5)
    files = os.listdir("/proc/self/fd")  # noqa: PTH208
    assert keeper.look() == len(ended)
    assert os.listdir("/proc/self/fd") == files  # noqa: PTH208
    assert hung_up_on() == ended


def test_few_connections_are_not_even_looked_at(connect, monkeypatch):
    port, open_more, _ = connect
    open_more(3)
    monkeypatch.setattr(doorkeepers, "_clients", None)
    assert Doorkeeper(port, 1000, 10_000, ()).look() == 0


def test_a_connection_is_not_ended_for_another_s_sake(connect):
    _, open_more, hung_up_on = connect
    client = open_more(1)[0]
    file = next(file for file, found in doorkeepers._clients(connect[0]) if found == client)
    assert not doorkeepers._hang_up(file, "1.2.3.4:5")
    assert hung_up_on() == []
    assert doorkeepers._hang_up(file, client)


# --- WSGI -------------------------------------------------------------------------------


def test_the_environment_says_what_came():
    headers = [("accept", "a"), ("accept", "b"), ("x-forwarded-for", "é")]
    headers += [("content-type", "text/csv"), ("transfer-encoding", "chunked")]
    scope = Scope("/réach", "GET", "a=1", headers, "[::1]:80")
    environ = environ_of(scope, scope.client, b"abc")
    expected = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/rÃ©ach", "QUERY_STRING": "a=1",
        "HTTP_ACCEPT": "a,b", "CONTENT_TYPE": "text/csv", "CONTENT_LENGTH": "3",
        "REMOTE_ADDR": "::1", "REMOTE_PORT": "80", "SERVER_PORT": "9696",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_X_FORWARDED_FOR": "",  # that it came is known, though not what it says
    }  # fmt: skip
    assert {name: environ[name] for name in expected} == expected
    assert "HTTP_TRANSFER_ENCODING" not in environ  # werkzeug would read no body
    assert environ["wsgi.input"].read() == b"abc"


# --- signs of life ----------------------------------------------------------------------


def test_who_stops_counting_is_silent_after_so_many_looks():
    now = 0.0
    pulse = Pulse(3, lambda: now)
    found = []
    for _ in range(MISSED):
        now += BEAT_SECONDS
        pulse.beat(0)
        found.append(pulse.silent([0, 1]))  # the third does not run
        assert pulse.silent([0, 1]) == []  # within a beat nothing is missed
    assert found == [[]] * (MISSED - 1) + [[1]]
    pulse.begin(1)
    now += BEAT_SECONDS
    assert pulse.silent([1]) == []


def test_who_was_stopped_together_with_the_parent_is_not_silent():
    now = 0.0
    pulse = Pulse(1, lambda: now)
    now = 3600.0
    assert pulse.silent([0]) == []


def test_a_process_counts_by_itself(monkeypatch):
    monkeypatch.setattr(pulses, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(pulses, "MISSED", 100)
    pulse = Pulse(2)
    pulse.start(1)
    found: list[int] = []
    deadline = time.monotonic() + 60
    while not found:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        found = pulse.silent([0, 1])
    assert found == [0]


# --- spread -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "requests", "given_up"),
    [(8, 0, 100, 4), (6, 2, 100, 2), (5, 3, 100, 1), (4, 4, 100, 0), (5, 4, 100, 0),
     (2, 6, 100, 0), (8, 0, BUSY_REQUESTS - 1, 0), (8, 0, BUSY_REQUESTS, 4)],
)  # fmt: skip
def test_a_busy_worker_gives_up_what_the_idlest_lacks(mine, theirs, requests, given_up):
    shared, still = shared_counts(2), lambda: 1.0
    other, me = (Spread(shared, i, start=False, clock=still) for i in (1, 0))
    for client in range(theirs):
        other.gives_up(str(client))
    other.look()
    for i in range(requests):
        assert not me.gives_up(str(i % mine))
    me.look()
    assert sum(me.gives_up(str(client)) for client in range(mine)) == given_up


class Clients:
    """Connections to two workers, each with a request in so many seconds of a clock of its own."""

    def __init__(self, workers: list[int], every: float, seed: int = 0) -> None:
        self.now, self.every, self.chance = 0.0, every, random.Random(seed)
        shared = shared_counts(2)
        self.spreads = [Spread(shared, i, start=False, clock=lambda: self.now) for i in (0, 1)]
        names = [f"{i}" for i in range(len(workers))]
        self.worker_of = dict(zip(names, workers, strict=True))
        self.next_of = {name: self.chance.uniform(0, every) for name in names}
        self.closed = 0

    def run(self, seconds: float) -> list[int]:
        """Let time pass; return the number of connections of each worker."""
        look_at, until = self.now + SEEN_SECONDS, self.now + seconds
        while (name := min(self.next_of, key=self.next_of.__getitem__)) and (
            self.next_of[name] < until
        ):
            self.now = self.next_of.pop(name)
            if self.now >= look_at:  # as the thread does
                look_at += SEEN_SECONDS
                for spread in self.spreads:
                    spread.look()
            worker = self.worker_of.pop(name)
            if self.spreads[worker].gives_up(name):
                self.closed += 1
                worker, name = self.chance.choice((0, 1)), f"{name}+"
            self.worker_of[name], self.next_of[name] = worker, self.now + self.every
        return [list(self.worker_of.values()).count(i) for i in (0, 1)]


@pytest.mark.parametrize("workers", [[0] * 8, [0] * 7 + [1], [1] * 6 + [0] * 2, [0] * 5 + [1] * 3])
def test_connections_are_soon_spread_evenly(workers):
    found = [Clients(workers, 0.003, seed).run(0.25) for seed in range(200)]
    assert sum(one == [4, 4] for one in found) >= 199


def test_a_second_load_is_spread_as_the_first_was():
    clients = Clients([0, 1] * 4, 0.003)
    clients.run(0.5)
    clients.next_of = dict.fromkeys(clients.next_of, clients.now + 0.5)  # a pause
    clients.worker_of = dict.fromkeys(clients.worker_of, 0)
    assert clients.run(1.0) == [4, 4]


@pytest.mark.parametrize("every", [0.003, 0.03, 0.08])
def test_connections_that_are_even_are_left_in_peace(every):
    clients = Clients([0, 1] * 20, every)
    clients.run(0.02)  # half of them have not spoken yet
    clients.closed = 0
    clients.run(3)
    assert clients.closed == 0


def test_the_refusal_of_the_server_is_the_application_s(make_door):
    app, door = make_door()
    status, headers, body = ask(
        door, Scope(headers=(*JSON_HEADERS[:1], *CHUNKED)), b"a" * 4001, b""
    )
    refusal = ApiError(413, "too_large", "the body is too large; at most 0.004 MB are allowed")
    assert (status, json.loads(body)["error"]["message"]) == (413, refusal.error.message)
    assert ("connection", "close") in headers
    counted = app.test_client().get("/metrics").text
    assert 'taxi_requests_total{endpoint="predict.predict",status="413"} 1.0' in counted
