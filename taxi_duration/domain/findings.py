"""What a monitor finds and how much it worries: levels, reasons, drifts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

Level = Literal["ok", "watch", "alarm"]
LEVELS: tuple[Level, ...] = ("ok", "watch", "alarm")  # rising


class Reason(Struct, frozen=True):
    """Why the verdict is not `ok`.

    `kind` is error, bias, coverage, drift, data, truth (some cannot be) or outside (1-60 min).
    """

    kind: str
    level: Level
    text: str


class Drift(Struct, frozen=True):
    """One measured distance from the training months.

    `measure` is `psi` (no unit), `shift` (Wasserstein distance in `unit`), `share` (change of
    a share) or `ratio`.
    """

    feature: str
    measure: str
    value: float
    unit: str
    level: Level
    watch: float
    alarm: float

    @property
    def text(self) -> str:
        """The finding in words, with its bounds."""
        return (
            f"{self.feature} {self.measure} {self.value:.3g}{' ' * bool(self.unit)}{self.unit} "
            f"(watch from {self.watch:g}, alarm from {self.alarm:g})"
        )


def level_of(value: float, watch: float, alarm: float) -> Level:
    """Return the level of a measure that worries the more the larger it is."""
    return "alarm" if value >= alarm else "watch" if value >= watch else "ok"


def worst(levels: Iterable[Level]) -> Level:
    """Return the highest level; `ok` when there is none."""
    return max(levels, key=LEVELS.index, default="ok")
