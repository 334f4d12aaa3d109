"""Files that are whole or not there: atomic writes, SHA-256 digests, and typed content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from taxi_duration.errors import ContentError

T = TypeVar("T")

MODEL_MAKING = ("domain", "data", "model", "evaluation", "training")  # shelves of the package


def sha256_file(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
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
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def write_json(path: str | Path, content: Any) -> None:
    """Write indented JSON atomically; keys keep their order."""
    write_bytes(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Return the parsed content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


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


def append_json_line(
    path: str | Path, record: Any, default: Callable[[Any], Any] | None = None
) -> None:
    """Append a record as one line of JSON; it is on disk when this returns.

    Args:
        default: as in `json.dumps`, for values that JSON does not know.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    # A writer killed in mid-line must not spoil the line after it.
    start = "\n" if before and not before.endswith(b"\n") else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{start}{json.dumps(record, default=default)}\n")
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: str | Path) -> list[Any]:
    """Return the records of a file of JSON lines, oldest first; none when there is no file.

    A line cut by a crash is left out.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = []
    for line in lines:
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


def code_digest() -> str:
    """Hex SHA-256 over the sources that make a model: changes when a fit may come out otherwise.

    Loop, service and plots are left out: a change of the monitor must not train again.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for shelf in MODEL_MAKING:
        for path in sorted((package / shelf).iterdir()):
            if path.suffix in (".py", ".pyx", ".json", ".csv", ".npz"):
                digest.update(f"{shelf}/{path.name}:{sha256_file(path)}\n".encode())
    return digest.hexdigest()
