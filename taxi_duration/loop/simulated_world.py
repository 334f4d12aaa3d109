"""A world for the loop in memory: months are lived through day by day, as fast as can be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from msgspec import to_builtins

from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.data.window import Window
from taxi_duration.domain.findings import Level, worst
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.months import Month, format_months
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
    scored,
)
from taxi_duration.evaluation.window_scores import score_model
from taxi_duration.live.arms import arm_of
from taxi_duration.live.deployment import Deployment
from taxi_duration.live.traffic_bins import zone_areas
from taxi_duration.loop.monitor import answer_trips, make_sample, serving
from taxi_duration.loop.settings import AutoSettings
from taxi_duration.loop.traffic_replay import AnsweredRides, TrafficReplay, given_minutes
from taxi_duration.loop.turn import take_turn
from taxi_duration.loop.world import Republished, World
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.timestamps import DAY_SECONDS
from taxi_duration.training.baselines import fit_baselines

Fit = Callable[[str, Window], DurationModel]
Measure = Callable[[DurationModel, DurationModel, Window], DurationModel]
KEPT_ANSWERS = 6  # whole months of answers in memory, about 10 MB each
STATE = ("time", "serving_since", "log_days", "decisions", "alarms", "worst_level", "traffic")
Errors = tuple[np.ndarray, np.ndarray]  # without live traffic and with it, each of shape (rides,)


@dataclass(frozen=True)
class Fitted:
    """A version with its model and what its card would say, kept in memory.

    `judged` is the number of the version that it is a refit of.
    """

    version: Version
    model: DurationModel
    metrics: dict[str, Any]
    train: list[Month]
    validation: Month
    reference: Sample
    judged: int | None = None

    @property
    def card(self) -> dict[str, Any]:
        """As much of a card as the monitor reads."""
        return {**to_builtins(self.version), "metrics": self.metrics}


@dataclass
class SimulatedWorld(World):
    """`World` says what each method is for; here is how it is simulated in memory.

    A month is published `delay_months` after it is over, and a ride's truth is known at the end
    of its day.

    Args:
        trips: by month, to learn from and to judge by.
        rides: by month, what riders ask: also rides that no score counts.
        fit: as `training.fit.fit_model`.
        measure: as `training.refit.with_shown_intervals`.
    """

    service: str
    trips: dict[Month, pd.DataFrame]
    rides: dict[Month, pd.DataFrame]
    settings: AutoSettings
    fit: Fit
    measure: Measure
    delay_months: int = 0
    time: float = 0.0
    serving_since: float = 0.0
    versions: list[Fitted] = field(default_factory=list)
    log_days: list[pd.DataFrame] = field(default_factory=list)
    decisions: list[tuple[Any, str, str]] = field(default_factory=list)
    alarms: list[tuple[Any, str, str]] = field(default_factory=list)
    worst_level: Level = "ok"
    traffic: dict[str, TrafficReplay] = field(default_factory=dict)
    answers: dict[tuple[int, Month], pd.DataFrame] = field(default_factory=dict)

    def live_month(self, month: Month) -> Errors:
        """Answer a month day by day, with a turn of the loop each night.

        The loop judges answers without live traffic. With it, they know the truths of rides that
        had ended before.

        Returns:
            Errors (answered - actual, minutes) of the scored rides.
        """
        self.worst_level = "ok"
        day = self.rides[month]["pickup_at"].to_numpy().astype("datetime64[D]")
        start, end = _first_day(month), _first_day(month.shift(1))
        errors = []
        for today in np.arange(start, end):
            # A few trips are dated outside their month: the first and last day take them.
            rows = (day == today) | ((today == start) & (day < start))
            rows |= (today == end - 1) & (day >= end)
            errors.append(self._live_day(month, rows, today))
        without, with_traffic = (np.concatenate(part) for part in zip(*errors, strict=True))
        return without, with_traffic

    def errors_of(self, fitted: Fitted, month: Month) -> np.ndarray:
        """Errors (minutes) of a version that answers a whole month, as `live_month`."""
        return _scored_errors(self._answered(fitted.version, month))

    def _live_day(self, month: Month, rows: np.ndarray, today: np.datetime64) -> Errors:
        before = serving()
        frame = self._answer(before, month, rows, _seconds(today))
        in_traffic = frame.assign(duration=self._in_traffic(frame))
        if len(frame):
            self.log_days = [*self.log_days[-self.settings.max_test_days :], frame]
        self.time = _seconds(today + 1)
        for line in take_turn(self, settings=self.settings):
            if line["key"] is not None:
                self.decisions.append((today, line["what"], line["why"]))
        if serving().champion != before.champion:
            self.serving_since = self.time
        return _scored_errors(frame), _scored_errors(in_traffic)

    def _in_traffic(self, frame: pd.DataFrame) -> np.ndarray:
        """A day's answers with live traffic, minutes, shape (n,).

        Each version's level knows what rides said of its own answers, also of those in the shadow.
        """
        given: np.ndarray = frame["duration"].to_numpy("float64").copy()
        digests = pd.concat([frame["model_sha256"], frame["shadow_model_sha256"]]).dropna()
        for sha256 in digests.unique():
            own = (frame["model_sha256"] == sha256).to_numpy()
            rows = frame[own | (frame["shadow_model_sha256"] == sha256)].sort_values("pickup_at")
            theirs = rows["model_sha256"] == sha256
            base = rows["duration"].where(theirs, rows["shadow_duration"]).to_numpy("float64")
            rides = AnsweredRides(
                rows["pickup_at"].to_numpy(), zone_areas()[rows["PULocationID"]],
                rows["true_duration"].to_numpy("float64"), base,
            )  # fmt: skip
            factors = self.traffic.setdefault(sha256, TrafficReplay()).factors(rides)
            answers = pd.Series(given_minutes(base, factors), rows.index)
            given[own] = answers[frame.index[own]]
        return given

    def _answer(
        self, deployment: Deployment, month: Month, rows: np.ndarray, asked_at: float
    ) -> pd.DataFrame:
        """Answer a day's rides as the service would: by arms, each with the other's answers."""
        frame = self._arm("champion", deployment.champion, month, rows, asked_at)
        challenger = deployment.challenger
        if challenger is None:
            return frame
        other = self._arm("challenger", challenger, month, rows, asked_at)
        keys = [f"{asked_at:.0f}-{i}" for i in range(len(frame))]
        arms = [arm_of(key, deployment.ab_share, challenger.sha256) for key in keys]
        theirs = np.array(arms, dtype="U10") == "challenger"
        frame, other = _beside(frame, other), _beside(other, frame)
        return pd.concat([frame[~theirs], other[theirs]]).sort_index()

    def _arm(
        self, arm: str, version: Version, month: Month, rows: np.ndarray, asked_at: float
    ) -> pd.DataFrame:
        return self._answered(version, month)[rows].assign(
            asked_at=asked_at, model_sha256=version.sha256, arm=arm, shadow_model_sha256=None,
            shadow_duration=np.nan, shadow_p10=np.nan, shadow_p90=np.nan, failed_as=None,
            ride_id=None, latency_ms=1.0,
        )  # fmt: skip

    def _answered(self, version: Version, month: Month) -> pd.DataFrame:
        """A version's answers to all rides of a month, made once."""
        key = (version.number, month)
        if key not in self.answers:
            fitted = self._fitted(version)
            kept = list(self.answers.items())[-KEPT_ANSWERS + 1 :]
            frame = answer_trips(fitted.model, fitted.card, self.rides[month])
            self.answers = {**dict(kept), key: frame}
        return self.answers[key]

    def snapshot(self) -> dict[str, Any]:
        """Return where this world stands, without months and models."""
        state = {name: getattr(self, name) for name in STATE}
        return {**state, "versions": [{**vars(f), "model": None} for f in self.versions]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where a world stood; models are fitted again, or looked up by `fit`."""
        for name in STATE:
            setattr(self, name, state[name])
        self.versions = []
        for entry in state["versions"]:
            model = self._fit(self._joined(entry["train"]))
            if entry["judged"] is not None:
                judged = self.versions[entry["judged"] - 1]
                model = self._measured(model, judged, entry["validation"])
            self.versions.append(Fitted(**{**entry, "model": model}))

    # --- months -------------------------------------------------------------------------

    def now(self) -> float:
        """Midnight after the day that was just lived."""
        return self.time

    def months_of(self, version: Version) -> list[Month]:
        fitted = self._fitted(version)
        return sorted({*fitted.train, fitted.validation})

    def find_published(self, version: Version, months: Iterable[Month]) -> Iterator[Month]:
        delay = 1 + self.delay_months
        return (m for m in months if m in self.trips and self.time >= start_of(m.shift(delay)))

    def fetch_republished(self, version: Version, months: Iterable[Month]) -> list[Republished]:
        """Months do not change here."""
        return []

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
        rides = self._recent_rides()
        return check_health("live log", rides, fitted.card, fitted.reference, in_groups=False)

    def _recent_rides(self) -> pd.DataFrame:
        recent = self.time - monitor_settings().live_days * DAY_SECONDS
        return self._rides_since(max(self.serving_since, recent))

    def live_rows(self, since: float, pair: tuple[Version, Version]) -> pd.DataFrame:
        return self._rides_since(since)

    def _rides_since(self, since: float) -> pd.DataFrame:
        days = [day for day in self.log_days if day["asked_at"].iloc[0] >= since]
        return pd.concat(days, ignore_index=True) if days else pd.DataFrame()

    def compare_live(self, champion: Version, earlier: Version) -> tuple[Estimate, int]:
        rows = scored(self._recent_rides())
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

    def gate(self, champion: Version | None, challenger: Version, month: Month) -> Decision:
        ours = self._fitted(challenger)
        theirs = None if champion is None else self._fitted(champion).model
        train = pd.concat([self.trips[m] for m in ours.train])
        lookups = fit_baselines(Window.from_frame(train))
        trips = self.trips[month]
        rides, actual = Rides.from_frame(trips), trips["duration"].to_numpy()
        return compare_models(theirs, ours.model, lookups, rides, actual)

    def refit(
        self,
        judged: Version,
        months: list[Month],
        run_id: str | None,
        remember: Callable[[str], None],
    ) -> Version:
        fitted = self._fitted(judged)
        for known in self.versions:
            if (known.train, known.validation) == (months, months[-1]):
                return known.version
        trips = self._joined(months)
        model = self._measured(self._fit(trips), fitted, months[-1])
        made = self._keep(model, fitted.metrics, months, months[-1], trips, judged.number)
        return made.version

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
        trips = self._joined(train)
        model = self._fit(trips)
        metrics, _ = score_model(model, Window.from_frame(self.trips[validation]))
        return self._keep(model, metrics, train, validation, trips)

    def _measured(self, model: DurationModel, judged: Fitted, month: Month) -> DurationModel:
        return self.measure(model, judged.model, Window.from_frame(self.trips[month]))

    def _joined(self, months: list[Month]) -> pd.DataFrame:
        return pd.concat([self.trips[month] for month in months], ignore_index=True)

    def _fit(self, trips: pd.DataFrame) -> DurationModel:
        return self.fit(self.settings.model, Window.from_frame(trips))

    def _keep(
        self,
        model: DurationModel,
        metrics: dict[str, Any],
        train: list[Month],
        validation: Month,
        trips: pd.DataFrame,
        judged: int | None = None,
    ) -> Fitted:
        number = len(self.versions) + 1
        sha256 = hashlib.sha256(f"{number} {format_months(train)}".encode()).hexdigest()
        version = Version(model_name(self.service), number, sha256, "tlc")
        reference = make_sample(
            model, Window.from_frame(trips), Window.from_frame(self.trips[validation])
        )
        made = Fitted(version, model, metrics, train, validation, reference, judged)
        self.versions.append(made)
        return made

    def _fitted(self, version: Version) -> Fitted:
        return self.versions[version.number - 1]


def _beside(frame: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The same rides with what another version answered to each."""
    return frame.assign(
        shadow_model_sha256=other["model_sha256"], shadow_duration=other["duration"],
        shadow_p10=other["p10"], shadow_p90=other["p90"],
    )  # fmt: skip


def _scored_errors(frame: pd.DataFrame) -> np.ndarray:
    """Answered - actual (minutes) of the rides that the course rule scores."""
    rows = frame["true_duration"].between(*TRIP_MINUTES).to_numpy()
    error: np.ndarray = (frame["duration"] - frame["true_duration"]).to_numpy()[rows]
    return error


def start_of(month: Month) -> float:
    """Return when a month begins, in seconds; New York's clock is taken for UTC."""
    return _seconds(_first_day(month))


def _first_day(month: Month) -> np.datetime64:
    return np.datetime64(str(month), "D")


def _seconds(day: np.datetime64) -> float:
    return float(day.astype("datetime64[s]").astype("int64"))


def _day_at(seconds: float) -> np.datetime64:
    return np.datetime64(int(seconds // DAY_SECONDS), "D")
