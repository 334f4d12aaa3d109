"""The monitor: how right the champion is on rides whose truth has come in, and what drifts.

Rides come from the prediction log with its feedback, or from a published month that the
champion answers afterwards; both are looked at in the same way. Bounds and their reasons are
in `monitor_settings.json` and `drift_settings.json`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from msgspec import structs

from taxi_duration import environment
from taxi_duration.data.month_health import examine_months
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month, parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, NotFoundError, TaxiError
from taxi_duration.evaluation.drift import MIN_DAYS, MIN_ROWS, Sample
from taxi_duration.evaluation.error_estimate import learn_errors
from taxi_duration.evaluation.health import (
    Health,
    check_health,
    is_own,
    monitor_settings,
    sort_reasons,
)
from taxi_duration.evaluation.silence import Activity
from taxi_duration.live.deployment import Deployment, read_deployment, read_history
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.live.verdict import Verdict
from taxi_duration.model.bundle import load_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.timestamps import DAY_SECONDS, HOUR_SECONDS, iso_of

log = logging.getLogger(__name__)

REFERENCE_ROWS = 20_000  # of the training months; the noise of a PSI is then below 0.001
SKEW_SECONDS = HOUR_SECONDS  # that clocks of hosts which share a log may be apart
MINUTES = ("duration", "p10", "p50", "p90")
SHADOW_MINUTES = ("duration", "p10", "p90")  # that are read
# No reference is needed where there are no rides.
EMPTY = Sample(Rides.from_dicts([]))


# --- rides to look at ------------------------------------------------------------------------


def log_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of the prediction log (`PredictionLog.answered`) as a frame.

    `pickup_at` becomes datetime64[s]; distances and durations that are not known are NaN. Answers,
    also those in the shadow, are the models' own: no model may win or raise an alarm by the live
    traffic, which is the same for all. What was given with it is in the `given_` columns.
    """
    frame = pd.DataFrame.from_records(list(rows))
    if frame.empty:
        return frame
    numbers = ("trip_distance", "true_duration", "received_at")
    return frame.assign(
        pickup_at=frame["pickup_at"].to_numpy().astype("datetime64[s]"),
        **{name: frame[name].astype("float64") for name in numbers},
        **{f"given_{name}": frame[name] for name in MINUTES},
        **{name: _own(frame, name, f"base_{name}") for name in MINUTES},
        **{f"shadow_{name}": _own(frame, f"shadow_{name}", f"shadow_base_{name}")
           for name in SHADOW_MINUTES},
    )  # fmt: skip


def _own(frame: pd.DataFrame, given: str, base: str) -> pd.Series[float]:
    """A model's own answers: those without live traffic where there was any."""
    return frame[base].astype("float64").fillna(frame[given].astype("float64"))


def answer_trips(
    model: DurationModel, card: Mapping[str, Any], trips: pd.DataFrame
) -> pd.DataFrame:
    """Return a published month's trips as if the model had answered each of them live.

    Columns are those of `log_frame` that the monitor reads.
    """
    answers = model.answer(Rides.from_frame(trips))
    columns = ["PULocationID", "DOLocationID", "pickup_at", "trip_distance"]
    return trips[columns].assign(
        duration=answers.duration, p10=answers.p10, p50=answers.p50, p90=answers.p90,
        support=answers.support, used_distance=answers.used_distance,
        model=Version.of(card).ref, arm="champion", true_duration=trips["duration"],
    )  # fmt: skip


def training_sample(model: DurationModel, card: Mapping[str, Any]) -> Sample:
    """Return rides of the model's training months: what drift is measured from.

    Raises:
        TaxiError: a month cannot be read any more.
    """
    train, validation = (
        Window.learnable(
            prepare_months(card["service"], parse_months(card[months]), mode=card["data_source"])
        )
        for months in ("train_data", "val_data")
    )
    return make_sample(model, train, validation)


