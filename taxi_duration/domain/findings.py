"""What a monitor finds and how bad it is: levels, reasons, drifts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib.resources import files
from typing import Literal

from msgspec import Struct

from taxi_duration.files import typed

Level = Literal["ok", "unknown", "watch", "alarm"]
# Rising: what is not known is not ok, and what is known to be wrong weighs more.
LEVELS: tuple[Level, ...] = ("ok", "unknown", "watch", "alarm")
# In metrics: 0, 1 and 2 meant ok, watch and alarm before there was `unknown`.
LEVEL_NUMBERS: dict[Level, float] = {"ok": 0.0, "unknown": 0.5, "watch": 1.0, "alarm": 2.0}
WRONG_KINDS = ("error", "bias", "coverage")  # the answers themselves are wrong
KINDS = (*WRONG_KINDS, "unknown", "silence", "truth", "outside", "selection", "drift", "data")


class Bound(Struct, frozen=True, forbid_unknown_fields=True):
    """From which value on a measure is watched, and from which on it is an alarm."""

    watch: float
    alarm: float
    why: str = ""


class Reason(Struct, frozen=True):
    """Why the verdict is not `ok`.

    `kind` is one of KINDS: `unknown` is that rides or truths are too few, `silence` that none came
    for a while, `truth` that durations cannot be their rides', `outside` that too many lie outside
    the course rule, `selection` that feedback came for other rides than were asked for, `data` that
    there is nothing to measure drift from.
    """

    kind: str
    level: Level
    text: str


class Drift(Struct, frozen=True, omit_defaults=True):
    """One measured distance from the training months.

    `measure` is `psi` (no unit), `shift` (Wasserstein distance in `unit`), `share` (change of
    a share) or `ratio`. What chance gives on average is taken off `value`; `noise` is what it
    may still add, and the level is that of `value - noise`.
    """

    feature: str
    measure: str
    value: float
    unit: str
    level: Level
    watch: float
    alarm: float
    noise: float = 0.0

    @property
    def text(self) -> str:
        """The finding in words, with its bounds."""
        chance = f", up to {self.noise:.2g} of it by chance" if self.noise else ""
        return (
            f"{self.feature} {self.measure} {self.value:.3g}{' ' * bool(self.unit)}{self.unit} "
            f"(watch from {self.watch:g}, alarm from {self.alarm:g}){chance}"
        )


class ErrorEstimate(Struct, frozen=True):
    """What the errors of rides are expected to be before their truth is known.

    `rides` have no true duration yet; `mae` is in minutes, `coverage` a share, each with the
    bounds between which the truth lay in 19 of 20 past months.
    """

    rides: int
    mae: float
    mae_low: float
    mae_high: float
    coverage: float
    coverage_low: float
    coverage_high: float


def read_bounds(package: str, name: str) -> dict[str, Bound]:
    """Return the bounds in a package's file, by what they are of.

    Raises:
        ContentError: names the file, the bound, what was found and what is expected.
    """
    content = json.loads((files(package) / name).read_text(encoding="utf-8"))
    return {of: typed(entry, Bound, f"{name}: {of}") for of, entry in content.items()}


def level_of(value: float, watch: float, alarm: float) -> Level:
    """Return the level of a measure of which more is worse; NaN is unknown."""
    if math.isnan(value):
        return "unknown"
    return "alarm" if value >= alarm else "watch" if value >= watch else "ok"


def worst(levels: Iterable[Level]) -> Level:
    """Return the highest level; `ok` when there is none."""
    return max(levels, key=LEVELS.index, default="ok")
