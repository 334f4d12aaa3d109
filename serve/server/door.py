"""Dispatches complete requests: answered at once, or by one of a few threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from flask import Flask

from serve.app import REFUSED, quick_predict
from serve.bodies.errors import JSON, ApiError
from serve.headers import TRACEPARENT
from serve.server.intake import Body, Intake
from serve.server.spread import Spread
from serve.server.wsgi import Headers, call, environ_of

logger = logging.getLogger(__name__)
access = logging.getLogger("serve.access")

# A body of /predict up to this size, one or a few rides, is answered at once: handing it to another
# thread takes longer than the answer.
QUICK_BYTES = 2_000
QUICK_PATHS = ("/health", "/ping", "/v2/health/live")  # never wait
# Requests of a worker that may wait for a thread; half as many of one address. At a second per
# long array on two threads the last of them waits half a minute.
WAITING = 64
READY_PATHS = ("/ready", "/v2/health/ready")  # ask the log's store; long arrays do not delay them
READY_THREADS, READY_WAITING = 2, 16


class Door:
    """Called by granian for every request, on its one thread that runs Python.

    Args:
        app: the WSGI application.
        intake: receives bodies.
        threads: for requests that take longer than a few rides.
        spread: decides which connections are closed after their answer.
        log_access: write a line for every request.
    """

    def __init__(
        self, app: Flask, intake: Intake, threads: int, spread: Spread, log_access: bool = False
    ) -> None:
        self.open: set[str] = set()  # clients (address:port) that wait for an answer
        self.served: set[str] = set()  # those of them whose request a thread has, or will get
        self._app, self._intake, self._spread = app, intake, spread
        self._log_access = log_access
        self._answer_ride = None if app.config["API_KEYS"] else quick_predict(app)
        self._work = Lane("work", threads, WAITING)
        self._ready = Lane("ready", READY_THREADS, READY_WAITING)

    def __call__(self, watcher: Any) -> None:
        """Take a request; never raises into granian."""
        try:
            self._take(watcher.scope, watcher.proto)
        except Exception:
            logger.exception("a request failed")

    def _take(self, scope: Any, proto: Any) -> None:
        visit = Visit(scope, proto, scope.client, time.perf_counter())
        self.open.add(visit.client)
        headers = scope.headers
        if "content-length" in headers or "transfer-encoding" in headers:
            self._intake.receive(proto, headers, partial(self._serve, visit))
        else:
            self._serve(visit, b"", None)

    def _serve(self, visit: Visit, body: Body, refusal: ApiError | None) -> None:
        """Answer a request whose body is complete or refused."""
        path = visit.scope.path
        if refusal is not None:
            self._ask_app(visit, body, refusal, close=True)
        elif path == "/predict" and _is_few_rides(visit.scope, body):
            self._answer_few(visit, body)
        elif path in QUICK_PATHS:
            self._ask_app(visit, body)
        else:
            lane = self._ready if path in READY_PATHS else self._work
            address = visit.client.rpartition(":")[0]
            self.served.add(visit.client)
            if not lane.take(address, partial(self._ask_app, visit, body)):
                busy = ApiError(503, "busy", "too many requests are waiting; try again")
                self._ask_app(visit, body, busy, close=True)

    def _answer_few(self, visit: Visit, body: Any) -> None:
        error = None
        if self._answer_ride is not None:
            try:
                self._end(visit, 200, *self._answer_ride(body, _trace(visit.scope.headers)))
                return
            except Exception as found:
                error = found  # answered by the application's error handlers
        self._ask_app(visit, body, error)

    def _ask_app(
        self, visit: Visit, body: Body, error: Exception | None = None, close: bool = False
    ) -> None:
        environ = environ_of(visit.scope, visit.client, body)
        if error is not None:
            environ[REFUSED] = error
        try:
            status, headers, content = call(self._app, environ)
        except Exception:  # its error handler failed, too
            logger.exception("a request failed")
            status, headers, content = 500, [], b""
        if error is not None:
            # Its traceback references this frame and so keeps the connection open.
            error.__traceback__ = None
        self._end(visit, status, headers, content, close)

    def _end(
        self, visit: Visit, status: int, headers: Headers, content: bytes, close: bool = False
    ) -> None:
        if self._spread.gives_up(visit.client) or close:
            headers = [*headers, ("Connection", "close")]
        self.open.discard(visit.client)
        self.served.discard(visit.client)
        visit.proto.response_bytes(status, headers, content)
        if self._log_access:
            _log(visit, status, len(content))

    def close(self, seconds: float) -> None:
        """Wait until all requests are answered, at most so many seconds."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            time.sleep(0.02)


class Visit(NamedTuple):
    """One request: granian's scope and protocol, the client, and its start (`perf_counter`)."""

    scope: Any
    proto: Any
    client: str
    began: float


class Lane:
    """A thread pool with a bounded queue.

    Args:
        name: of its threads.
        threads: number of them.
        waiting: most jobs in the queue; one address may have half of all jobs.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads + waiting
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, address: str, job: Callable[[], None]) -> bool:
        """Queue a job; False when too many wait, in all or of this address."""
        with self._lock:
            if self._taken.total() >= self._most or self._taken[address] >= self._most // 2:
                return False
            self._taken[address] += 1
        self._pool.submit(self._do, address, job)
        return True

    def _do(self, address: str, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            logger.exception("a request failed")
        finally:
            with self._lock:
                self._taken[address] -= 1
                if not self._taken[address]:
                    del self._taken[address]


def _is_few_rides(scope: Any, body: Body) -> bool:
    """Return whether a request is JSON of one or a few rides, without reasons."""
    return (
        isinstance(body, bytes)
        and len(body) <= QUICK_BYTES
        and scope.method == "POST"
        and scope.headers.get("content-type") == JSON
        and "content-encoding" not in scope.headers
        and not scope.query_string  # may ask for reasons, which take longer
    )


def _trace(headers: Any) -> str | None:
    """Return the header traceparent, as WSGI has it: several joined."""
    return ",".join(headers.get_all(TRACEPARENT)) if TRACEPARENT in headers else None


def _log(visit: Visit, status: int, size: int) -> None:
    scope = visit.scope
    target = scope.path + (f"?{scope.query_string}" if scope.query_string else "")
    access.info(
        '%s "%s %s HTTP/%s" %d %d %.1f ms',
        visit.client.rpartition(":")[0],
        scope.method,
        target.encode("unicode_escape").decode(),
        scope.http_version,
        status,
        size,
        1000 * (time.perf_counter() - visit.began),
    )