def make_sample(model: DurationModel, train: Window, validation: Window) -> Sample:
    """Return an even sample of the training trips, and answers to the validation trips.

    A model answers what it learned from in another way than what it has not seen: only answers
    of the second kind can be compared with those to come, and only their errors predict others.
    """
    every = max(len(train) // REFERENCE_ROWS, 1)
    learned, minutes = train.evenly(REFERENCE_ROWS)
    rides, actual = validation.evenly(REFERENCE_ROWS)
    errors = learn_errors(model, rides, actual)
    return Sample(learned, model.answer(rides).duration, minutes, every, errors)


def serving() -> Deployment:
    """Return what deployment.json says.

    Raises:
        NotFoundError: nothing is deployed; says what to do.
    """
    deployment = read_deployment()
    if deployment is None:
        raise NotFoundError("nothing is deployed to be monitored; `make run` trains and deploys")
    return deployment


def serving_champion() -> Version:
    """Return the version that deployment.json names as champion; raises as `serving`."""
    return serving().champion


def load_version(version: Version) -> tuple[DurationModel, dict[str, Any]]:
    """Return model and card of a version.

    Raises:
        BundleError: the bundle is missing, damaged, or not the one with this digest.
    """
    model, card = load_bundle(version.folder, environment.signing_key(), version.ref)
    if card["model_sha256"] != version.sha256:
        raise BundleError(
            f"{version.ref} has SHA-256 {card['model_sha256'][:12]}…, "
            f"deployed is {version.sha256[:12]}…"
        )
    return model, card


def serving_since(version: Version) -> float:
    """Return when a version last became the champion, unix seconds; 0 when that is not known.

    It never did, or by a clock that was ahead and was put right since.
    """
    began = 0.0
    for line in read_history():
        if line.action in ("promote", "rollback") and line.champion.sha256 == version.sha256:
            began = line.when
    return began if began <= time.time() else 0.0


def check_month(version: Version, month: Month) -> Health:
    """Let a version answer a published month and look at its health there.

    Raises:
        TaxiError: the bundle or the month cannot be used.
    """
    model, card = load_version(version)
    # A model of real trips is never looked at on generated ones.
    mode = "tlc" if card["data_source"] == "tlc" else None
    prepared = prepare_months(card["service"], [month], mode=mode)
    rides, minutes = Window.learnable(prepared).whole()
    trips = pd.DataFrame({**vars(rides), "duration": minutes})
    frame = answer_trips(model, card, trips)
    source = f"{card['service']} {month}"
    health = check_health(source, frame, card, _reference(model, card), whole_month=True)
    (columns,) = examine_months(prepared)
    return replace(health, columns=columns.lines)


def look_at_months(version: Version, live: Health, data: str) -> list[Health]:
    """Return a version's health on published months.

    Args:
        live: as `check_live`. While it has too few truths, the version's own validation months
            are looked at when nobody asked for others: there is something to see from the start.
        data: the months that were asked for, as `parse_months`; may be empty.
    Raises:
        TaxiError: a month that was asked for cannot be used.
    """
    if data:
        return [check_month(version, month) for month in parse_months(data)]
    if has_enough_truths(live):
        return []
    months = parse_months(load_version(version)[1]["val_data"])
    try:
        return [check_month(version, month) for month in months]
    except TaxiError as error:
        log.warning("the validation months of %s cannot be read: %s", version.ref, error)
        return []


def has_enough_truths(health: Health) -> bool:
    """True when so many rides have their true duration that their errors can be judged."""
    return health.answered >= monitor_settings().min_answered


def choose_verdict(live: Health, months: list[Health]) -> Health:
    """Return what the verdict is about: the live log, or the latest month while it has no truths.

    What is missing in the log is reported with the month: good answers to the month do not show
    how riders are answered.
    """
    says_something = has_enough_truths(live) or bool(live.drifts)
    if says_something or not months:
        return live
    missing = [structs.replace(r, text=f"{live.source}: {r.text}") for r in live.reasons]
    reasons = sort_reasons([*months[-1].reasons, *missing])
    return replace(months[-1], reasons=reasons, estimate=live.estimate, activity=live.activity)


def compare_estimate(health: Health) -> pd.DataFrame:
    """Return MAE (minutes) and coverage of the rides with a truth, and what the others' will be.

    One row each, with the rides that it rests on and bounds; no row for what is not known.
    """
    names = ("mae", "mae_low", "mae_high", "coverage", "coverage_low", "coverage_high")
    rows = {}
    if measured := health.overall():
        rows["measured"] = {"rides": health.answered, **{n: measured[n] for n in names}}
    if health.estimate is not None:
        rows["estimated, truth not known yet"] = structs.asdict(health.estimate)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["rides", *names])


