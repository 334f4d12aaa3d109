"""Looks whether the tests left anything in the project or in the user's home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from settings_read import PROJECT

# What runs, services and commands of the user's own write; looked at to the last file.
OWN_FOLDERS = ("data", "models", "runs", "tracking", "deployment")
# Elsewhere new names are looked for. Tools that watch the code may leave these.
CACHES = {".pytest_cache", ".hypothesis", ".ruff_cache", ".mypy_cache", ".import_linter_cache",
          "__pycache__", "build", "taxi_duration.egg-info"}  # fmt: skip
HOME_FOLDERS = ("", ".cache", ".config", ".local/share")

Seen = dict[str, tuple[int, int]]


def look(home: Path) -> Seen:
    """Return what lies there now: by path, time of the last change and size, or zeros.

    Args:
        home: of the user.
    """
    return dict([*_files(), *_names(PROJECT, CACHES), *_home(home)])


def difference(before: Seen, after: Seen) -> list[str]:
    """Return the paths that are new, gone or changed."""
    return sorted(path for path in before.keys() | after.keys()
                  if before.get(path) != after.get(path))  # fmt: skip


def _files() -> Iterator[tuple[str, tuple[int, int]]]:
    for folder in OWN_FOLDERS:
        for path in (PROJECT / folder).rglob("*"):
            if path.is_file():
                stat = path.stat()
                yield str(path), (stat.st_mtime_ns, stat.st_size)


def _home(home: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder in HOME_FOLDERS:
        yield from _names(home / folder, set())


def _names(folder: Path, leave: set[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    if folder.is_dir():
        yield from ((str(p), (0, 0)) for p in folder.iterdir() if p.name not in leave)
