"""The monitor: how right the champion is on rides whose truth has come in, and what drifts.

Rides come from the prediction log with its feedback, or from a published month that the
champion answers afterwards; both are looked at in the same way. Bounds and their reasons are
in `monitor_settings.json` and `drift_settings.json`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from taxi_duration import config
from taxi_duration.bootstrap import DayBootstrap
from taxi_duration.bundle import load_bundle
from taxi_duration.clock import window_days
from taxi_duration.deployment import name_of, read_deployment, read_history
from taxi_duration.drift import LEVELS, MIN_DAYS, MIN_ROWS, Drift, Sample, measure_drift
from taxi_duration.errors import BundleError, NotFoundError, TaxiError
from taxi_duration.files import write_json
from taxi_duration.metrics import segment_masks
from taxi_duration.models import DurationModel
from taxi_duration.months import Month, parse_months
from taxi_duration.prediction_log import PredictionLog
from taxi_duration.prepared import concat_trips, prepare_months
from taxi_duration.rides import Rides

log = logging.getLogger(__name__)

VERDICT_FILE = "monitor.json"
PAGE_FILE = "monitor.html"
REFERENCE_ROWS = 20_000  # of the training months; the noise of a PSI is then below 0.001
DAY_SECONDS = 86_400
FEW_DAYS = 5  # with fewer, hours are drawn instead of days


@dataclass(frozen=True)
class MonitorSettings:
    """The values of `monitor_settings.json`; ratios and shares."""

    live_days: int
    min_answered: int
    mae_ratio_watch: float
    mae_ratio_alarm: float
    bias_share_watch: float
    bias_share_alarm: float
    coverage_watch: float
    coverage_alarm: float


class Reason(NamedTuple):
    """Why the verdict is not `ok`; `kind` is error, bias, coverage, drift or data."""

    kind: str
    level: str
    text: str


@dataclass(frozen=True)
class Health:
    """What the monitor found about one model on one set of rides.

    Args:
        source: `live log` or the month, such as `green 2021-03`.
        model: `name:version`.
        rides: answered; `answered` of them have their true duration.
        errors: as `live_errors`; empty when nothing has come true.
        drifts: as `drift.measure_drift`.
        reasons: worst first.
    """

    source: str
    model: str
    rides: int
    answered: int
    errors: pd.DataFrame
    drifts: list[Drift]
    reasons: list[Reason]

    @property
    def level(self) -> str:
        """`ok`, `watch` or `alarm`."""
        return LEVELS[max((LEVELS.index(r.level) for r in self.reasons), default=0)]

    @property
    def is_wrong(self) -> bool:
        """True when answers, not only the rides asked for, give the alarm."""
        return any(r.level == "alarm" and r.kind in ("error", "bias", "coverage")
                   for r in self.reasons)  # fmt: skip

    def overall(self) -> dict[str, float]:
        """Return the figures over all answered rides; empty when there are none."""
        rows = self.errors[self.errors["by"] == "overall"] if len(self.errors) else self.errors
        return {} if rows.empty else rows.iloc[0].drop(["by", "group"]).to_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON verdict."""
        return {
            "verdict": self.level,
            "source": self.source,
            "model": self.model,
            "rides": self.rides,
            "answered": self.answered,
            "reasons": [reason._asdict() for reason in self.reasons],
            "errors": json.loads(self.errors.to_json(orient="records")),
            "drift": [drift._asdict() for drift in self.drifts],
        }


@cache
def monitor_settings() -> MonitorSettings:
    """Return the settings as stored with the package."""
    content = json.loads((files(__package__) / "monitor_settings.json").read_text())
    return MonitorSettings(**{name: entry["value"] for name, entry in content.items()})


# No reference is needed for rides too few to measure drift on.
EMPTY = Sample(Rides.from_dicts([]))


# --- rides to look at ------------------------------------------------------------------------