def describe_live(health: Health) -> str:
    """Say how many rides there are, and what is missing until they can be judged."""
    enough = monitor_settings().min_answered
    parts = [f"Rides: {health.rides:,}; with their true duration: {health.answered:,}."]
    if not health.answered:
        parts.append(
            "`POST /feedback` takes a ride's true duration: without any there is no error."
        )
    if not has_enough_truths(health):
        parts.append(f"Errors are judged once {enough:,} rides have their true duration.")
    if not health.drifts:
        parts.append(f"Drift is measured from {MIN_ROWS:,} rides on {MIN_DAYS} days on.")
    return " ".join(parts)


def check_live(version: Version, prediction_log: PredictionLog) -> Health:
    """Look at a version's health on its last days of rides, not before it became champion.

    Raises:
        TaxiError: the bundle or the log cannot be used.
    """
    model, card = load_version(version)
    since, until = _recent()
    everybody = log_frame(prediction_log.answered(since, until))
    ours = everybody
    if len(everybody):  # a project of another service may use the same log
        ours = everybody[everybody["model"].str.startswith(f"{version.name}:")]
    activity = _activity(prediction_log, ours, len(ours) == len(everybody), since)
    began = serving_since(version)
    rides = is_own(ours, version, began)
    reference = _reference(model, card) if rides.any() else EMPTY
    return check_health(
        "live log", ours, card, reference, since=began, compare=True, activity=activity
    )


def recent_rides(version: Version, prediction_log: PredictionLog) -> pd.DataFrame:
    """Return the rides a version answered in the last days, not before it became champion."""
    since, until = _recent()
    since = max(serving_since(version), since)
    rides = log_frame(prediction_log.answered(since, until, version.ref))
    return rides[is_own(rides, version, since)]


def _recent() -> tuple[float, float]:
    """Return first and last moment of the days that are looked at, unix seconds.

    What a clock that was ahead has dated later is looked at when that time has come.
    """
    now = time.time()
    return now - monitor_settings().live_days * DAY_SECONDS, now + SKEW_SECONDS


def _activity(log: PredictionLog, ours: pd.DataFrame, is_all: bool, since: float) -> Activity:
    """Return when the last ride and true duration of a service came.

    Args:
        ours: its rides since then (unix seconds).
        is_all: nobody else's were logged; else what came before is not known, and needs not be.
    """
    now, times = time.time(), log.last_times()
    if is_all:
        return Activity(times.ride, times.feedback, now)
    ride = feedback = since
    if len(ours):
        came = ours[["asked_at", "received_at"]]
        ride, feedback = came[came <= now].max().fillna(since).tolist()
    return Activity(ride, feedback, now)


def make_verdict(health: Health) -> Verdict:
    """Return what was found now in the form that is kept and shown."""
    return Verdict(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=health.level,
        source=health.source,
        model=health.model,
        rides=health.rides,
        answered=health.answered,
        reasons=health.reasons,
        errors=json.loads(health.errors.to_json(orient="records")),
        drift=health.drifts,
        truths=health.truths,
        estimate=health.estimate,
        last_ride_at=_iso(health.activity and health.activity.last_ride),
        last_feedback_at=_iso(health.activity and health.activity.last_feedback),
    )


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso_of(seconds)


def _reference(model: DurationModel, card: Mapping[str, Any]) -> Sample | None:
    try:
        return training_sample(model, card)
    except TaxiError as error:
        log.warning("the training months of %s cannot be read: %s", Version.of(card).ref, error)
        return None
