"""Pausing: a paused loop looks, and changes nothing until a person resumes it.

The pause lies in `deployment/paused.json`, so it outlives every process and restart. Riders are
answered as before.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, to_builtins

from taxi_duration import environment
from taxi_duration.errors import ContentError
from taxi_duration.files import read_typed, remove_file, write_json
from taxi_duration.live.audit import record, user_name
from taxi_duration.timestamps import iso_now

PAUSE_FILE = "paused.json"


class Pause(Struct, frozen=True):
    """Since when the loop is paused (ISO), by whom and why."""

    at: str
    who: str
    reason: str

    @property
    def text(self) -> str:
        """In words."""
        return f"paused since {self.at[:19]} by {self.who}: {self.reason}"


def read_pause() -> Pause | None:
    """Return the pause, None when the loop may act.

    Raises:
        ContentError: the file is damaged; says what to do.
    """
    remedy = "the loop stays paused until `python pipeline.py auto resume`"
    return read_typed(_path(), Pause, remedy)


def pause(reason: str) -> tuple[Pause, bool]:
    """Pause the loop; a turn at work stops before its next step.

    Safe to repeat, also after a kill: a pause that is there stays as it is.

    Returns:
        The pause, and whether it is new.
    """
    there = read_pause()
    at = iso_now()
    now = there or Pause(at, user_name(), reason)
    if there is None:
        write_json(_path(), to_builtins(now))
    record("pause the loop", now.reason, key=f"pause:{now.at}", who=now.who)
    return now, there is None


def resume() -> bool:
    """Let the loop act again; False when it was not paused."""
    if not _path().exists():
        return False
    try:
        was = read_pause()
    except ContentError as error:
        was, why = None, str(error)
    else:
        why = f"it was {was.text}" if was else "somebody else did at the same moment"
    at = was.at if was else iso_now()
    # First the line, then the act: repeated after a kill it is the same line.
    record("resume the loop", why, key=f"resume:{at}", who=user_name())
    remove_file(_path())
    return True


def _path() -> Path:
    return environment.deployment_dir() / PAUSE_FILE
