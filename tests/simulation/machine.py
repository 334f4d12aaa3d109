"""A machine to run the real code on: its disk fails, its clock is ours, its processes can die.

The code's own calls (`open`, `os.write`, `os.fsync`, `os.replace`, `flock`, `time.time`, SQL
statements …) come here first. Before each of them the machine may let another process go on,
refuse the call as a disk would, or end the process: the call is not made, or a `write` made in
part, and nothing after it. Files are real ones in a folder of memory.

What a power cut leaves, as strictly as POSIX allows it:

- bytes of a file up to its last `fsync`, and any beginning of what was appended since;
- names (created, renamed, removed) up to the last `fsync` of their folder, and after that any
  beginning of the later changes, in their order, as a journal writes them;
- an `fsync` that failed may be repeated; folders themselves are there since the installation;
- SQLite keeps its promise: a transaction is whole or not there, a committed one stays.

A killed process loses nothing that the kernel has, its locks are free and its files closed.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import random
import secrets
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import filelock
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from taxi_duration import timestamps
from taxi_duration.loop import by_hand, turn

REAL_OPEN, REAL_CLOSE, REAL_IO_OPEN = os.open, os.close, io.open
REAL_WRITE, REAL_FSYNC, REAL_FLOCK = os.write, os.fsync, fcntl.flock
REAL_RENAME, REAL_UNLINK, REAL_PREAD = os.rename, os.unlink, os.pread
SWITCH_SHARE = 0.08  # of the calls after which another process goes on: some switches an action

# What a disk says, by what it is asked; a full one still reads, renames and removes.
REFUSALS: dict[str, dict[str, int]] = {
    "full": {"create": errno.ENOSPC, "write": errno.ENOSPC, "fsync": errno.ENOSPC},
    "read-only": dict.fromkeys(("create", "append", "write", "rename", "unlink"), errno.EROFS),
    "failing": dict.fromkeys(
        ("create", "append", "read", "write", "fsync", "rename", "unlink"), errno.EIO
    ),
}


class Crash(BaseException):
    """The process is no more. Not an `Exception`: no code of ours can answer it."""


class Process:
    """What dies as one: the files that are open, the locks that are held."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.files: dict[int, SimulatedFile | None] = {}
        self.at_death: list[Callable[[], None]] = []
        self.baton = threading.Lock()
        self.baton.acquire()


