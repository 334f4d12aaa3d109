"""The part files of a month that is a folder, as Spark, DuckDB, Dask and polars write it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from taxi_duration.errors import TripFileError
from taxi_duration.files import sha256_file

# Files that say which of the files beside them count: to read all would be to read dead rows.
TABLE_FORMATS = {
    "Delta": re.compile(r"(^|/)_delta_log/"),
    "Hudi": re.compile(r"(^|/)\.hoodie/"),
    "Iceberg": re.compile(r"(^|/)metadata/[^/]+\.metadata\.json$"),
}
UNFINISHED = "_temporary"  # Spark and Hadoop move the parts out of it when all are written
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
PAPERS = re.compile(
    r"^(readme|licen[cs]e|manifest|desktop\.ini$|thumbs\.db$|icon\r$)"
    r"|\.(md|pdf|html?|json|xml|crc|md5|sha256)$",
    re.I,
)
MONTH_TAG = re.compile(r"_tripdata_(\d{4}-\d{2})")


def choose_parts(names: Iterable[str], where: str) -> list[str]:
    """Return which of a folder's files hold rows, in the order of their numbers.

    Args:
        names: relative to the folder, with forward slashes.
        where: the folder's name, for errors.
    Raises:
        TripFileError: none does, the writer has not finished, or it is a table of TABLE_FORMATS.
    """
    names = list(names)
    for kind, mark in TABLE_FORMATS.items():
        if found := next(filter(mark.search, names), None):
            raise TripFileError(
                f"{where}: is a table of {kind} (it holds {found}), of whose files not all count; "
                "expected is a folder of Parquet or CSV files: write the table as one"
            )
    if any(UNFINISHED in PurePosixPath(name).parts for name in names):
        raise TripFileError(
            f"{where}: holds {UNFINISHED}/, so its writer has not finished; expected is a whole "
            "folder of part files"
        )
    parts = [name for name in names if not _is_hidden(name)]
    if not parts:
        there = ", ".join(sorted(names)[:5]) or "nothing"
        raise TripFileError(f"{where}: holds {there}; expected are Parquet or CSV files of trips")
    _check_one_month(parts, where)
    return sorted(parts, key=_numbered)


def partition_keys(name: str) -> dict[str, str | None]:
    """Return the columns that Hive writes into the names of folders: `year=2021/part-0` has one."""
    pairs = (folder.partition("=") for folder in PurePosixPath(name).parts[:-1])
    return {
        key: None if value == NO_VALUE else unquote(value) for key, equals, value in pairs if equals
    }


def files_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder and those below it, with forward slashes.

    Links that lead nowhere are named too: who reads them says so, and no part is missed. Links to
    folders are followed, each folder once.
    """
    paths, seen = list[Path](), set[str]()
    for top, folders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(top)) in seen:
            folders.clear()
            continue
        seen.add(place)
        paths += [Path(top, name) for name in files]
    paths = sorted(path for path in paths if path.is_file() or not path.exists())
    return [path.relative_to(folder).as_posix() for path in paths]


def part_digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each part by its name in the folder; of a file by the name "".

    Raises:
        TripFileError, OSError: as `choose_parts`, `sha256_file`.
    """
    if not path.is_dir():
        return {"": sha256_file(path)}
    return {part: sha256_file(path / part) for part in choose_parts(files_in(path), path.name)}


def digest_of_parts(digests: dict[str, str]) -> str:
    """Return one SHA-256 for a month: the file's own, or over the names and digests of parts."""
    if list(digests) == [""]:
        return digests[""]
    lines = (f"{digest}  {part}\n" for part, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def month_digest(path: Path) -> str:
    """Return the SHA-256 of a month's file or folder; raises as `part_digests`."""
    return digest_of_parts(part_digests(path))


def _is_hidden(name: str) -> bool:
    """Marks and checksums of writers and systems: `_SUCCESS`, `.part-0.crc`, `__MACOSX/`."""
    path = PurePosixPath(name)
    marks = (part for part in path.parts if part.startswith((".", "_")) and "=" not in part)
    return any(marks) or bool(PAPERS.search(path.name))


def _check_one_month(parts: list[str], where: str) -> None:
    months = sorted({tag for part in parts for tag in MONTH_TAG.findall(part)})
    if len(months) > 1:
        raise TripFileError(
            f"{where}: holds files of {len(months)} months ({months[0]} to {months[-1]}); "
            "expected is one: unpack it and name each file by its month"
        )


def _numbered(name: str) -> list[tuple[int, str]]:
    """Sorts `data_10` after `data_9`."""
    return [(int(piece or 0), "") if piece.isdecimal() else (0, piece)
            for piece in re.split(r"(\d+)", name)]  # fmt: skip