def log_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of the prediction log (`PredictionLog.answered`) as a frame.

    `pickup_at` becomes datetime64[s]; distances and durations that are not known are NaN.
    """
    frame = pd.DataFrame.from_records(list(rows))
    if frame.empty:
        return frame
    numbers = ("trip_distance", "true_duration", "shadow_duration", "shadow_p10", "shadow_p90")
    return frame.assign(
        pickup_at=frame["pickup_at"].to_numpy().astype("datetime64[s]"),
        **{name: frame[name].astype("float64") for name in numbers},
    )


def answer_trips(model: DurationModel, card: Mapping[str, Any], trips: pd.DataFrame) -> Any:
    """Return a published month's trips as if the model had answered each of them live.

    Columns are those of `log_frame` that the monitor reads.
    """
    answers = model.answer(Rides.from_frame(trips))
    columns = ["PULocationID", "DOLocationID", "pickup_at", "trip_distance"]
    return trips[columns].assign(
        duration=answers.duration, p10=answers.p10, p50=answers.p50, p90=answers.p90,
        support=answers.support, used_distance=answers.used_distance,
        model=name_of(dict(card)), arm="champion", true_duration=trips["duration"],
    )  # fmt: skip


def training_sample(model: DurationModel, card: Mapping[str, Any]) -> Sample:
    """Return rides of the model's training months: what drift is measured from.

    Raises:
        TaxiError: a month cannot be read any more.
    """
    train, validation = (
        concat_trips(
            prepare_months(card["service"], parse_months(card[months]), mode=card["data_source"])
        )
        for months in ("train_data", "val_data")
    )
    return make_sample(model, train, validation)


def make_sample(model: DurationModel, train: pd.DataFrame, validation: pd.DataFrame) -> Sample:
    """Return an even sample of the training trips, and answers to the validation trips.

    A model answers what it learned from in another way than what it has not seen: only
    answers of the second kind can be compared with those to come.
    """
    every = max(len(train) // REFERENCE_ROWS, 1)
    kept, unseen = (
        train.iloc[::every],
        validation.iloc[:: max(len(validation) // REFERENCE_ROWS, 1)],
    )
    answers = model.answer(Rides.from_frame(unseen)).duration
    return Sample(Rides.from_frame(kept), answers, kept["duration"].to_numpy(), every)


def serving_champion() -> dict[str, Any]:
    """Return what deployment.json names as champion.

    Raises:
        NotFoundError: nothing is deployed; says what to do.
    """
    deployment = read_deployment()
    if deployment is None:
        raise NotFoundError("nothing is deployed to be monitored; `make run` trains and deploys")
    return deployment["champion"]


def load_version(entry: Mapping[str, Any]) -> tuple[DurationModel, dict[str, Any]]:
    """Return model and card of a version, given as in deployment.json.

    Raises:
        BundleError: the bundle is missing, damaged, or not the one that the entry names.
    """
    folder = config.models_dir() / entry["name"] / str(entry["version"])
    model, card = load_bundle(folder, config.signing_key())
    if card["model_sha256"] != entry["model_sha256"]:
        raise BundleError(
            f"{name_of(dict(entry))} has SHA-256 {card['model_sha256'][:12]}…, "
            f"deployed is {entry['model_sha256'][:12]}…"
        )
    return model, card


def serving_since(entry: Mapping[str, Any]) -> float:
    """Return when a version last became the champion, unix seconds; 0 when it never did."""
    began = 0.0
    for line in read_history():
        if line["action"] in ("promote", "rollback"):
            same = line["champion"]["model_sha256"] == entry["model_sha256"]
            began = datetime.fromisoformat(line["at"]).timestamp() if same else began
    return began


def check_month(entry: Mapping[str, Any], month: Month) -> Health:
    """Let a version answer a published month and look at its health there.

    Raises:
        TaxiError: the bundle or the month cannot be used.
    """
    model, card = load_version(entry)
    # A model of real trips is never looked at on generated ones.
    mode = "tlc" if card["data_source"] == "tlc" else None
    trips = concat_trips(prepare_months(card["service"], [month], mode=mode))
    frame = answer_trips(model, card, trips)
    source = f"{card['service']} {month}"
    return check_health(source, frame, card, _reference(model, card), whole_month=True)


def look_at_months(entry: Mapping[str, Any], live: Health, data: str) -> list[Health]:
    """Return a version's health on published months.

    Args:
        live: as `check_live`. While it has too few truths, the version's own validation months
            are looked at when nobody asked for others: there is something to see from the start.
        data: the months that were asked for, as `parse_months`; may be empty.
    Raises:
        TaxiError: a month that was asked for cannot be used.
    """
    if data:
        return [check_month(entry, month) for month in parse_months(data)]
    if has_enough_truths(live):
        return []
    months = parse_months(load_version(entry)[1]["val_data"])
    try:
        return [check_month(entry, month) for month in months]
    except TaxiError as error:
        log.warning("the validation months of %s cannot be read: %s", name_of(dict(entry)), error)
        return []


def has_enough_truths(health: Health) -> bool:
    """True when so many rides have their true duration that their errors can be judged."""
    return health.answered >= monitor_settings().min_answered


def choose_verdict(live: Health, months: list[Health]) -> Health:
    """Return what is to be told: the live log, or the latest month while the log says nothing."""
    says_something = has_enough_truths(live) or bool(live.drifts)
    return live if says_something or not months else months[-1]


def describe_live(health: Health) -> str:
    """Say how many rides there are, and what is missing until they can be judged."""
    enough = monitor_settings().min_answered
    parts = [f"Rides: {health.rides:,}; with their true duration: {health.answered:,}."]
    if not health.answered:
        parts.append("`POST /feedback` tells a ride's duration: without any there is no error.")
    if not has_enough_truths(health):
        parts.append(f"Errors are judged once {enough:,} rides have their true duration.")
    if not health.drifts:
        parts.append(f"Drift is measured from {MIN_ROWS:,} rides on {MIN_DAYS} days on.")
    return " ".join(parts)


def check_live(entry: Mapping[str, Any], prediction_log: PredictionLog) -> Health:
    """Look at a version's health on its last days of rides, not before it became champion.

    Raises:
        TaxiError: the bundle or the log cannot be used.
    """
    model, card = load_version(entry)
    everybody = log_frame(prediction_log.answered(since=_recently()))
    frame = recent_rides(entry, prediction_log)
    reference = _reference(model, card) if len(frame) >= MIN_ROWS else EMPTY
    return check_health("live log", frame, card, reference, beside=everybody)


def recent_rides(entry: Mapping[str, Any], prediction_log: PredictionLog) -> pd.DataFrame:
    """Return the rides a version answered in the last days, not before it became champion."""
    since = max(serving_since(entry), _recently())
    return log_frame(prediction_log.answered(since=since, model=name_of(dict(entry))))


def _recently() -> float:
    return time.time() - monitor_settings().live_days * DAY_SECONDS


def write_verdict(health: Health) -> None:
    """Keep the verdict in data/live/, where the service's metrics and page find it."""
    content = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **health.as_dict()}
    write_json(config.live_dir() / VERDICT_FILE, content)


