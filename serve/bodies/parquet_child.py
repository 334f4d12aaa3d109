"""Reads Parquet files for a worker, each in a process of its own, within limits.

Run by `serve.bodies.unpacker`, by path and without numpy, so that it starts in milliseconds:
`python -I -S serve/bodies/parquet_child.py SITE_PACKAGES`. It loads the reader, which starts no
threads, and then reads nothing itself: for each body it forks a process that does, and ends. It
forks it before the body is there, so that none waits for a fork.

Its stdin is a socket. A request is the number of rides allowed, with three descriptors: the file,
of the wanted columns alone (see `parquet_footer`), one for what comes out and one for errors. It is
answered with the process's id at once, and with its exit code when it has read. What comes out is
a line with the number of rows and the names of columns, these columns as float64, one after the
other, and then, where the pickup is text, the texts as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from array import array
from contextlib import suppress

MEMORY_BYTES = 300_000_000  # of addresses, of which Python and the reader take 50 MB
SECONDS = 3  # of the processor; MAX_RIDES rides take a tenth of one
# Exit codes; the last line on stderr says more. Any other means that a limit ended it.
UNREADABLE, TOO_MANY, BAD_COLUMN = 3, 4, 5
LIMITS = {
    resource.RLIMIT_AS: MEMORY_BYTES,
    resource.RLIMIT_FSIZE: MEMORY_BYTES,  # what comes out is memory too, of no process
    resource.RLIMIT_CPU: SECONDS,
    resource.RLIMIT_CORE: 0,
}
NUMBER = struct.Struct("=q")  # of rides, of a process, or an exit code

BATCH_ROWS = 4096
NAN = float("nan")
PICKUP = "pickup_datetime"
MAX_TEXT = 60  # letters of a time; no time has 40, and a refusal shows so many


class ColumnError(Exception):
    """A column is of a type that is not read; the message starts with its name."""


def main() -> None:
    """Fork a process for each body that is asked for, until the worker has ended."""
    sys.path.append(sys.argv[1])
    import zoneinfo  # noqa: F401 - loaded once, so that no fork has to

    import arro3.core
    import arro3.io  # noqa: F401

    gc.freeze()  # so that no fork writes to the pages of these
    control = socket.socket(fileno=0)
    while _let_read(control):
        pass


def _let_read(control: socket.socket) -> bool:
    """Fork a process that waits for the next body, and tell the worker how it ended.

    Returns:
        False when it ended without one: there is no worker any more, or somebody ended it.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        _wait_and_read(control, theirs)
    theirs.close()
    code = b""
    if is_asked := bool(ours.recv(1)):
        control.sendall(NUMBER.pack(pid))
        if control in select.select([control, ours], [], [])[0]:  # the worker no longer waits
            os.kill(pid, signal.SIGKILL)
        # It says so itself: while its memory is freed, the worker goes on.
        if code := ours.recv(1):
            control.sendall(NUMBER.pack(code[0]))
    status = os.waitpid(pid, 0)[1]
    if is_asked and not code:
        control.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    ours.close()
    return is_asked


def _wait_and_read(control: socket.socket, parent: socket.socket) -> None:
    """Read the next body in this process, and end with it.

    Args:
        control: from where it comes.
        parent: is told with a byte that it came, and the exit code when all is written.
    """
    code = 1
    try:
        if parent in select.select([control, parent], [], [])[0]:  # was ended: nobody is told
            return
        asked, files, *_ = socket.recv_fds(control, NUMBER.size, 3)
        if len(asked) == NUMBER.size and len(files) == 3:
            parent.sendall(b"!")
            for number, file in enumerate(files):
                os.dup2(file, number)  # the first takes the socket's place
            code = read_body(NUMBER.unpack(asked)[0])
            sys.stdout.flush()
            parent.sendall(bytes([code]))
    finally:
        os._exit(code)  # there is nothing to tidy up


def read_body(most: int) -> int:
    """Read a body of at most so many rides; return the exit code."""
    for limit, value in LIMITS.items():
        resource.setrlimit(limit, (value, value))
    try:
        from arro3.io import read_parquet

        body = sys.stdin.buffer.read()
        found = read_columns(read_parquet(io.BytesIO(body), batch_size=BATCH_ROWS), most)
    except TooManyError as error:
        return _say(TOO_MANY, str(error))
    except ColumnError as error:
        return _say(BAD_COLUMN, str(error))
    except BaseException as error:  # the reader's panics are no Exceptions
        return _say(UNREADABLE, _in_words(str(error) or repr(error)))
    rows, columns, texts = found
    sys.stdout.buffer.write(f"{rows} {' '.join(columns)}\n".encode())
    for values in columns.values():
        values.tofile(sys.stdout.buffer)
    if texts is not None:
        sys.stdout.buffer.write(json.dumps(texts).encode())
    return 0


