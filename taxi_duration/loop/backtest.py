"""Time travel: real months answered day by day as if live, with the loop taking its turns.

Three ways to live through the same months start with the same model: never retrain (frozen),
retrain every month and always deploy (monthly), or let `auto` decide. `auto` is the real one,
with its gate, monitor, shadow and A/B test; only notebooks, MLflow and the clock are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration import environment
from taxi_duration.chain.candidates import score_model
from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.levels import LEVELS
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.gate import Decision, compare_models
from taxi_duration.evaluation.health import Health, check_health, draws_for, monitor_settings
from taxi_duration.live.arms import arm_of
from taxi_duration.live.deployment import deploy_champion, read_deployment
from taxi_duration.loop.monitor import DAY_SECONDS, answer_trips, make_sample
from taxi_duration.loop.turn import AutoSettings, auto_settings, take_turn
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.fit import fit_model

Fit = Callable[[str, Rides, np.ndarray], DurationModel]
MIN_MONTHS = 4  # to train, to validate, and two to live through
STRATEGIES = ("frozen", "monthly", "auto")


@dataclass(frozen=True)
class Version:
    """A model with what its card says, kept in memory."""

    model: DurationModel
    card: dict[str, Any]
    reference: Sample

    @property
    def entry(self) -> dict[str, Any]:
        """What deployment.json keeps of it."""
        return {key: self.card[key] for key in ("name", "version", "model_sha256", "data_source")}


@dataclass(frozen=True)
class Backtest:
    """What living through the months gave.

    Args:
        table: one row per month: `rows`, MAE and RMSE (minutes) of each strategy, `level` (the
            worst that the monitor said of auto's champion), `serves` (auto's version).
        decisions: one row per decision of `auto`: `day`, `what`, `why`.
        alarms: one row per day on which auto's live verdict changed: `day`, `level`, `why`.
    """

    table: pd.DataFrame
    decisions: pd.DataFrame
    alarms: pd.DataFrame


def run_backtest(
    service: str,
    months: list[Month],
    say: Callable[[str], None] = lambda _: None,
    settings: AutoSettings | None = None,
    fit: Fit = fit_model,
) -> Backtest:
    """Live through months: the first trains the model, the second validates it.

    Args:
        service: green, yellow, …
        months: in time order; at least MIN_MONTHS.
        say: prints a line of progress.
        settings: of `auto`; the package's own when None.
        fit: fits a model, `training.fit.fit_model`.
    Raises:
        TaxiError: a month cannot be had, or there are too few.
    """
    if len(months) < MIN_MONTHS:
        raise SettingError(
            f"{len(months)} months are too few to live through; at least {MIN_MONTHS}"
        )
    trips = {month.raw.month: month.trips() for month in prepare_months(service, months)}
    shop = SimulatedWorkshop(service, trips, settings or auto_settings(), fit)
    # The loop keeps its state in a deployment folder: one of its own, not the real one.
    with tempfile.TemporaryDirectory() as folder, environment.temporary_home(Path(folder)):
        return _live_through(shop, months, say)


def _live_through(
    shop: SimulatedWorkshop, months: list[Month], say: Callable[[str], None]
) -> Backtest:
    first = shop.make_version(months[:1], months[1])
    deploy_champion(first.entry, "the first model")
    shop.serving_since = _start_of(months[2])
    rows = []
    for i, month in enumerate(months[2:], 2):
        monthly = shop.make_version(months[max(i - 1 - shop.settings.window_months, 0) : i - 1],
                                    months[i - 1])  # fmt: skip
        truth = shop.trips[month]["duration"].to_numpy()
        errors = {
            "frozen": _errors(first, shop.trips[month], truth),
            "monthly": _errors(monthly, shop.trips[month], truth),
            "auto": shop.live_month(month),
        }
        champion = read_deployment()["champion"]
        rows.append(_row(month, errors, shop.worst_level, champion["version"]))
        say(_in_words(rows[-1]))
    decisions = pd.DataFrame(shop.decisions, columns=["day", "what", "why"])
    alarms = pd.DataFrame(shop.alarms, columns=["day", "level", "why"])
    return Backtest(pd.DataFrame(rows).set_index("month"), decisions, alarms)


@dataclass
class SimulatedWorkshop:
    """A `Workshop` whose months, log and clock are played from memory.

    A month is published when it is over, and a ride's truth is known at the end of its day.
    """

    service: str
    trips: dict[Month, pd.DataFrame]
    settings: AutoSettings
    fit: Fit
    time: float = 0.0
    serving_since: float = 0.0
    versions: list[Version] = field(default_factory=list)
    log_days: list[pd.DataFrame] = field(default_factory=list)
    decisions: list[tuple[Any, str, str]] = field(default_factory=list)
    alarms: list[tuple[Any, str, str]] = field(default_factory=list)
    worst_level: str = "ok"

    def live_month(self, month: Month) -> np.ndarray:
        """Answer a month day by day, with a turn of the loop each night.

        Returns:
            Errors (answered - actual, minutes) of what riders got, shape (rides,).
        """
        self.worst_level = "ok"
        trips = self.trips[month].sort_values("pickup_at", kind="stable")
        day = trips["pickup_at"].to_numpy().astype("datetime64[D]")
        start, end = _day_of(month), _day_of(month.shift(1))
        errors = []
        for today in np.arange(start, end):
            # A few trips are dated outside their month: the first and last day take them.
            rows = (day == today) | ((today == start) & (day < start))
            rows |= (today == end - 1) & (day >= end)
            errors.append(self._live_day(trips[rows], today))
        return np.concatenate(errors)

    def _live_day(self, trips: pd.DataFrame, today: np.datetime64) -> np.ndarray:
        frame = self._answer(trips, _seconds(today)) if len(trips) else pd.DataFrame()
        if len(frame):
            self.log_days = [*self.log_days[-self.settings.max_test_days :], frame]
        self.time = _seconds(today + 1)
        before = read_deployment()["champion"]
        for line in take_turn(self, settings=self.settings):
            if line["key"] is not None:
                self.decisions.append((today, line["what"], line["why"]))
        if read_deployment()["champion"] != before:
            self.serving_since = self.time
        if not len(frame):
            return np.zeros(0)
        return (frame["duration"] - frame["true_duration"]).to_numpy()

    def _answer(self, trips: pd.DataFrame, asked_at: float) -> pd.DataFrame:
        """Answer a day's rides as the service would, by arms and with shadow answers."""
        deployment = read_deployment()
        champion = self._version(deployment["champion"])
        frame = answer_trips(champion.model, champion.card, trips).assign(
            asked_at=asked_at, model_sha256=champion.card["model_sha256"],
            shadow_model_sha256=None, shadow_duration=np.nan,
        )  # fmt: skip
        if deployment["challenger"] is None:
            return frame
        challenger = self._version(deployment["challenger"])
        digest, share = challenger.card["model_sha256"], deployment["ab_share"]
        other = answer_trips(challenger.model, challenger.card, trips).assign(
            asked_at=asked_at, model_sha256=digest, arm="challenger",
            shadow_model_sha256=None, shadow_duration=np.nan,
        )  # fmt: skip
        shadowed = frame.assign(shadow_model_sha256=digest, shadow_duration=other["duration"])
        keys = [f"{asked_at:.0f}-{i}" for i in range(len(trips))]
        theirs = np.array([arm_of(key, share, digest) == "challenger" for key in keys])
        return pd.concat([shadowed[~theirs], other[theirs]]).sort_index()

    # --- auto.Workshop ------------------------------------------------------------------

    def now(self) -> float:
        """Midnight after the day that was just lived."""
        return self.time

    def months_of(self, entry: dict[str, Any]) -> list[Month]:
        """Months that a version was trained and validated on."""
        return self._version(entry).card["all_months"]

    def is_published(self, entry: dict[str, Any], month: Month) -> bool:
        """Whether the month is over."""
        return month in self.trips and self.time >= _start_of(month.shift(1))

    def month_health(self, entry: dict[str, Any], month: Month) -> Health:
        """How the version does on a whole month."""
        version = self._version(entry)
        frame = answer_trips(version.model, version.card, self.trips[month])
        source = f"{self.service} {month}"
        return check_health(source, frame, version.card, version.reference, whole_month=True)

    def live_health(self, entry: dict[str, Any]) -> Health:
        """How the version does on the last days of the log; changes of its level are kept."""
        health = self.arm_health(entry)
        if not self.alarms or self.alarms[-1][1] != health.level:
            why = "; ".join(r.text for r in health.reasons if r.level == health.level)
            self.alarms.append((_day_at(self.time) - 1, health.level, why))
        self.worst_level = max(self.worst_level, health.level, key=LEVELS.index)
        return health

    def arm_health(self, entry: dict[str, Any]) -> Health:
        """How a version does on the rides that it answered."""
        version = self._version(entry)
        return check_health("live log", self._recent_rides(), version.card, version.reference)

    def _recent_rides(self) -> pd.DataFrame:
        recent = self.time - monitor_settings().live_days * DAY_SECONDS
        return self.live_rows(max(self.serving_since, recent))

    def live_rows(self, since: float) -> pd.DataFrame:
        """Rides of the log asked at or after a moment."""
        days = [day for day in self.log_days if day["asked_at"].iloc[0] >= since]
        return pd.concat(days, ignore_index=True) if days else pd.DataFrame()

    def compare_live(self, entry: dict[str, Any], earlier: dict[str, Any]) -> tuple[Estimate, int]:
        """Let the earlier version answer again what this one answered in the last days."""
        rows = self._recent_rides()
        rows = rows[rows["model_sha256"] == entry["model_sha256"]]
        true = rows["true_duration"].to_numpy()
        theirs = self._version(earlier).model.answer(Rides.from_frame(rows)).duration
        gain = np.abs(rows["duration"].to_numpy() - true) - np.abs(theirs - true)
        return draws_for(rows["pickup_at"].to_numpy()).mean(gain), len(rows)

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> dict[str, Any]:
        """Fit on the window; the second month given is the one that judges."""
        return self.make_version(settings.train_months, settings.val_months[0]).entry

    def gate(self, champion: dict[str, Any], challenger: dict[str, Any], month: Month) -> Decision:
        """Judge as the real gate does."""
        ours, theirs = self._version(challenger), self._version(champion)
        train = pd.concat([self.trips[m] for m in ours.card["train_months"]])
        lookups = fit_baselines(Rides.from_frame(train), train["duration"].to_numpy())
        trips = self.trips[month]
        rides, actual = Rides.from_frame(trips), trips["duration"].to_numpy()
        return compare_models(theirs.model, ours.model, lookups, rides, actual)

    def check_bundle(self, entry: dict[str, Any]) -> None:
        """Nothing is on disk."""

    def mirror(self) -> None:
        """There is no registry."""

    def log(self, line: dict[str, Any], model: dict[str, Any] | None) -> None:
        """There is no MLflow; `decisions` keeps the lines."""

    # --- versions -----------------------------------------------------------------------

    def make_version(self, train: list[Month], validation: Month) -> Version:
        """Fit on months and score on a later one; the same months give the same version."""
        for version in self.versions:
            if version.card["all_months"] == [*train, validation]:
                return version
        tags = {"TRAIN_DATA": ",".join(map(str, train)), "VAL_DATA": str(validation)}
        check_settings(**tags, SERVICE=self.service)
        trips = pd.concat([self.trips[month] for month in train], ignore_index=True)
        duration = trips["duration"].to_numpy()
        model = self.fit(self.settings.model, Rides.from_frame(trips), duration)
        metrics, digest = score_model(model, self.trips[validation])
        number = len(self.versions) + 1
        card = {
            "name": f"{self.service}-duration", "version": number,
            "model_sha256": f"{number}-{digest}", "data_source": "tlc", "metrics": metrics,
            "train_months": train, "all_months": [*train, validation],
        }  # fmt: skip
        version = Version(model, card, make_sample(model, trips, self.trips[validation]))
        self.versions.append(version)
        return version

    def _version(self, entry: dict[str, Any]) -> Version:
        return self.versions[entry["version"] - 1]


