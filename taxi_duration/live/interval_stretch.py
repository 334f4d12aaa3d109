"""How much wider or narrower intervals must be now, from true durations of rides that have ended.

Adaptive conformal prediction (Gibbs and Candès 2021) with a memory that fades: as long as more
truths than promised lie below P10 of the answers as they were given, P10 moves away from P50, and
back when fewer do; P90 likewise. The state is the sum over the past itself, so that every worker
that reads the same bins stretches alike. Truths that come days late say how the intervals of
then were: followed as if they were of now, they would be widened and narrowed in turn, further
each time. So the later truths come, the less they are followed. How the settings were chosen is in
docs/intervals.md.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from taxi_duration.files import read_settings
from taxi_duration.live.traffic_bins import BIN_MINUTES, BINS_A_DAY, TrafficBins

PROMISED = 0.1  # share of truths below P10, and of truths above P90
# Of the mean of bins: a bin with as many rides counts as one whose truths have come. At 0.2,
# intervals still swung where a tenth came at once and the rest five days late; at 0.5 the days on
# which the city shut count as late.
FEW_OF_USUAL = 0.4
Positive = Annotated[float, Meta(gt=0)]


class StretchSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of `stretch_settings.json`."""

    half_life_days: Positive
    gain: Positive
    strength: Positive
    lowest: Annotated[float, Meta(gt=0, le=1)]
    highest: Annotated[float, Meta(ge=1)]
    horizon_days: Positive
    lag_days: Positive


@cache
def stretch_settings() -> StretchSettings:
    """Return the settings as stored with the package."""
    return read_settings(__package__, "stretch_settings.json", StretchSettings)


class IntervalStretch:
    """The stretch of one model version's intervals, a pure function of its bins.

    Args:
        bins: of the version; those more than `horizon_days` before a ride do not count for it.
    """

    def __init__(self, bins: TrafficBins, settings: StretchSettings | None = None) -> None:
        self._settings = settings or stretch_settings()
        self._horizon = round(self._settings.horizon_days * BINS_A_DAY)
        self._known: dict[int, tuple[float, float]] = {}
        self._bin, place = np.unique(bins.bin, return_inverse=True)
        columns = bins.rides, bins.below, bins.above
        self._sums = np.array([np.bincount(place, c, len(self._bin)) for c in columns])
        # The slots for which bins say something; others, of any year, are not remembered.
        self._slots = range(0)
        if len(self._bin):
            self._slots = range(int(self._bin[0]) + 1, int(self._bin[-1]) + self._horizon + 1)

    def at(self, at: int) -> tuple[float, float]:
        """Return what multiplies P50 - P10 and P90 - P50, from the bins that ended before.

        Args:
            at: pickup, minute of ride time since 1970.
        """
        slot = int(at) // BIN_MINUTES  # a range looks through all its numbers for one of numpy's
        if slot not in self._slots:
            return 1.0, 1.0
        found = self._known.get(slot)
        if found is None:
            found = self._known[slot] = self._stretch(slot)
        return found

    def many(self, ats: np.ndarray) -> np.ndarray:
        """As `at` for many rides, float64 of shape (n, 2)."""
        slots, places = np.unique(ats // BIN_MINUTES, return_inverse=True)
        each = [self.at(int(slot) * BIN_MINUTES) for slot in slots]
        found: np.ndarray = np.array(each).reshape(-1, 2)[places]
        return found

    def _stretch(self, slot: int) -> tuple[float, float]:
        settings = self._settings
        start, end = np.searchsorted(self._bin, [slot - self._horizon, slot]).tolist()
        age = slot - 1 - self._bin[start:end]
        weight = _weight(age, settings)
        rides, below, above = (self._sums[:, start:end] @ weight).tolist()
        gain = settings.gain * self._followed(age, self._sums[0, start:end])
        # More truths outside than promised, as a share of all; without rides there are none.
        low, high = (
            (outside - PROMISED * rides) / (rides + settings.strength) for outside in (below, above)
        )
        low, high = np.clip(
            np.exp([gain * low, gain * high]), settings.lowest, settings.highest
        ).tolist()
        return low, high

    def _followed(self, age: np.ndarray, rides: np.ndarray) -> float:
        """Return how far truths are followed, 0 to 1, by how late they are.

        Args:
            age: of bins, in bins, falling; rides: in them; shape (d,) each.
        """
        if not len(age):
            return 0.0
        # Fewer rides than in the week before is no delay: a storm, or a city that shuts down.
        counted = np.minimum(rides, FEW_OF_USUAL * rides.mean())
        every = np.arange(age[0] + 1)
        at_once = np.average(every, weights=_weight(every, self._settings))
        late = np.average(age, weights=counted * _weight(age, self._settings)) - at_once
        lag = max(float(late), 0.0) / BINS_A_DAY
        return 1 / (1 + (lag / self._settings.lag_days) ** 2)


def _weight(age: np.ndarray, settings: StretchSettings) -> np.ndarray:
    """Return what bins of an age (in bins) count."""
    weight: np.ndarray = 2.0 ** (-age / (settings.half_life_days * BINS_A_DAY))
    return weight
