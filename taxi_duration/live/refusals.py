"""Deployments that the service refused: it records them, and the loop's next turn notifies."""

from __future__ import annotations

import logging
from pathlib import Path

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.files import read_json, typed, write_json
from taxi_duration.timestamps import iso_now

logger = logging.getLogger(__name__)

REFUSED_FILE = "refused.json"
KEPT = 20  # the newest; a turn of the loop reads them every hour


class Refusal(Struct, frozen=True):
    """A refusal: since when (ISO), what and why, until when (ISO; None while it lasts)."""

    at: str
    problem: str
    until: str | None = None


def note_refusal(problem: str) -> None:
    """Record a refusal once, however many workers report it."""
    known = read_refusals()
    if not known or known[-1].until is not None or known[-1].problem != problem:
        _write([*known[-KEPT + 1 :], Refusal(iso_now(), problem)])


def note_served() -> None:
    """Record that the deployment is served: this ends the last refusal."""
    known = read_refusals()
    if known and known[-1].until is None:
        _write([*known[:-1], replace(known[-1], until=iso_now())])


def read_refusals() -> list[Refusal]:
    """Return the refusals, oldest first; none when the file is missing or damaged."""
    try:
        return typed(read_json(_path()), list[Refusal], REFUSED_FILE)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read: %s", REFUSED_FILE, error)
        return []


def _write(refusals: list[Refusal]) -> None:
    try:
        write_json(_path(), to_builtins(refusals))
    except OSError as error:  # the service goes on; the refusal is in its log output
        logger.warning("%s cannot be written: %s", REFUSED_FILE, error)


def _path() -> Path:
    return environment.live_dir() / REFUSED_FILE