class Machine:
    """Disk, clock and processes of one history.

    Args:
        root: an empty folder, in memory for speed.
        seed: of all that happens by chance.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root = str(root)
        self.chance = random.Random(seed)
        self.clock = datetime(2021, 12, 2, tzinfo=UTC).timestamp()
        self.uptime = 0.0  # seconds, which no clock that is set changes
        self.story: list[str] = []
        self.calls = 0
        self.crash_at: int | None = None
        self.power_fails = False  # at the crash: all processes die, and what is not synced may go
        self.refusal: str | None = None
        self.refusal_share = 0.0
        self.current: Process | None = None
        self.ready: list[Process] = []
        self.locks: dict[str, Process] = {}
        self.disk = Disk(self.chance)
        self._main = threading.Lock()
        self._main.acquire()

    # --- processes ----------------------------------------------------------------------

    def run(self, tasks: Sequence[tuple[Process, Callable[[], Any]]]) -> list[Any]:
        """Let processes do something at once; return what each came to.

        That is what it returned, the `Exception` that it raised, or `Crash` where it died.
        """
        self.ready = [process for process, _ in tasks]
        if len(tasks) == 1:  # a thread of its own would only cost time
            self.current = self.ready[0]
            return [self._do(*tasks[0])]
        outcomes: list[Any] = [None] * len(tasks)

        def work(number: int) -> None:
            process, act = tasks[number]
            process.baton.acquire()
            outcomes[number] = self._do(process, act)
            self._pass_on(self.chance.choice(self.ready) if self.ready else None)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(tasks))]
        for thread in threads:
            thread.start()
        self._pass_on(self.chance.choice(self.ready))
        self._main.acquire()
        for thread in threads:
            thread.join()
        return outcomes

    def _do(self, process: Process, act: Callable[[], Any]) -> Any:
        """Let the current process act to its end."""
        try:
            self._check()
            return act()
        except (Exception, Crash) as error:
            return Crash() if process.dead else error
        finally:
            self.end(process)
            self.ready.remove(process)
            self.current = None

    def _pass_on(self, process: Process | None) -> None:
        self.current = process
        (process.baton if process else self._main).release()

    def end(self, process: Process) -> None:
        """Free what a dead process held."""
        if not process.dead:
            return
        self.current = None
        for act in process.at_death:
            act()
        for number, file in list(process.files.items()):
            self.disk.closed(number)
            if file is None:
                REAL_CLOSE(number)
            elif not file.closed:
                io.FileIO.close(file)
        process.files.clear()
        self.locks = {path: owner for path, owner in self.locks.items() if owner is not process}

    def switch(self) -> None:
        """Let another process go on, if there is one."""
        self._check()
        process = self.current
        others = [each for each in self.ready if each is not process]
        if process is None or not others:
            return
        self._pass_on(self.chance.choice(others))
        process.baton.acquire()
        self._check()

    def _check(self) -> None:
        if self.current is not None and self.current.dead:
            raise Crash

    def _crash(self, what: str) -> None:
        process = self.current
        assert process is not None
        self.crash_at = None
        fate = "the power fails" if self.power_fails else f"kill -9 of {process.name}"
        self.story.append(f"    {fate} at {what}")
        for each in self.ready if self.power_fails else [process]:
            each.dead = True
        raise Crash

    # --- calls --------------------------------------------------------------------------

    def call(self, kind: str, path: str, torn: Callable[[float], int] | None = None) -> int | None:
        """A call is about to be made: by whom does not matter, only whether it is.

        Args:
            kind: as in `REFUSALS`, or `lock`.
            torn: makes the given share of a `write` and returns its bytes.
        Returns:
            The bytes of a `write` that the machine made in part; None when the call is to be made.
        """
        self._check()
        self.calls += 1
        what = f"{kind} {os.path.basename(path)}"  # noqa: PTH119
        if self.crash_at is not None and self.calls >= self.crash_at:
            if torn is not None:
                torn(self.chance.random())
            self._crash(what)
        number = REFUSALS.get(self.refusal or "", {}).get(kind)
        if number is not None and self.chance.random() < self.refusal_share:
            if torn is not None and self.chance.random() < 0.5:
                self.story.append(f"    {self.current.name}: {what} is cut")
                return torn(self.chance.random())
            self.story.append(f"    {self.current.name}: {what} fails: {os.strerror(number)}")
            raise OSError(number, os.strerror(number), path)
        if self.chance.random() < SWITCH_SHARE:
            self.switch()
        return None

    def sql(self, kind: str) -> None:
        """A statement or a commit is about to be made; no other process comes in between."""
        if self.current is None:
            return
        self._check()
        self.calls += 1
        if self.crash_at is not None and self.calls >= self.crash_at:
            self._crash(kind)
        if self.refusal is not None and self.chance.random() < self.refusal_share / 4:
            self.story.append(f"    {self.current.name}: {kind} fails")
            error = sqlite3.OperationalError("database or disk is full")
            raise OperationalError(kind, {}, error)

    def owns(self, path: Any) -> bool:
        """True for a path of this machine's disk, asked about by one of its processes."""
        return self.current is not None and str(path).startswith(self.root)

    def path_of(self, number: int) -> str | None:
        """The file that the current process has open under this number."""
        return self.disk.open_paths.get(number) if self.current else None

    def now(self) -> float:
        """Unix seconds; no two looks at the clock see the same."""
        self.clock += 0.001
        return self.clock

    def cut_power(self) -> None:
        """What was not synced may be gone; nobody runs."""
        self.power_fails = False
        self.disk.lose()


