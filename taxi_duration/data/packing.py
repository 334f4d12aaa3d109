"""What a month's file is by its first bytes, and its bytes out of gzip, bz2, xz, zstd, lz4, zip."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from taxi_duration.data.parts import choose_parts, files_in, partition_keys
from taxi_duration.errors import TripFileError
from taxi_duration.files import open_file

# Trips of TLC shrink to a fifth or a tenth, a file made to fill the memory to a thousandth.
MAX_SHRINKING = 100
ALWAYS_UNPACKED = 64 << 20  # bytes; a small month may repeat itself
MAX_LAYERS = 3  # a packed file, in a zip, in a zip
HEAD_BYTES = 512  # a tar archive names itself in its first block
EXPECTED = "expected is Parquet or CSV, also in gzip, bz2, xz, zstd, lz4 or zip"

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(file, "zstd"),
    b"\x04\x22\x4d\x18": lambda file: pa.CompressedInputStream(file, "lz4"),
}
# First bytes of files that are sometimes given a month's name, and what they are.
OTHERS = {
    b"PARE": "an encrypted Parquet file",
    b"ORC": "an ORC file",
    b"ARROW1": "an Arrow (Feather) file",
    b"Obj\x01": "an Avro file",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x9d": "a file of Unix compress",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"<": "a web page or XML",
    b"{": "JSON",
    b"[": "JSON",
}
# Raised by what unpacks, when the bytes end early or are not what they should be.
FAULTS = (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)


class RawColumns(NamedTuple):
    """The needed columns of a file, types as found in it.

    Args:
        table: under our names.
        names: ours -> as the file calls them.
        notes: how they were read, where that is not plain.
    """

    table: pa.Table
    names: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Part:
    """One file of rows: its name in messages, and its bytes, unpacked.

    Args:
        open: opens it anew at its first byte.
        size: bytes as stored, which bound what they may unpack to.
        path: of a file that is not packed.
        keys: columns that stand in the folders' names.
    """

    name: str
    open: Callable[[], BinaryIO]
    size: int
    path: Path | None = None
    keys: dict[str, str | None] = field(default_factory=dict)

    def head(self) -> bytes:
        """Return its first bytes."""
        with self.open() as file:
            return file.read(HEAD_BYTES)


def month_parts(path: Path) -> Iterator[Part]:
    """Yield the files of rows of a month: the file, those in the folder, those in the zip.

    Raises:
        TripFileError: there is no such file, or one is of a format that is not read.
    """
    if not path.is_dir():
        yield from _unpacked(_stored(path, path.name))
        return
    for name in choose_parts(files_in(path), path.name):
        part = _stored(path / name, f"{path.name}/{name}")
        yield from _unpacked(replace(part, keys=partition_keys(name)))


def is_parquet(part: Part) -> bool:
    """True for a Parquet file, False for CSV."""
    return part.head()[:4] == b"PAR1"


def with_keys(names: list[str], part: Part) -> list[str]:
    """Return a file's column names and those that stand in the names of its folders."""
    return [*(name for name in names if name not in part.keys), *part.keys]


def add_keys(table: pa.Table, columns: dict[str, str], part: Part) -> pa.Table:
    """Return a part's table in the order of `columns` (ours -> theirs), with those of its folders.

    As with Hive, the folder's name is right where the file has such a column too.
    """
    for ours, theirs in columns.items():
        if theirs in part.keys:
            value = pa.scalar(part.keys[theirs], pa.string())
            table = table.append_column(ours, pa.repeat(value, table.num_rows))
    return table.select(list(columns))


def _stored(path: Path, name: str) -> Part:
    try:
        return Part(name, lambda: open_file(path), path.stat().st_size, path)
    except OSError as error:
        raise TripFileError(f"{name}: cannot be read: {error.strerror}") from error


