"""One process that serves: granian's HTTP (hyper) before the application."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask
from granian import _granian
from granian.http import HTTP1Settings

from serve import settings
from serve.app import close_app, start_background
from serve.server.door import Door
from serve.server.doorkeeper import Doorkeeper
from serve.server.intake import Intake
from serve.server.spread import Spread

granian: Any = _granian  # its type stubs are behind it

# From a connection, or the end of an answer, to the end of the next head: also how long a
# connection may be idle.
HEAD_SECONDS = 30
MAX_HEAD_BYTES = 32_768  # hyper's buffer of a connection: longer heads are refused with 431
BACKLOG = 2048  # connections that wait to be accepted; the kernel's own bound may be lower
OWN_FILES = 256  # left to the log, bodies in files and libraries by those who are connected
GRACE_SECONDS = 15  # for what is being answered when the service stops


def work(app: Flask, listener: socket.socket, number: int, counts: mmap.mmap, alive: int) -> None:
    """Serve until SIGTERM or SIGINT, then let what is due be answered and keep the log.

    Args:
        app: not yet started.
        listener: of this worker alone.
        number: of this worker, from 0.
        counts: shared with the other workers, see `spread`.
        alive: a pipe of which the parent holds the other end.
    """
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_SETMASK, stops)  # before there are threads: all inherit it
    threading.Thread(target=_watch_parent, args=(alive,), daemon=True, name="parent").start()
    start_background(app)
    intake = Intake(app.config["MAX_CONTENT_LENGTH"], settings.body_seconds())
    most = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OWN_FILES, OWN_FILES)
    door = Door(app, intake, settings.threads(), Spread(counts, number), settings.access_log())
    gc.freeze()  # what is loaded stays: collections need not look at it again and again
    stop, stopped = _serve(door, listener, number, most)
    port, of_one = listener.getsockname()[1], settings.client_connections()
    Doorkeeper(port, of_one, most, door.served).start()
    signal.sigwait(stops)
    stop()
    intake.hurry()
    door.close(GRACE_SECONDS)
    stopped.wait(1)  # idle connections are closed; who has sent half a head is not waited for
    close_app(app)


def _serve(
    door: Door, listener: socket.socket, number: int, most: int
) -> tuple[Callable[[], None], threading.Event]:
    """Start granian's threads; return what stops them, and what is set when they have stopped."""
    stopped, ended = granian.WorkerSignal(), threading.Event()
    stopped.add_cb(ended.set)
    in_place = _InPlace()
    scheduler = granian.CallbackScheduler(in_place, None, None, None, None)
    scheduler._schedule_fn = door
    worker = granian.RSGIWorker(
        worker_id=number + 1,
        sock=(None, granian.SocketHolder(listener.fileno(), False, BACKLOG)),
        ipc=None,
        backpressure=most,
        http1_opts=HTTP1Settings(1000 * HEAD_SECONDS, max_buffer_size=MAX_HEAD_BYTES),
    )
    worker.serve_str(scheduler, in_place, stopped)
    return stopped.set, ended


class _InPlace:
    """What granian takes for an event loop: callbacks run where it calls them.

    It calls on one thread, which runs Python and nothing else. An asyncio loop on a second one
    would be woken through a pipe twice a request, and both would wait for each other's lock.
    """

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> None:
        callback(*args)

    call_soon_threadsafe = call_soon


def _watch_parent(alive: int) -> None:
    """Stop in order when the parent is gone: nobody would replace or stop this worker."""
    with contextlib.suppress(OSError):
        os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
