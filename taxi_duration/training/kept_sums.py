"""Sums of a month, kept beside the prepared month: a run makes only those that are missing.

What is kept is named by the part's key and by the digest of the code and the settings that made
it. The second sums belong to a curve of the whole window: only those of the newest are kept. A
file that is damaged, or another's, is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from taxi_duration import environment
from taxi_duration.data.window import Part
from taxi_duration.domain import geometry, pickup_calendar, special_days
from taxi_duration.files import atomic_path, modules_digest
from taxi_duration.model import curves
from taxi_duration.model.curves import Curve
from taxi_duration.training import day_groups, keyed_sums, part_sums
from taxi_duration.training.day_groups import DayCounts
from taxi_duration.training.keyed_sums import KeyedSums
from taxi_duration.training.part_sums import PartSums, count_days, first_pass, second_pass

log = logging.getLogger(__name__)

MAKING = (geometry, pickup_calendar, special_days, curves, day_groups, keyed_sums, part_sums)
Arrays = Sequence[np.ndarray]


def kept_days(part: Part) -> DayCounts:
    """Return `count_days` of a part, kept where the part has a key."""
    return DayCounts(*_kept(part, "days", "", lambda: list(vars(count_days(part)).values())))


def kept_first(part: Part, half_life: float) -> PartSums:
    """Return `first_pass` of a part, kept likewise."""

    def make() -> Arrays:
        sums = first_pass(part, kept_days(part), half_life)
        return [sums.miles, *_flat(sums.pairs), *_flat(sums.cells)]

    miles, *rest = _kept(part, "first", f"{half_life}", make)
    half = len(rest) // 2
    return PartSums(_grouped(rest[:half]), _grouped(rest[half:]), miles)


def kept_second(part: Part, half_life: float, curve: Curve) -> tuple[KeyedSums, ...]:
    """Return `second_pass` of a part, kept likewise."""

    def make() -> Arrays:
        return _flat(second_pass(part, kept_days(part), half_life, curve))

    settings = f"{half_life} {curve.x.tolist()} {curve.y.tolist()}"
    return _grouped(_kept(part, "second", settings, make))


def _flat(sums: tuple[KeyedSums, ...]) -> list[np.ndarray]:
    """Return all keys and all values of groups, and where each group ends."""
    ends = np.cumsum([len(each.keys) for each in sums])
    keys, values = ([getattr(each, name) for each in sums] for name in ("keys", "values"))
    return [ends, np.concatenate(keys), np.concatenate(values)]


def _grouped(arrays: Arrays) -> tuple[KeyedSums, ...]:
    ends, keys, values = arrays
    each = zip(np.split(keys, ends[:-1]), np.split(values, ends[:-1]), strict=True)
    return tuple(KeyedSums(*both) for both in each)


@cache
def _code() -> str:
    """Digest of the code that makes sums."""
    return modules_digest(MAKING)


def _kept(part: Part, name: str, settings: str, make: Callable[[], Arrays]) -> Arrays:
    """Return arrays that were made before, or make them now and keep them."""
    if not part.key:
        return make()
    folder = environment.data_dir() / "prepared"
    of = f"{part.key} {name} {_code()} {day_groups.FOLDS} {settings}"
    digest = hashlib.sha256(of.encode()).hexdigest()
    path = folder / f"{part.key}.{name}-{digest[:16]}.npz"
    found = _read(path, digest)
    if found is not None:
        return found
    arrays = make()
    with atomic_path(path) as being_written, Path(being_written).open("wb") as file:
        np.savez(file, np.frombuffer(digest.encode(), "uint8"), *arrays)
    for other in folder.glob(f"{part.key}.{name}-*.npz"):
        if other != path:
            with contextlib.suppress(OSError):
                other.unlink()
    return arrays


def _read(path: Path, digest: str) -> Arrays | None:
    """Arrays of a kept file, or None when there is none, or it is damaged or another's."""
    try:
        with np.load(path) as stored:  # each array has a checksum of its own
            kept_digest, *arrays = (stored[name] for name in stored.files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        log.warning("kept sums %s are damaged (%r), making them again", path.name, error)
        return None
    if kept_digest.tobytes() != digest.encode():
        log.warning("kept sums %s are of something else, making them again", path.name)
        return None
    return arrays
