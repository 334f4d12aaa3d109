"""Keeping the prediction log within its bounds, by hand or after a turn of the loop.

The service's workers leave this alone: they answer riders, and one process is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from taxi_duration import environment
from taxi_duration.errors import TaxiError
from taxi_duration.live.prediction_log import open_log

if TYPE_CHECKING:
    from taxi_duration.live.log_archive import Moved


def archive_log(say: Callable[[str], None]) -> None:
    """Move what `LOG_KEEP_DAYS` and `LOG_MAX_MB` leave no room for into the archive.

    Safe to repeat, to kill, and beside services and others that do it.

    Raises:
        LogError: log or archive cannot be read or written; nothing is lost.
        SettingError: a setting has no such value.
    """
    moved = _move()
    if moved is None:
        say("another process moves old rides into the log's archive")
    elif moved.rides:
        say(_in_words(moved))
    else:
        say("no ride of the log is too old or too many")


def archive_after_turn(say: Callable[[str], None]) -> None:
    """Do the same, quietly when nothing is to be moved; an error here does not fail the turn."""
    try:
        moved = _move()
    except TaxiError as error:
        say(f"old rides stay in the log for now: {error}")
        return
    if moved is not None and moved.rides:
        say(_in_words(moved))


def _move() -> Moved | None:
    """As `PredictionLog.archive`, within the settings' bounds."""
    keep_days, most_bytes = environment.log_keep_days(), environment.log_max_mb() * 1_000_000
    log = open_log()
    try:
        return log.archive(keep_days, most_bytes)
    finally:
        log.close()


def _in_words(moved: Moved) -> str:
    folder = environment.log_archive(environment.log_url())
    return (
        f"{moved.rides:,} rides moved into {moved.files} files of {folder.name}/, "
        f"{moved.bytes / moved.rides:.0f} bytes each"
    )
