"""Kinds of values that the commands' options take: looked at before anything is done."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import click


class Number(click.FloatRange):
    """A number within bounds that is finite: `nan` lies within any, as comparisons have it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number to count with.", param, ctx)
        return found


class NewPath(click.Path):
    """A file, or a folder, that a command writes at its end, which may be hours later."""

    def __init__(self, *endings: str, is_folder: bool = False) -> None:
        super().__init__(dir_okay=is_folder, file_okay=not is_folder, path_type=Path)
        self._endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, which can be written as far as can be seen now."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self._endings and path.suffix not in self._endings:
            allowed = " or ".join(self._endings)
            self.fail(f"'{path}' must end in {allowed}.", param, ctx)
        mode = path.stat().st_mode if path.exists() else None
        if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            from taxi_duration.files import kind_of

            # A whole file takes the name of what was there: a device would be gone.
            self.fail(f"'{path}' is {kind_of(mode)}.", param, ctx)
        there = next(above for above in (path, *path.absolute().parents) if above.exists())
        if there != path and not there.is_dir():
            self.fail(f"'{there}' is a file, no folder for '{path}'.", param, ctx)
        folder = there if there.is_dir() else path.absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            self.fail(f"'{folder}' may not be written.", param, ctx)
        return path
