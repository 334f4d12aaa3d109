"""Bundles that the service refused: it notes them here, and the loop's next turn tells people."""

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
    """What was refused and why, since when, and until when; `until` is None while it lasts."""

    at: str
    problem: str
    until: str | None = None


def note_refusal(problem: str) -> None:
    """Note a refusal once, however many workers meet it."""
    known = read_refusals()
    if not known or known[-1].until is not None or known[-1].problem != problem:
        _write([*known[-KEPT + 1 :], Refusal(iso_now(), problem)])


def note_served() -> None:
    """Note that what is deployed is served: the next refusal is news again."""
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
    except OSError as error:  # the service goes on; its own log has the refusal
        logger.warning("%s cannot be written: %s", REFUSED_FILE, error)


def _path() -> Path:
    return environment.live_dir() / REFUSED_FILE
