"""The service's processes: a parent that loads the app, forks the others and replaces dead ones.

The others are the workers, and one that moves their rows into the prediction log.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import resource
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

from flask import Flask

from serve import settings
from serve.server.log_keeper import keep_log
from serve.server.pulse import BEAT_SECONDS, MISSED, Pulse
from serve.server.spread import shared_counts
from serve.server.worker import BACKLOG, GRACE_SECONDS, STOPS, work
from taxi_duration.errors import SettingError

logger = logging.getLogger(__name__)

STOP_SECONDS = GRACE_SECONDS + 5  # then workers that still run are killed
RETRY_SECONDS = 1.0  # at least between two forks of one number, should it die at once
UNREAD_MILLISECONDS = 20_000  # then a client that reads nothing of its answer is disconnected
UNHEARD = (signal.SIGUSR1, signal.SIGUSR2)  # what other servers take as orders ends none here
TAKEN_SECONDS = 10  # workers of a killed parent need some until they have freed the port


def serve(app: Flask) -> None:
    """Listen and answer until a signal of STOPS.

    Raises:
        SettingError: HOST or PORT names what it cannot listen on, or another program does.
    """
    _raise_file_limit()
    _wait_for_port()
    Processes(app, [_listen() for _ in range(settings.workers())]).run()


class Processes:
    """The workers, numbered from 0, and the log's keeper, whose number is the next one.

    Args:
        app: loaded; its threads are started in the workers.
        listeners: one per worker; they stay open here, so that clients wait while a worker is
            replaced and are not refused.
    """

    def __init__(self, app: Flask, listeners: list[socket.socket]) -> None:
        self._app, self._listeners = app, listeners
        self._counts: mmap.mmap = shared_counts(len(listeners))
        self._alive = os.pipe()
        self._signals, written = os.pipe()  # signal numbers, written by Python's handler
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        for heard in (*STOPS, signal.SIGCHLD):
            signal.signal(heard, lambda *_: None)
        for unheard in UNHEARD:
            signal.signal(unheard, signal.SIG_IGN)
        self._keeper = len(listeners)  # its number
        self._running: dict[int, int] = {}  # process id: number
        self._forked_at = [float("-inf")] * (self._keeper + 1)
        self._pulse = Pulse(self._keeper + 1)

    def run(self) -> None:
        """Keep all processes running until a signal of STOPS, then stop them."""
        host, port = self._listeners[0].getsockname()[:2]
        logger.info("serving on http://%s:%s, %s workers", host, port, len(self._listeners))
        while True:
            wait = self._start_missing()
            if STOPS & self._wait(min(wait, BEAT_SECONDS)):
                break
            self._kill_silent()
            for number, pid, status in self._ended():
                logger.error("%s (%s) ended: status %s", self._name(number), pid, status)
        self._stop()

    def _wait(self, seconds: float) -> set[int]:
        """Wait for signals, at most so many seconds; return their numbers."""
        if select.select([self._signals], [], [], seconds)[0]:
            return set(os.read(self._signals, 1024))
        return set()

    def _start_missing(self) -> float:
        """Fork what is missing; return the seconds until the next fork is allowed, at most 3600."""
        wait = 3600.0
        for number in set(range(len(self._forked_at))) - set(self._running.values()):
            left = self._forked_at[number] + RETRY_SECONDS - time.monotonic()
            if left > 0:
                wait = min(wait, left)
                continue
            self._forked_at[number] = time.monotonic()
            self._pulse.begin(number)
            self._running[self._fork(number)] = number
        return wait

    def _kill_silent(self) -> None:
        """Kill who gives no sign of life, to be replaced."""
        pids = {number: pid for pid, number in self._running.items()}
        for number in self._pulse.silent(pids):
            name, pid = self._name(number), pids[number]
            logger.error("%s (%s) gave no sign of life for %s s and is killed", name, pid,
                         round(MISSED * BEAT_SECONDS))  # fmt: skip
            os.kill(pid, signal.SIGKILL)
            self._pulse.begin(number)  # said once, should it take long to end

    def _fork(self, number: int) -> int:
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the worker waits for them itself
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            os.close(self._alive[1])
            for other, listener in enumerate(self._listeners):
                if other != number:
                    listener.close()
            self._pulse.start(number)
            if number == self._keeper:
                keep_log(self._app, self._alive[0])
            else:
                work(self._app, self._listeners[number], number, self._counts, self._alive[0])
            code = 0
        except BaseException:
            logger.exception("%s failed", self._name(number))
        finally:
            logging.shutdown()
            os._exit(code)  # without waiting for granian's threads

    def _name(self, number: int) -> str:
        return "the log's keeper" if number == self._keeper else f"worker {number + 1}"

    def _ended(self) -> list[tuple[int, int, int]]:
        """Reap what has ended; return number, process id and wait status of each of ours.

        As the first process of a container this one is given those, too, whose parent has ended
        before them, such as what unpacked Parquet for a killed worker.
        """
        ended = []
        with suppress(ChildProcessError):  # none is left
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if pid in self._running:
                    ended.append((self._running.pop(pid), pid, status))
                    _forget_gauges(pid)
        return ended

    def _stop(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)  # or one that was stopped would not hear it
        until = time.monotonic() + STOP_SECONDS
        while self._running and (left := until - time.monotonic()) > 0:
            self._wait(left)
            self._ended()
        for pid in self._running:
            logger.warning("process %s did not stop in time and is killed", pid)
            os.kill(pid, signal.SIGKILL)


def _socket() -> tuple[socket.socket, tuple[Any, ...]]:
    """Return an unbound socket for `HOST` and `PORT`, and the address; raises SettingError."""
    host, port = settings.host(), settings.port()
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:  # of a label that is empty or too long
        raise SettingError(
            f"HOST is {host!r}; it must be an address or a name of this machine ({error})"
        ) from error
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made, address


def _wait_for_port() -> None:
    """Wait until the port is free; with SO_REUSEPORT we would share it with another service.

    Raises:
        SettingError: another program listens on it, or this machine may not.
    """
    until = time.monotonic() + TAKEN_SECONDS
    while True:
        probe, address = _socket()
        with probe:
            try:
                probe.bind(address)
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    where = f"HOST {settings.host()!r} with PORT {address[1]}"
                    raise SettingError(f"{where} cannot be listened on: {error}") from error
        if time.monotonic() > until:
            raise SettingError(
                f"port {address[1]} of {address[0]} is taken: another program listens there; end "
                "it, or let PORT name another"
            )
        time.sleep(0.2)


def _listen() -> socket.socket:
    """Return a listening socket for one worker: the kernel spreads connections over them."""
    listener, address = _socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Connections inherit these two.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MILLISECONDS)
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


def _raise_file_limit() -> None:
    """Raise the soft limit of open files (usually 1024): each connection is one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _forget_gauges(pid: int) -> None:
    """Remove the gauges of an ended worker; its counters stay."""
    if settings.metrics_dir():
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)