def _unpacked(part: Part, layers: int = 0) -> Iterator[Part]:
    try:
        head = part.head()
    except FAULTS as error:
        raise _fault(part, error) from error
    opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)
    is_zip = head.startswith(ZIP_MAGICS)
    if (opener or is_zip) and layers == MAX_LAYERS:
        raise TripFileError(f"{part.name}: is packed more than {MAX_LAYERS} times; {EXPECTED}")
    if is_zip:
        for member in _members(part):
            yield from _unpacked(member, layers + 1)
    elif opener:
        yield from _unpacked(_bounded(part, lambda: opener(part.open()), part.size), layers + 1)
    else:
        _check_kind(part.name, head)
        yield part


def _check_kind(name: str, head: bytes) -> None:
    """Refuse what is no file of rows, by what it is."""
    if not head.strip():
        raise TripFileError(f"{name}: is empty (first bytes {head[:4]!r}); {EXPECTED}")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    kind = next((kind for magic, kind in OTHERS.items() if start.startswith(magic)), None)
    if head[257:262] == b"ustar":
        kind = "a tar archive"
    if head[8:12] == b"DUCK":
        kind = "a DuckDB database"
    if kind:
        raise TripFileError(f"{name}: is {kind} (first bytes {head[:40]!r}); {EXPECTED}")


def _bounded(part: Part, unpack: Callable[[], BinaryIO], size: int) -> Part:
    bound = max(ALWAYS_UNPACKED, MAX_SHRINKING * size)
    return replace(
        part, path=None, open=lambda: io.BufferedReader(_Bounded(unpack(), bound, part.name))
    )


def _members(part: Part) -> Iterator[Part]:
    """The files of rows in a zip, as parts of one month."""
    try:
        with part.open() as file, zipfile.ZipFile(_seekable(file)) as archive:
            infos = {i.filename: i for i in archive.infolist() if not i.is_dir()}
    except FAULTS as error:
        raise _fault(part, error) from error
    if "[Content_Types].xml" in infos:
        raise TripFileError(f"{part.name}: is an Excel workbook; {EXPECTED}")
    for name in choose_parts(infos, part.name):
        info = infos[name]
        if info.flag_bits & 1:
            raise TripFileError(f"{part.name}: {name} in it is encrypted; {EXPECTED}")
        member = replace(part, name=f"{part.name}/{name}", keys=partition_keys(name))
        yield _bounded(member, partial(_open_member, part, info), info.compress_size)


def _open_member(part: Part, info: zipfile.ZipInfo) -> BinaryIO:
    try:
        return zipfile.ZipFile(_seekable(part.open())).open(info)  # type: ignore[return-value]
    except NotImplementedError as error:
        raise TripFileError(
            f"{part.name}: {info.filename} is packed in a way that is not read ({error}); "
            f"{EXPECTED}"
        ) from error


def _seekable(file: BinaryIO) -> BinaryIO:
    """A file that can be read from its end: zip and Parquet have their contents there."""
    return file if not isinstance(getattr(file, "raw", None), _Bounded) else io.BytesIO(file.read())


def seekable(part: Part) -> BinaryIO:
    """Open a part that is read from its end; unpacked bytes are held in memory.

    Raises:
        TripFileError: they end early, are damaged, or too many.
    """
    try:
        return _seekable(part.open())
    except FAULTS as error:
        raise _fault(part, error) from error


def not_read(part: Part, error: Exception) -> TripFileError | None:
    """Return the error for a file that the system does not hand out; None for any other error."""
    if isinstance(error, OSError) and error.errno:
        return TripFileError(f"{part.name}: cannot be read: {error.strerror}")
    return None


def _fault(part: Part, error: Exception) -> TripFileError:
    return not_read(part, error) or TripFileError(f"{part.name}: is truncated or damaged: {error}")


class _Bounded(io.RawIOBase):
    """Bytes as they are unpacked, up to a bound."""

    def __init__(self, file: BinaryIO, bound: int, name: str):
        self._file, self._left, self._bound, self._name = file, bound, bound, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        found = self._file.read(len(buffer))
        self._left -= len(found)
        if self._left < 0:
            raise TripFileError(
                f"{self._name}: unpacks to more than {self._bound:,} bytes, over "
                f"{MAX_SHRINKING} times its size; expected is a month of trips"
            )
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()