def _reference(model: DurationModel, card: Mapping[str, Any]) -> Sample | None:
    try:
        return training_sample(model, card)
    except TaxiError as error:
        log.warning("the training months of %s cannot be read: %s", name_of(dict(card)), error)
        return None


# --- errors ----------------------------------------------------------------------------------


def live_errors(answered: pd.DataFrame, beside: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return errors overall and by version, arm and segment, with 95 % intervals over days.

    Args:
        answered: rides as `log_frame`, each with its `true_duration`.
        beside: rides of all versions, to be compared by version and arm; `answered` when None.
    Returns:
        One row per group: `by`, `group`, `rows`, then `mae`, `rmse`, `bias` (predicted -
        actual; all minutes), `coverage`, each with `_low` and `_high`.
    """
    rows = [
        *_error_rows(answered, _overall),
        *_error_rows(answered if beside is None else beside, _versions_and_arms),
        *_error_rows(answered, _segments),
    ]
    return pd.DataFrame(rows)


def _error_rows(
    answered: pd.DataFrame, groups: Callable[[pd.DataFrame], Iterable[tuple[str, str, np.ndarray]]]
) -> Iterator[dict[str, Any]]:
    if answered.empty:
        return
    days = draws_for(answered["pickup_at"].to_numpy())
    error = (answered["duration"] - answered["true_duration"]).to_numpy(dtype="float64")
    inside = answered["true_duration"].between(answered["p10"], answered["p90"]).to_numpy()
    for by, group, mask in groups(answered):
        kept = mask.astype("float64")
        estimates = {
            "mae": days.ratio(np.abs(error) * kept, kept),
            "rmse": days.rmse(error, kept),
            "bias": days.ratio(error * kept, kept),
            "coverage": days.ratio(inside * kept, kept),
        }
        figures = {}
        for name, (value, low, high) in estimates.items():
            figures |= {name: value, f"{name}_low": low, f"{name}_high": high}
        yield {"by": by, "group": group, "rows": int(mask.sum()), **figures}


def draws_for(pickup_at: np.ndarray) -> DayBootstrap:
    """Return draws of days, or of hours while there are only a few days."""
    few = len(window_days(pickup_at)) < FEW_DAYS
    return DayBootstrap(pickup_at, block="h" if few else "D")


def expected_error(card: Mapping[str, Any], used_distance: np.ndarray) -> float:
    """Return the MAE (minutes) that the card promises for rides with and without distance."""
    share = float(np.mean(used_distance))
    scores = card["metrics"]
    return share * scores["with_distance"]["mae"] + (1 - share) * scores["without_distance"]["mae"]


def _overall(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    yield "overall", "all", np.ones(len(answered), dtype=bool)


def _versions_and_arms(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    for by, column in (("version", "model"), ("arm", "arm")):
        for group in sorted(answered[column].unique()):
            yield by, str(group), (answered[column] == group).to_numpy()


def _segments(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    """Those that have a ride."""
    masks = segment_masks(Rides.from_frame(answered), answered["support"].to_numpy())
    for segment, mask in masks.items():
        if mask.any():
            yield "segment", segment, mask


# --- verdict ---------------------------------------------------------------------------------


def check_health(
    source: str,
    frame: pd.DataFrame,
    card: Mapping[str, Any],
    reference: Sample | None,
    whole_month: bool = False,
    settings: MonitorSettings | None = None,
    beside: pd.DataFrame | None = None,
) -> Health:
    """Look at the rides that one model answered.

    Args:
        source: what to call them.
        frame: as `log_frame` or `answer_trips`; rides of other models are left out.
        card: of the model; its validation error is what is expected.
        reference: rides of the training months; None when they cannot be read.
        whole_month: the rides are all trips of a month, so that their number tells.
        settings: the package's own when None.
        beside: rides of all versions, for the errors by version and arm; `frame` when None.
    """
    settings = settings or monitor_settings()
    model = name_of(dict(card))
    frame = frame[frame["model"] == model] if len(frame) else frame
    answered = _told(frame)
    drifts = _drifts(reference, frame, whole_month) if reference is not None and len(frame) else []
    reasons = []
    errors = live_errors(answered, None if beside is None else _told(beside))
    if len(answered) >= settings.min_answered:
        expected = expected_error(card, answered["used_distance"].to_numpy())
        reasons += _error_reasons(errors.iloc[0], expected, answered, settings)
    reasons += [Reason("drift", d.level, d.text) for d in drifts if d.level != "ok"]
    if reference is None:
        reasons.append(Reason("data", "watch", "the training months cannot be read: no drift"))
    reasons.sort(key=lambda reason: -LEVELS.index(reason.level))
    return Health(source, model, len(frame), len(answered), errors, drifts, reasons)


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """Rides whose true duration is known."""
    return frame[frame["true_duration"].notna()] if len(frame) else frame


def _drifts(reference: Sample, frame: pd.DataFrame, whole_month: bool) -> list[Drift]:
    actual = frame["true_duration"]
    current = Sample(
        Rides.from_frame(frame),
        frame["duration"].to_numpy(),
        actual.to_numpy() if actual.notna().all() else None,
    )
    return measure_drift(reference, current, whole_month)


def _error_reasons(
    overall: pd.Series, expected: float, answered: pd.DataFrame, settings: MonitorSettings
) -> list[Reason]:
    """Judge error, bias and coverage; the near end of each interval must pass the bound."""
    mean = float(answered["true_duration"].mean())
    ratio = overall["mae_low"] / expected
    low, high = overall["bias_low"], overall["bias_high"]
    bias = max(low, -high, 0.0) / mean
    coverage = overall["coverage_high"]
    found = [
        (
            "error", _level(ratio, settings.mae_ratio_watch, settings.mae_ratio_alarm),
            f"MAE {overall['mae']:.2f} min ({overall['mae_low']:.2f} to "
            f"{overall['mae_high']:.2f}), {overall['mae'] / expected:.2f} times the "
            f"{expected:.2f} of the validation",
        ),
        (
            "bias", _level(bias, settings.bias_share_watch, settings.bias_share_alarm),
            f"answers are {abs(overall['bias']):.2f} min too {'long' if low > 0 else 'short'} "
            f"on average, {abs(overall['bias']) / mean:.0%} of a trip",
        ),
        (
            "coverage", _level(-coverage, -settings.coverage_watch, -settings.coverage_alarm),
            f"P10-P90 holds {overall['coverage']:.1%} of the trips, nominal are 80 %",
        ),
    ]  # fmt: skip
    return [Reason(*each) for each in found if each[1] != "ok"]


def _level(value: float, watch: float, alarm: float) -> str:
    return "alarm" if value >= alarm else "watch" if value >= watch else "ok"