class TooManyError(Exception):
    """More rows than allowed; the message is how many were met."""


def read_columns(reader, most: int) -> tuple[int, dict[str, array], list[str | None] | None]:
    """Return the rows, and their zones, miles and pickups.

    Pickups are seconds of New York local time, or where they are texts, a list of these; null is
    NaN or None.

    Raises:
        ColumnError, TooManyError, and whatever the reader raises.
    """
    kinds = {name: reader.schema.field(name).type for name in reader.schema.names}
    for name, kind in kinds.items():
        _check_type(name, kind)
    is_text = PICKUP in kinds and kinds[PICKUP].is_string(kinds[PICKUP])
    texts: list[str | None] | None = [] if is_text else None
    columns = {name: array("d") for name in kinds if name != PICKUP or not is_text}
    rows = 0
    for batch in reader:  # decoded one by one: a file of too many rows is not unpacked whole
        rows += batch.num_rows
        if rows > most:
            raise TooManyError(str(rows))
        for name, values in columns.items():
            read = _times if name == PICKUP else _numbers
            values.extend(read(batch.column(name)))
        if texts is not None:
            texts.extend(map(_shortened, batch.column(PICKUP).to_pylist()))
    return rows, columns, texts


def _check_type(name: str, kind) -> None:
    if name == PICKUP:
        known = kind.is_timestamp(kind) or kind.is_date(kind) or kind.is_string(kind)
    else:
        known = kind.is_integer(kind) or kind.is_floating(kind) or kind.is_decimal(kind)
    if not known and not kind.is_null(kind):
        expected = "a timestamp, a date or ISO text" if name == PICKUP else "a number"
        found = str(kind).strip().removeprefix("arro3.core.DataType")
        raise ColumnError(f"{name} is of type {found}; it must be {expected}")


def _numbers(column) -> array:
    """A column of numbers. (One of type null does not count its nulls.)"""
    from arro3.core import DataType

    if column.type.is_null(column.type):
        return array("d", [NAN]) * len(column)
    column = column.cast(DataType.float64())
    if column.null_count or not len(column):
        return array("d", [NAN if value is None else value for value in column.to_pylist()])
    return _copied(column)


def _times(column) -> array:
    """A column of timestamps or days; the instants of a zone are converted."""
    from arro3.core import DataType

    if column.type.is_null(column.type):
        return _numbers(column)
    zone = column.type.tz
    column = column.cast(DataType.timestamp("s", tz=zone)).cast(DataType.int64())
    if not zone:
        return _numbers(column)
    instants = column.to_pylist()
    return array("d", [NAN if value is None else _local_seconds(value) for value in instants])


class _ArrowArray(ctypes.Structure):
    """What a column is to programs in C: https://arrow.apache.org/docs/format/CDataInterface.html."""

    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),  # which are null, and the values
    )


def _copied(column) -> array:
    """A column of float64 without nulls, in a tenth of the time that a list of it takes."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    _, capsule = column.__arrow_c_array__()  # which keeps the values while it is there
    there = _ArrowArray.from_address(pointer(capsule, b"arrow_array"))
    values = array("d")
    size = values.itemsize
    values.frombytes(ctypes.string_at(there.buffers[1] + there.offset * size, there.length * size))
    return values


def _local_seconds(instant: int) -> float:
    """Seconds that a clock of New York has counted at this instant."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    try:
        local = datetime.fromtimestamp(instant, ZoneInfo("America/New_York"))
    except (ValueError, OverflowError, OSError):  # beyond datetime's years: refused later
        return instant
    return local.replace(tzinfo=UTC).timestamp()


def _shortened(text: str | None) -> str | None:
    return text and text[:MAX_TEXT]


def _in_words(message: str) -> str:
    """What the reader says without its Rust: `… value: General("Corrupt footer")`."""
    import re  # here: a file that can be read is not to wait for it

    quoted = re.search(r'\w\("([^"]+)"\)', message)
    said = quoted[1] if quoted else message.splitlines()[0].rpartition("rror: ")[2]
    return "it is damaged" if "{" in said else said[:200]


def _say(code: int, message: str) -> int:
    os.write(2, message.encode("utf-8", "backslashreplace"))
    return code


if __name__ == "__main__":
    with suppress(ConnectionError):  # the worker has ended, and waits for nothing
        main()
