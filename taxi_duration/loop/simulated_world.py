"""A world for the loop in memory: months are lived through day by day, as fast as can be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from msgspec import to_builtins

from taxi_duration.chain.candidates import score_model
from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.domain.findings import Level, worst
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version, model_name
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.gate import Decision, compare_models
from taxi_duration.evaluation.health import (
    Health,
    check_health,
    draws_for,
    monitor_settings,
    with_truth,
)
from taxi_duration.live.arms import arm_of
from taxi_duration.live.deployment import Deployment
from taxi_duration.loop.monitor import DAY_SECONDS, answer_trips, make_sample, serving
from taxi_duration.loop.settings import AutoSettings
from taxi_duration.loop.turn import take_turn
from taxi_duration.loop.world import World
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.training.baselines import fit_baselines

Fit = Callable[[str, Rides, np.ndarray], DurationModel]


@dataclass(frozen=True)
class Fitted:
    """A version with its model and what its card would say, kept in memory."""

    version: Version
    model: DurationModel
    metrics: dict[str, Any]
    train: list[Month]
    validation: Month
    reference: Sample

    @property
    def card(self) -> dict[str, Any]:
        """As much of a card as the monitor reads."""
        return {**to_builtins(self.version), "metrics": self.metrics}


@dataclass
class SimulatedWorld(World):
    """What each method is for stands at `World`; how it is played from memory, here.

    A month is published when it is over, and a ride's truth is known at the end of its day.
    """

    service: str
    trips: dict[Month, pd.DataFrame]
    settings: AutoSettings
    fit: Fit
    time: float = 0.0
    serving_since: float = 0.0
    versions: list[Fitted] = field(default_factory=list)
    log_days: list[pd.DataFrame] = field(default_factory=list)
    decisions: list[tuple[Any, str, str]] = field(default_factory=list)
    alarms: list[tuple[Any, str, str]] = field(default_factory=list)
    worst_level: Level = "ok"

    def live_month(self, month: Month) -> np.ndarray:
        """Answer a month day by day, with a turn of the loop each night.

        Returns:
            Errors (answered - actual, minutes) of what riders got, shape (rides,).
        """
        self.worst_level = "ok"
        trips = self.trips[month].sort_values("pickup_at", kind="stable")
        day = trips["pickup_at"].to_numpy().astype("datetime64[D]")
        start, end = _first_day(month), _first_day(month.shift(1))
        errors = []
        for today in np.arange(start, end):
            # A few trips are dated outside their month: the first and last day take them.
            rows = (day == today) | ((today == start) & (day < start))
            rows |= (today == end - 1) & (day >= end)
            errors.append(self._live_day(trips[rows], today))
        return np.concatenate(errors)

    def _live_day(self, trips: pd.DataFrame, today: np.datetime64) -> np.ndarray:
        before = serving()
        frame = self._answer(before, trips, _seconds(today)) if len(trips) else pd.DataFrame()
        if len(frame):
            self.log_days = [*self.log_days[-self.settings.max_test_days :], frame]
        self.time = _seconds(today + 1)
        for line in take_turn(self, settings=self.settings):
            if line["key"] is not None:
                self.decisions.append((today, line["what"], line["why"]))
        if serving().champion != before.champion:
            self.serving_since = self.time
        if not len(frame):
            return np.zeros(0)
        error: np.ndarray = (frame["duration"] - frame["true_duration"]).to_numpy()
        return error

    def _answer(self, deployment: Deployment, trips: pd.DataFrame, asked_at: float) -> pd.DataFrame:
        """Answer a day's rides as the service would, by arms and with shadow answers."""
        frame = self._arm("champion", deployment.champion, trips, asked_at)
        challenger = deployment.challenger
        if challenger is None:
            return frame
        other = self._arm("challenger", challenger, trips, asked_at)
        shadowed = frame.assign(
            shadow_model_sha256=challenger.sha256, shadow_duration=other["duration"]
        )
        keys = [f"{asked_at:.0f}-{i}" for i in range(len(trips))]
        arms = [arm_of(key, deployment.ab_share, challenger.sha256) for key in keys]
        theirs = np.array(arms) == "challenger"
        return pd.concat([shadowed[~theirs], other[theirs]]).sort_index()

    def _arm(
        self, arm: str, version: Version, trips: pd.DataFrame, asked_at: float
    ) -> pd.DataFrame:
        fitted = self._fitted(version)
        return answer_trips(fitted.model, fitted.card, trips).assign(
            asked_at=asked_at, model_sha256=version.sha256, arm=arm,
            shadow_model_sha256=None, shadow_duration=np.nan,
        )  # fmt: skip

    # --- months -------------------------------------------------------------------------

    def now(self) -> float:
        """Midnight after the day that was just lived."""
        return self.time

    def months_of(self, version: Version) -> list[Month]:
        fitted = self._fitted(version)
        return [*fitted.train, fitted.validation]

    def is_published(self, version: Version, month: Month) -> bool:
        return month in self.trips and self.time >= start_of(month.shift(1))

    def month_health(self, version: Version, month: Month) -> Health:
        fitted = self._fitted(version)
        frame = answer_trips(fitted.model, fitted.card, self.trips[month])
        source = f"{self.service} {month}"
        return check_health(source, frame, fitted.card, fitted.reference, whole_month=True)

    # --- the live log -------------------------------------------------------------------

    def live_health(self, champion: Version) -> Health:
        """As `arm_health`; changes of its level are kept."""
        health = self.arm_health(champion)
        if not self.alarms or self.alarms[-1][1] != health.level:
            why = "; ".join(r.text for r in health.reasons if r.level == health.level)
            self.alarms.append((_day_at(self.time) - 1, health.level, why))
        self.worst_level = worst([self.worst_level, health.level])
        return health

    def arm_health(self, challenger: Version) -> Health:
        fitted = self._fitted(challenger)
        return check_health("live log", self._recent_rides(), fitted.card, fitted.reference)

    def _recent_rides(self) -> pd.DataFrame:
        recent = self.time - monitor_settings().live_days * DAY_SECONDS
        return self.live_rows(max(self.serving_since, recent))

    def live_rows(self, since: float) -> pd.DataFrame:
        days = [day for day in self.log_days if day["asked_at"].iloc[0] >= since]
        return pd.concat(days, ignore_index=True) if days else pd.DataFrame()

    def compare_live(self, champion: Version, earlier: Version) -> tuple[Estimate, int]:
        rows = with_truth(self._recent_rides())
        rows = rows[rows["model_sha256"] == champion.sha256]
        true = rows["true_duration"].to_numpy()
        theirs = self._fitted(earlier).model.answer(Rides.from_frame(rows)).duration
        gain = np.abs(rows["duration"].to_numpy() - true) - np.abs(theirs - true)
        return draws_for(rows["pickup_at"].to_numpy()).mean(gain), len(rows)

    # --- a challenger -------------------------------------------------------------------

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> Version:
        """Fit on the window; the second month given is the one that judges."""
        return self.make_version(settings.train_months, settings.val_months[0]).version

    def gate(self, champion: Version, challenger: Version, month: Month) -> Decision:
        ours, theirs = self._fitted(challenger), self._fitted(champion)
        train = pd.concat([self.trips[m] for m in ours.train])
        lookups = fit_baselines(Rides.from_frame(train), train["duration"].to_numpy())
        trips = self.trips[month]
        rides, actual = Rides.from_frame(trips), trips["duration"].to_numpy()
        return compare_models(theirs.model, ours.model, lookups, rides, actual)

    def check_bundle(self, version: Version) -> None:
        """Nothing is on disk."""

    def restore_bundle(self, version: Version) -> bool:
        return False

    def mirror(self) -> None:
        """There is no registry."""

    def log(self, line: dict[str, Any], version: Version | None) -> None:
        """There is no MLflow; `decisions` keeps the lines."""

    # --- versions -----------------------------------------------------------------------

    def make_version(self, train: list[Month], validation: Month) -> Fitted:
        """Fit on months and score on a later one; the same months give the same version."""
        for fitted in self.versions:
            if (fitted.train, fitted.validation) == (train, validation):
                return fitted
        tags = {"TRAIN_DATA": ",".join(map(str, train)), "VAL_DATA": str(validation)}
        check_settings(**tags, SERVICE=self.service)
        trips = pd.concat([self.trips[month] for month in train], ignore_index=True)
        duration = trips["duration"].to_numpy()
        model = self.fit(self.settings.model, Rides.from_frame(trips), duration)
        metrics, digest = score_model(model, self.trips[validation])
        number = len(self.versions) + 1
        # Two versions that answer alike are still two.
        sha256 = hashlib.sha256(f"{number}-{digest}".encode()).hexdigest()
        version = Version(model_name(self.service), number, sha256, "tlc")
        reference = make_sample(model, trips, self.trips[validation])
        self.versions.append(Fitted(version, model, metrics, train, validation, reference))
        return self.versions[-1]

    def _fitted(self, version: Version) -> Fitted:
        return self.versions[version.number - 1]


def start_of(month: Month) -> float:
    """Return when a month begins, in seconds; New York's clock is taken for UTC."""
    return _seconds(_first_day(month))


def _first_day(month: Month) -> np.datetime64:
    return np.datetime64(str(month), "D")


def _seconds(day: np.datetime64) -> float:
    return float(day.astype("datetime64[s]").astype("int64"))


def _day_at(seconds: float) -> np.datetime64:
    return np.datetime64(int(seconds // DAY_SECONDS), "D")
