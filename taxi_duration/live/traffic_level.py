"""The traffic of this hour: a factor for answers, from the true durations of rides that have ended.

The level is the mean of ln(true / answered) of the last rides, at several half-lives: the slowest
is drawn to 0, each faster one to the slower one, the more the fewer rides stand behind it. Areas
deviate from the city in the same way. How the settings were chosen, and what the level buys, is in
docs/traffic.md.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from taxi_duration.files import read_settings
from taxi_duration.live.traffic_bins import AREAS, BIN_MINUTES, BINS_A_DAY, TrafficBins

Positive = Annotated[float, Meta(gt=0)]
# Weights of a bin grow by 2 ** (horizon / half-life): floats end at 2 ** 1023.
MOST_DOUBLINGS = 1000.0
FEW = 1e-12  # rides or minutes that have faded away; keeps 0 / 0 at 0


class TrafficSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of `traffic_settings.json`."""

    centre: float
    half_lives_hours: list[Positive]
    strengths: list[Positive]
    area_half_life_hours: Positive
    area_strength: Positive
    proof_half_life_hours: Positive
    proof_strength: Positive
    proof_lag_minutes: Positive
    worst_loss: Positive
    loss_strength: Positive
    lowest: Annotated[float, Meta(gt=0, le=1)]
    highest: Annotated[float, Meta(ge=1)]
    horizon_days: Positive

    def __post_init__(self) -> None:
        if len(self.half_lives_hours) != len(self.strengths):
            raise ValueError("half_lives_hours and strengths differ in length")
        shortest = min(*self.half_lives_hours, self.area_half_life_hours)
        if self.horizon_days * 24 / shortest > MOST_DOUBLINGS:
            raise ValueError(f"a half-life of {shortest:g} hours is too short for horizon_days")


@cache
def traffic_settings() -> TrafficSettings:
    """Return the settings as stored with the package."""
    return read_settings(__package__, "traffic_settings.json", TrafficSettings)


