"""Files that are whole or not there: atomic writes, digests, chained lines, typed content."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import resources
from io import BufferedReader
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec

from taxi_duration.errors import ContentError

T = TypeVar("T")

BEFORE = "sha256_before"  # the field in which a line of JSON names the digest of the one before
CHAINED, UNCHAINED, BROKEN = "chained", "unchained", "broken"
# Of what is read at run time: more than a long life makes, and it fits the memory of a worker.
MAX_BYTES = 256 << 20
MAX_JSON_BYTES = 16 << 20  # parsed, it takes some ten times as much
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
LEFTOVER_S = 3600  # a part that has not grown for so long belongs to nobody
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
MODEL_MAKING = ("domain", "data", "model", "evaluation", "training")  # shelves of the package


def open_file(path: str | Path) -> BufferedReader:
    """Open a regular file to read it; all else is refused: reading a pipe may never end.

    Raises:
        ContentError: it is a folder, a pipe, a socket or a device.
        OSError: it is not there or cannot be opened.
    """
    path = Path(path)
    if not stat.S_ISREG(mode := path.stat().st_mode):  # opening a device may do something
        raise ContentError(f"{path.name} is {kind_of(mode)}, no file")
    # Not to wait, should it have become a pipe since.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(mode := os.fstat(file.fileno()).st_mode):
        file.close()
        raise ContentError(f"{path.name} is {kind_of(mode)}, no file")
    return file


def is_none_yet(database: Path) -> bool:
    """True where there is no database: no file, or an empty one, as a failed copy leaves it."""
    return not database.exists() or (database.is_file() and not database.stat().st_size)


def kind_of(mode: int) -> str:
    """Name what is not a regular file, from its `st_mode`."""
    return _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def read_file(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a file's bytes.

    Raises:
        ContentError: it is no file, or larger than that.
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        # The size is looked at first: nothing is read of a file that is too large.
        is_large = os.fstat(file.fileno()).st_size > max_bytes
        content = b"" if is_large else file.read(max_bytes + 1)
    if is_large or len(content) > max_bytes:
        raise ContentError(f"{Path(path).name} is larger than {max_bytes:,} bytes")
    return content


def sha256_file(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's bytes; raises as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name only on success.

    The bytes are on disk before the rename, so that neither a killed process nor a power
    cut leaves a half file under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)  # mkstemp makes it private to the user
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the final name only on success."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _sync(file)
        part.chmod(0o755)  # mkdtemp makes it private to the user
        part.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent`, removed at the end; also remove those of killed processes."""
    parent.mkdir(parents=True, exist_ok=True)
    with held(parent):  # nobody takes a folder for left behind before its owner holds it
        for folder in parent.iterdir():
            with suppress(BlockingIOError), held(folder, fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)
        own = Path(tempfile.mkdtemp(dir=parent))
        holding = ExitStack()
        holding.enter_context(held(own))
    with holding:
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def held(folder: Path, flags: int = 0) -> Iterator[None]:
    """Lock a folder; the system releases the lock when this process dies.

    Args:
        flags: `fcntl.LOCK_NB` to wait for nobody.
    Raises:
        BlockingIOError: another process holds it, and is not waited for.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove partial files that killed writers left; a live writer's file keeps growing."""
    dead = time.time() - LEFTOVER_S
    for part in path.parent.glob(f".{path.name}.*.part"):
        with suppress(FileNotFoundError):  # a writer that ended in between
            if max(file.stat().st_mtime for file in (part, *part.rglob("*"))) < dead:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; it does not come back after a power cut."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk: until then a power cut may undo a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such thing: a rename is as lasting as they make it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def write_json(path: str | Path, content: Any) -> None:
    """Write indented JSON atomically; keys keep their order."""
    write_bytes(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def read_json(path: str | Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the parsed content of a JSON file; raises as `read_file`, and ValueError."""
    content = read_file(path, max_bytes).decode()
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ContentError(f"{Path(path).name} is nested too deep") from error


def typed(content: Any, kind: type[T], what: str = "") -> T:
    """Return parsed JSON as an object of this type.

    Args:
        content: plain JSON types.
        kind: a `msgspec.Struct` or any other type that msgspec knows.
        what: names the content in the error.
    Raises:
        ContentError: names the field, what was found and what is expected.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ContentError(_in_words(str(error), content, what)) from error


def read_typed(path: Path, kind: type[T], remedy: str) -> T | None:
    """Return a JSON file's content as an object of this type, None when there is no file.

    Args:
        remedy: what is so, or to be done, when it is damaged.
    Raises:
        ContentError: it cannot be read; says why, and the remedy.
    """
    try:
        return typed(read_json(path), kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ContentError(f"{path.name} cannot be read ({error}); {remedy}") from error


def _in_words(message: str, content: Any, what: str) -> str:
    """msgspec's message, with the value that it is about."""
    message, _, path = message.partition(" - at `$")
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        content = content[key or int(index)]
    place = ": ".join(filter(None, (what, path.rstrip("`").lstrip(".")))) or "the content"
    if not message.startswith("Expected"):  # a field is missing, or unknown
        return f"{place}: {message[0].lower()}{message[1:]}"
    expected = message.partition(", got")[0].removeprefix("Expected ")
    return f"{place} is {content!r:.60}, expected is {expected}"


class Setting(msgspec.Struct, frozen=True):
    """A value of a settings file, and where it comes from."""

    value: Any
    why: str


def read_settings(package: str, name: str, kind: type[T]) -> T:
    """Return a package's settings file, in which each name has a `value` and a `why`.

    Raises:
        ContentError: names the file, the field, what was found and what is expected.
    """
    content = json.loads((resources.files(package) / name).read_text(encoding="utf-8"))
    values = {key: typed(entry, Setting, f"{name}: {key}").value for key, entry in content.items()}
    return typed(values, kind, name)


class ChainedLine(NamedTuple):
    """A record of a file of JSON lines, its place, and how it is tied to the line before.

    `number` counts from 1; `sha256` is that of the line's bytes. `tie` is `chained` when the
    line names the digest of the one before, `unchained` when it was written before lines did
    so, and `broken` when another line stands before it than when it was written.
    """

    number: int
    record: dict[str, Any]
    sha256: str
    tie: str


def append_json_line(
    path: str | Path,
    record: dict[str, Any],
    default: Callable[[Any], Any] | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Append a record as one line of JSON, chained to the line before; return it.

    It is on disk when this returns. Writers wait for each other.

    Args:
        default: as in `json.dumps`, for values that JSON does not know.
        key: when a line has this `key` already, nothing is written and that line is returned.
    """
    from filelock import FileLock  # only who writes needs it; the service just reads

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        lines = read_chain(path)
        there = (line.record for line in lines if key and line.record.get("key") == key)
        if found := next(there, None):
            _sync(path)  # whoever wrote it may have died before
            return found
        record = {**record, BEFORE: lines[-1].sha256 if lines else ""}
        with path.open("ab+") as file:
            # A writer killed in mid-line must not spoil the line after it.
            start = b"" if _ends_a_line(file) else b"\n"
            file.write(start + json.dumps(record, default=default).encode() + b"\n")
        _sync(path)
    return record


def _sync(path: Path) -> None:
    """Bring a file and its name to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _ends_a_line(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read() == b"\n"


def read_chain(path: str | Path) -> list[ChainedLine]:
    """Return the lines of a file of JSON lines, oldest first; none when there is no file.

    A line cut by a crash is left out, here and when the next line was chained.

    Raises:
        ContentError, OSError: as `read_file`.
    """
    path = Path(path)
    lines: list[ChainedLine] = []
    for number, content in enumerate(read_file(path).split(b"\n") if path.exists() else (), 1):
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            continue
        if type(record) is not dict:
            continue
        said, before = record.get(BEFORE), lines[-1] if lines else None
        if said is None and (before is None or before.tie == UNCHAINED):
            tie = UNCHAINED
        else:
            tie = CHAINED if said == (before.sha256 if before else "") else BROKEN
        lines.append(ChainedLine(number, record, hashlib.sha256(content).hexdigest(), tie))
    return lines


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of `read_chain`, oldest first."""
    return [line.record for line in read_chain(path)]


def modules_digest(modules: Iterable[ModuleType]) -> str:
    """Hex SHA-256 over the sources of modules, in their order."""
    digests = [sha256_file(str(module.__file__)) for module in modules]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def code_digest(shelves: Iterable[str] = MODEL_MAKING) -> str:
    """Hex SHA-256 over the sources that make a model: changes when a fit may come out otherwise.

    Loop, service and plots are left out: a change of the monitor must not train again.

    Args:
        shelves: of the package, when it is about something else than a model; an empty name is
            that of its own files.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for shelf in shelves:
        for path in sorted((package / shelf).rglob("*") if shelf else package.iterdir()):
            if path.suffix in (".py", ".pyx", ".json", ".csv", ".npz"):
                name, status = path.relative_to(package).as_posix(), path.stat()
                marks = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
                digest.update(f"{name}:{_source_digest(path, marks)}\n".encode())
    return digest.hexdigest()


@cache
def _source_digest(path: Path, _marks: tuple[int, ...]) -> str:
    """Return a source's SHA-256: read once, since a chain asks for the digest at every step."""
    return sha256_file(path)
