"""The worker's side of the process that unpacks Parquet bodies (`parquet_child`).

It is started with the first of them and lives as long as the worker. For each body it has forked a
process, which ends with it: a fork takes a millisecond, as its end does, and no body waits for
them; to start Python and load the reader takes 30 of a core, which the model needs. Files come and
go in memory that has a descriptor, so however large they are, nobody waits for somebody else to
read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

from serve.bodies import parquet_child
from serve.bodies.parquet_child import NUMBER

FORK_SECONDS = 5.0  # until a process takes the body. One just started loads the reader first
ENDED = "the process that unpacks has ended"
END_SECONDS = 1.0  # until it has ended the process of a body, and itself


class SlowError(Exception):
    """A body took too long."""


class Unpacked(NamedTuple):
    """What the process of a body left."""

    code: int  # it ends with; where a signal ended it, the negative number of that
    content: bytes  # of its stdout
    errors: bytes  # of its stderr


class Unpacker:
    """Unpacks bodies, one at a time.

    Args:
        script: run by Python, see `parquet_child`.
    """

    def __init__(self, script: str = parquet_child.__file__) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def unpack(self, body: bytes, most: int, seconds: float) -> Unpacked:
        """Unpack a body of at most so many rides, within so many seconds by the clock.

        Raises:
            SlowError: it takes longer.
            OSError: a process that was there does not answer, and neither does a new one.
        """
        try:
            return self._try(body, most, seconds)
        except OSError:  # somebody ended it, or stopped it
            return self._try(body, most, seconds)

    def close(self) -> None:
        """End the process, and that of a body if there is one."""
        if self._control:
            # It sees that no more is asked, ends and reaps the other, and itself.
            self._control.settimeout(END_SECONDS)
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
                if self._control.recv(NUMBER.size):  # of the one it ended
                    self._control.recv(NUMBER.size)
            self._control.close()
        if self._process:
            # For one that is stopped. Both are a group of this id, nobody else's until reaped.
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._control = self._process = None

    def _try(self, body: bytes, most: int, seconds: float) -> Unpacked:
        with _open_file() as file, _open_file() as content, _open_file() as errors:
            file.write(body)
            file.seek(0)
            try:
                control = self._control or self._start()
                files = [file.fileno(), content.fileno(), errors.fileno()]
                socket.send_fds(control, [NUMBER.pack(most)], files)
                code = _exit_code(control, seconds)
            except BaseException as error:  # or the next body would get this one's answer
                self.close()
                if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                    raise ConnectionError(ENDED) from error
                raise
            if code < 0:
                # One that crashes may tell where its functions lie, and those of a fork lie alike.
                self.close()
            return Unpacked(code, _whole(content), _whole(errors))

    def _start(self) -> socket.socket:
        # Without site and without numpy it starts in a tenth of the time.
        packages = str(Path(getattr(find_spec("arro3.io"), "origin", "")).parents[2])
        command = [sys.executable, "-I", "-S", self._script, packages]
        self._control, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                command, stdin=there.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        return self._control


def _exit_code(control: socket.socket, seconds: float) -> int:
    """Wait until a process has taken the body, and has read it or ended.

    Raises:
        SlowError: it has done neither in time.
        OSError: nothing that makes sense was answered.
    """
    if _number(control, FORK_SECONDS) <= 0:
        raise ConnectionError("no process of this id")
    try:
        code = _number(control, seconds)
    except TimeoutError:
        raise SlowError from None
    if not -128 < code < 256:
        raise ConnectionError("no exit code")
    return code


def _number(control: socket.socket, seconds: float) -> int:
    control.settimeout(seconds)
    came = control.recv(NUMBER.size)
    if len(came) < NUMBER.size:
        raise ConnectionError(ENDED)
    number: int = NUMBER.unpack(came)[0]
    return number


def _open_file() -> IO[bytes]:
    """Memory that is free again when the last process has closed it."""
    # Unbuffered: a buffer would not see that a child has moved the position, which both share.
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("parquet"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