class TrafficLevel:
    """The level of one model version, a pure function of its bins.

    Args:
        bins: of the version; those more than `horizon_days` older than the newest are not used.
    """

    def __init__(self, bins: TrafficBins, settings: TrafficSettings | None = None) -> None:
        self._settings = settings or traffic_settings()
        self._has_rides = bool(len(bins.bin) and bins.rides.sum() > 0)
        if self._has_rides:
            self._sum_up(bins)

    def factor(self, area: int, at: int) -> float:
        """Return what multiplies answers to rides of an area, from the bins that ended before.

        Args:
            area: place in AREAS.
            at: pickup, minute of ride time since 1970.
        """
        return float(self.factors(np.array([area]), np.array([at]))[0])

    def factors(self, areas: np.ndarray, ats: np.ndarray) -> np.ndarray:
        """As `factor` for many rides, shape (n,)."""
        slots, places = np.unique(ats // BIN_MINUTES, return_inverse=True)
        found: np.ndarray = self._factors(slots)[places, areas]
        return found

    def _sum_up(self, bins: TrafficBins) -> None:
        settings = self._settings
        last = int(bins.bin.max())
        self._first = max(int(bins.bin.min()), last - round(settings.horizon_days * BINS_A_DAY))
        self._length = last + 1 - self._first
        rides = self._dense(bins, bins.rides)
        logs = self._dense(bins, bins.log_sum) - settings.centre * rides
        both = np.stack([rides.sum(axis=1), logs.sum(axis=1)], axis=1)
        self._city = [_faded(both, hours) for hours in settings.half_lives_hours]
        self._areas = _faded(np.hstack([rides, logs]), settings.area_half_life_hours)
        # What the level was when the rides of each bin began, against what they then said.
        lag = round(settings.proof_lag_minutes / BIN_MINUTES)
        said = self._levels(np.arange(self._first - lag, last + 1 - lag))
        without, with_it = self._dense(bins, bins.off_without), self._dense(bins, bins.off_with)
        proof = [said * logs, said**2 * rides, without, with_it]
        sums = np.stack([part.sum(axis=1) for part in proof], axis=1)
        self._proof = _faded(sums, settings.proof_half_life_hours)

    def _dense(self, bins: TrafficBins, values: np.ndarray) -> np.ndarray:
        """Return sums by bin and area, shape (bins, areas)."""
        kept = bins.bin >= self._first
        places = (bins.bin[kept] - self._first) * len(AREAS) + bins.area[kept]
        sums = np.bincount(places, values[kept], minlength=self._length * len(AREAS))
        return sums.reshape(self._length, len(AREAS))

    def _factors(self, slots: np.ndarray) -> np.ndarray:
        """Return the factors of ten-minute slots, shape (n, areas)."""
        if not self._has_rides:
            return np.ones((len(slots), len(AREAS)))
        level = self._levels(slots) * self._trust(slots)[:, None]
        bounds = self._settings.lowest, self._settings.highest
        factors: np.ndarray = np.clip(np.exp(level), *bounds)
        return factors

    def _levels(self, slots: np.ndarray) -> np.ndarray:
        """Return ln of the factors before they are proven, shape (n, areas)."""
        settings = self._settings
        city = np.zeros(len(slots))
        for sums, hours, strength in zip(
            self._city, settings.half_lives_hours, settings.strengths, strict=True
        ):
            rides, logs = self._before(sums, slots, hours).T
            city = city + (logs - city * rides) / (rides + strength)
        found = self._before(self._areas, slots, settings.area_half_life_hours)
        rides, logs = found[:, : len(AREAS)], found[:, len(AREAS) :]
        of_all = logs.sum(axis=1) / np.maximum(rides.sum(axis=1), FEW)
        deviation = (logs - of_all[:, None] * rides) / (rides + settings.area_strength)
        levels: np.ndarray = city[:, None] + deviation
        return levels

    def _trust(self, slots: np.ndarray) -> np.ndarray:
        """Return how much of the level is applied, 0 to 1, shape (n,).

        The slope of what rides said on what the level was, drawn to 1; and 0 where answers with
        the factors given were worse than without by `worst_loss` of their error.
        """
        settings = self._settings
        proof = self._before(self._proof, slots, settings.proof_half_life_hours)
        product, square, without, with_it = proof.T
        strength = settings.proof_strength
        slope = (product + strength) / (square + strength)
        loss = (with_it - without) / (without + settings.loss_strength)
        trust: np.ndarray = np.clip(slope, 0, 1) * np.clip(1 - loss / settings.worst_loss, 0, 1)
        return trust

    def _before(self, sums: np.ndarray, slots: np.ndarray, hours: float) -> np.ndarray:
        """Return faded sums of the bins that ended before slots, shape (n, k)."""
        last = np.minimum(slots - 1 - self._first, self._length - 1)
        age = slots - 1 - self._first - last
        faded: np.ndarray = sums[np.maximum(last, 0)]
        faded[last < 0] = 0.0
        if (age > 0).any():  # not in the past, of which most is asked
            faded *= (2.0 ** (-age / _in_bins(hours)))[:, None]
        return faded


def _faded(sums: np.ndarray, hours: float) -> np.ndarray:
    """Return running sums in which a bin counts half after some hours, shape (bins, k)."""
    weight = _growth(len(sums), hours)
    faded: np.ndarray = np.cumsum(sums * weight, axis=0) / weight
    return faded


@lru_cache(maxsize=64)
def _growth(bins: int, hours: float) -> np.ndarray:
    """Return the weight of each bin, shape (bins, 1); not to be changed."""
    return np.asarray(2.0 ** (np.arange(bins) / _in_bins(hours))[:, None])


def _in_bins(hours: float) -> float:
    return hours * 60 / BIN_MINUTES
