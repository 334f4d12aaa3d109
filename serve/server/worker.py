"""A worker process: granian's HTTP server (hyper) in front of the application."""

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

granian: Any = _granian  # its type stubs are out of date

# From the connection, or the end of an answer, to the end of the next request head; so also the
# longest idle time of a connection.
HEAD_SECONDS = 30
MAX_HEAD_BYTES = 32_768  # hyper's buffer per connection: longer heads get 431
BACKLOG = 2048  # connections that wait to be accepted; the kernel may lower it
OWN_FILES = 256  # descriptors reserved for log, bodies and libraries
GRACE_SECONDS = 15  # for requests being answered when the service stops
STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` lets it be
    STOPS.add(signal.SIGHUP)


def work(app: Flask, listener: socket.socket, number: int, counts: mmap.mmap, alive: int) -> None:
    """Serve until a signal of STOPS, then finish open requests and close the log.

    Args:
        app: its background threads not yet started.
        listener: this worker's own.
        number: of this worker, from 0.
        counts: shared with the other workers, see `spread`.
        alive: pipe that reads as closed when the parent is gone.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, STOPS)  # before any thread starts: all inherit it
    watch_parent(alive)
    start_background(app)
    intake = Intake(app.config["MAX_CONTENT_LENGTH"], settings.body_seconds())
    most = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OWN_FILES, OWN_FILES)
    door = Door(app, intake, settings.threads(), Spread(counts, number), settings.access_log())
    gc.freeze()  # loaded objects stay for good: collections can skip them
    stop, stopped = _serve(door, listener, number, most)
    port, of_one = listener.getsockname()[1], settings.client_connections()
    Doorkeeper(port, of_one, most, door.served).start()
    signal.sigwait(STOPS)
    stop()
    intake.hurry()
    door.close(GRACE_SECONDS)
    stopped.wait(1)  # idle connections are closed; half-sent heads are not waited for
    close_app(app)


def _serve(
    door: Door, listener: socket.socket, number: int, most: int
) -> tuple[Callable[[], None], threading.Event]:
    """Start granian's threads; return a function that stops them and the event of their end."""
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
    """Stands in for granian's event loop and runs callbacks at once, on the calling thread.

    granian calls from one thread only. An asyncio loop on a second one would be woken through a
    pipe twice per request, and both would contend for the interpreter's lock.
    """

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> None:
        callback(*args)

    call_soon_threadsafe = call_soon


def watch_parent(alive: int) -> None:
    """Stop this process when the parent is gone, which alone could replace or stop it."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()