class Disk:
    """What of the files of a machine would outlive a power cut."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.open_paths: dict[int, str] = {}
        self._open_ids: dict[int, int] = {}
        self._ids: dict[str, int] = {}  # of the names that there are
        self._kept_ids: dict[str, int] = {}  # of the names that a power cut leaves
        self._synced: dict[int, bytes] = {}
        self._gone: dict[int, bytes] = {}  # of files that have no name any more
        self._pending: list[tuple[str, int | None]] = []  # names since then; None: it is gone

    def opened(self, number: int, path: str) -> None:
        if path not in self._ids and not os.path.isdir(path):  # noqa: PTH112
            self._name(path, len(self._synced) + 1)
            self._synced[self._ids[path]] = b""
        self.open_paths[number] = path
        self._open_ids[number] = self._ids.get(path, 0)

    def closed(self, number: int) -> None:
        self.open_paths.pop(number, None)
        self._open_ids.pop(number, None)

    def synced(self, number: int) -> None:
        path, known = self.open_paths[number], self._open_ids[number]
        if not known:  # a folder
            kept = [change for change in self._pending if os.path.dirname(change[0]) == path]  # noqa: PTH120
            self._pending = [change for change in self._pending if change not in kept]
            self._apply(kept)
        else:
            self._synced[known] = self._content(known)

    def renamed(self, source: str, target: str) -> None:
        self._keep_content(target)
        moved = self._ids.pop(source)
        self._pending.append((source, None))
        self._name(target, moved)

    def removed(self, path: str) -> None:
        """To be said before the file is removed."""
        self._keep_content(path)
        if self._ids.pop(path, None):
            self._pending.append((path, None))

    def lose(self) -> None:
        """Leave what a power cut leaves."""
        self._apply(self._pending[: self._part(len(self._pending))])
        self._pending = []
        contents = {path: self._left(known) for path, known in self._kept_ids.items()}
        for path in self._ids:
            REAL_UNLINK(path)
        for path, content in contents.items():
            with REAL_IO_OPEN(path, "wb") as file:
                file.write(content)
        self._ids = dict(self._kept_ids)
        self._synced |= {self._ids[path]: content for path, content in contents.items()}
        self._gone = {}

    def _name(self, path: str, known: int) -> None:
        self._ids[path] = known
        self._pending.append((path, known))

    def _apply(self, changes: list[tuple[str, int | None]]) -> None:
        for path, known in changes:
            if known is None:
                self._kept_ids.pop(path, None)
            else:
                self._kept_ids[path] = known

    def _keep_content(self, path: str) -> None:
        if path in self._ids:
            self._gone[self._ids[path]] = self._content(self._ids[path])

    def _content(self, known: int) -> bytes:
        path = next((path for path, each in self._ids.items() if each == known), None)
        if path is None:
            return self._gone.get(known, b"")
        with REAL_IO_OPEN(path, "rb") as file:
            return bytes(file.read())

    def _left(self, known: int) -> bytes:
        now, synced = self._content(known), self._synced.get(known, b"")
        if not now.startswith(synced):
            return synced
        return now[: len(synced) + self._part(len(now) - len(synced))]

    def _part(self, n: int) -> int:
        return self.chance.choice((0, n, self.chance.randint(0, n)))


class SimulatedFile(io.FileIO):
    """A file as `open` gives it, whose calls come to the machine."""

    def __init__(self, machine: Machine, file: str | int, path: str, mode: str) -> None:
        super().__init__(file, mode)
        assert machine.current is not None
        self._machine, self._path, self._owner = machine, path, machine.current
        self._owner.files[self.fileno()] = self
        machine.disk.opened(self.fileno(), path)

    def write(self, content: Any) -> int:
        whole = bytes(content)
        cut = self._machine.call(
            "write", self._path, lambda share: _write_part(self.fileno(), whole, share)
        )
        return super().write(whole) if cut is None else cut

    def readall(self) -> bytes:
        self._machine.call("read", self._path)
        return super().readall()

    def close(self) -> None:
        if not self.closed:
            self._owner.files.pop(self.fileno(), None)
            self._machine.disk.closed(self.fileno())
        super().close()


def _write_part(number: int, content: bytes, share: float) -> int:
    return REAL_WRITE(number, content[: max(1, int(len(content) * share))])


class SimulatedLock:
    """As `filelock.FileLock`: the kernel's, free again when its owner dies."""

    machine: Machine

    def __init__(self, path: Any, timeout: float = -1) -> None:
        self._path, self._timeout = str(path), timeout

    def acquire(self, timeout: float | None = None) -> SimulatedLock:
        machine, patience = self.machine, self._timeout if timeout is None else timeout
        machine.call("lock", self._path)
        until = machine.clock + patience
        while self._path in machine.locks:
            if patience >= 0 and machine.clock >= until:
                raise filelock.Timeout(self._path)
            _sleep(0.05)
        assert machine.current is not None
        machine.locks[self._path] = machine.current
        return self

    def release(self) -> None:
        if self.machine.locks.get(self._path) is self.machine.current:
            del self.machine.locks[self._path]

    def __enter__(self) -> SimulatedLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedDatetime(datetime):
    """Asks the machine what time it is."""

    machine: Machine

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(cls.machine.now(), tz)


# --- the calls that the code makes -----------------------------------------------------------


def _open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
    machine = SimulatedLock.machine
    if not machine.owns(path):
        return REAL_OPEN(path, flags, *rest, **more)
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    machine.call("create" if flags & os.O_CREAT else "append" if writes else "read", str(path))
    number = REAL_OPEN(path, flags, *rest, **more)
    assert machine.current is not None
    machine.current.files[number] = None
    machine.disk.opened(number, str(path))
    return number