def summarize(result: Backtest) -> dict[str, float]:
    """Return each strategy's MAE over all rides (minutes), and what the others save of frozen's."""
    weights = result.table["rows"]
    means = {
        name: float(np.average(result.table[f"{name}_mae"], weights=weights)) for name in STRATEGIES
    }
    saved = {f"{name}_saves": means["frozen"] - means[name] for name in STRATEGIES[1:]}
    return {**means, **saved}


def _errors(version: Version, trips: pd.DataFrame, truth: np.ndarray) -> np.ndarray:
    return version.model.answer(Rides.from_frame(trips)).duration - truth


def _row(month: Month, errors: dict[str, np.ndarray], level: str, version: int) -> dict[str, Any]:
    row: dict[str, Any] = {"month": str(month), "rows": len(errors["frozen"])}
    for name, error in errors.items():
        row[f"{name}_mae"] = float(np.abs(error).mean())
        row[f"{name}_rmse"] = float(np.sqrt(np.mean(error.astype("float64") ** 2)))
    return {**row, "level": level, "serves": version}


def _in_words(row: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {row[f'{name}_mae']:.3f}" for name in STRATEGIES)
    return f"{row['month']}: {row['rows']:,} trips, MAE {errors} min, monitor says {row['level']}"


def _day_of(month: Month) -> np.datetime64:
    return np.datetime64(str(month)).astype("datetime64[D]")


def _start_of(month: Month) -> float:
    return _seconds(_day_of(month))


def _seconds(day: np.datetime64) -> float:
    return float(day.astype("datetime64[s]").astype("int64"))


def _day_at(seconds: float) -> np.datetime64:
    return np.datetime64(int(seconds), "s").astype("datetime64[D]")