def _io_open(path: Any, mode: str = "r", buffering: int = -1, *text: Any, **more: Any) -> Any:
    machine = SimulatedLock.machine
    if isinstance(path, int) and (known := machine.path_of(path)):  # `os.fdopen`
        return io.BufferedReader(SimulatedFile(machine, path, known, "r"))
    if isinstance(path, int) or not machine.owns(path):
        return REAL_IO_OPEN(path, mode, buffering, *text, **more)
    kind = "create" if set(mode) & set("wax") else "append" if "+" in mode else "read"
    machine.call(kind, str(path))
    raw = SimulatedFile(machine, str(path), str(path), mode.replace("b", "").replace("t", ""))
    if "b" in mode and buffering == 0:
        return raw
    buffered = io.BufferedRandom if "+" in mode else (
        io.BufferedReader if "r" in mode else io.BufferedWriter)  # fmt: skip
    return buffered(raw) if "b" in mode else io.TextIOWrapper(buffered(raw), *text, **more)


def _close(number: int) -> None:
    machine = SimulatedLock.machine
    if machine.current is not None:
        machine.current.files.pop(number, None)
        machine.disk.closed(number)
    REAL_CLOSE(number)


def _write(number: int, content: bytes) -> int:
    machine = SimulatedLock.machine
    if path := machine.path_of(number):
        cut = machine.call("write", path, lambda share: _write_part(number, content, share))
        if cut is not None:
            return cut
    return REAL_WRITE(number, content)


def _pread(number: int, size: int, offset: int) -> bytes:
    machine = SimulatedLock.machine
    if path := machine.path_of(number):
        machine.call("read", path)
    return REAL_PREAD(number, size, offset)


def _fsync(number: int) -> None:
    machine = SimulatedLock.machine
    if path := machine.path_of(number):
        machine.call("fsync", path)
        machine.disk.synced(number)


def _rename(source: Any, target: Any, **more: Any) -> None:
    machine = SimulatedLock.machine
    if not machine.owns(source):
        return REAL_RENAME(source, target, **more)
    machine.call("rename", str(target))
    machine.disk.renamed(str(source), str(target))
    return REAL_RENAME(source, target)


def _unlink(path: Any, **more: Any) -> None:
    machine = SimulatedLock.machine
    if machine.owns(path) and os.path.exists(path):  # noqa: PTH110
        machine.call("unlink", str(path))
        machine.disk.removed(str(path))
    REAL_UNLINK(path, **more)


def _flock(number: int, how: int) -> None:
    machine = SimulatedLock.machine
    while True:
        try:
            return REAL_FLOCK(number, how | fcntl.LOCK_NB if machine.current else how)
        except BlockingIOError:
            if how & fcntl.LOCK_NB:
                raise
            machine.switch()


def _time() -> float:
    return SimulatedLock.machine.now()


def _uptime() -> float:
    machine = SimulatedLock.machine
    machine.uptime += 0.001
    return machine.uptime


def _sleep(seconds: float) -> None:
    SimulatedLock.machine.clock += seconds
    SimulatedLock.machine.uptime += seconds
    SimulatedLock.machine.switch()


def _token(size: int) -> str:
    return SimulatedLock.machine.chance.randbytes(size).hex()


def _names() -> Iterator[str]:
    yield _token(4)


@contextmanager
def simulated() -> Iterator[Callable[[Machine], None]]:
    """Let the calls of this process come to a machine; yields what puts one in charge."""

    def put_in_charge(machine: Machine) -> None:
        SimulatedLock.machine = SimulatedDatetime.machine = machine

    def statement(*_: Any) -> None:
        SimulatedLock.machine.sql("sql")

    def commit(_: Any) -> None:
        SimulatedLock.machine.sql("commit")

    calls: list[tuple[Any, dict[str, Any]]] = [
        (os, {"open": _open, "close": _close, "write": _write, "fsync": _fsync,
              "rename": _rename, "replace": _rename, "unlink": _unlink, "pread": _pread}),
        (io, {"open": _io_open}), (fcntl, {"flock": _flock}),
        (time, {"time": _time, "monotonic": _uptime, "sleep": _sleep,
                "time_ns": lambda: int(_time() * 1e9)}),
        (secrets, {"token_hex": _token}), (tempfile, {"_get_candidate_names": _names}),
        (timestamps, {"datetime": SimulatedDatetime}), (filelock, {"FileLock": SimulatedLock}),
        (turn, {"FileLock": SimulatedLock}), (by_hand, {"FileLock": SimulatedLock}),
    ]  # fmt: skip
    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "commit", commit)
    with ExitStack() as stack:
        for module, names in calls:
            stack.enter_context(patch.multiple(module, **names))
        try:
            yield put_in_charge
        finally:
            event.remove(Engine, "before_cursor_execute", statement)
            event.remove(Engine, "commit", commit)
