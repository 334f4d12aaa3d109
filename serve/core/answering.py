"""Answers validated rides: chooses the arm, predicts, logs and counts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from msgspec import UNSET, UnsetType

from serve.bodies.errors import ApiError
from serve.bodies.folders import without_folders
from serve.bodies.reading import check_count
from serve.bodies.schema import Interval, Reason, RideAnswer
from serve.core.deadline import Deadline, begin
from serve.core.instruments import Instruments
from serve.core.live_traffic import LiveTraffic
from serve.core.served_models import HOW_TO_DEPLOY, LoadedModel, ModelHolder, Serving
from taxi_duration.cores import usable_cores
from taxi_duration.domain.asked_rides import ManyRides, Ride
from taxi_duration.domain.rides import Answer, Answers, Rides
from taxi_duration.errors import LogError
from taxi_duration.live.arms import arm_of
from taxi_duration.live.log_rows import (
    FailureRow,
    PredictionColumns,
    PredictionRow,
    ShadowColumns,
    ShadowRow,
    write_minutes,
)
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.live.traffic_now import REASON, Traffic, all_in_traffic, in_traffic
from taxi_duration.model.explain import explain as explain_answers

logger = logging.getLogger(__name__)

ERROR_CHARACTERS = 300  # logged of a failing model's error: enough to recognise it
NONE: Sequence[FailureRow] = ()
# From so many rides on, the shadow version answers on a thread of its own; for fewer, starting one
# and waiting for the interpreter's lock takes longer than it saves.
APART_RIDES = 1_000
# At least so many rides of an array for each core; of fewer the trees are walked one by one.
CORE_RIDES = 4_000
MOST_CORES = 4  # for one array: others want to be answered, too


class Answering:
    """Answers rides with the models in service.

    Args:
        holder: has the models in service.
        log: every answer is written to it before it is given.
        instruments: the metrics.
        limits: of one request.
        deadline: for calls to the log's store by feedback. Health checks (`checking`) and pages
            (`reading`) have one each, so that an overdue call blocks only its own kind.
        traffic: whether answers follow the traffic of the hour.
    """

    def __init__(
        self,
        holder: ModelHolder,
        log: PredictionLog,
        instruments: Instruments,
        limits: Limits,
        deadline: Deadline,
        traffic: bool = True,
    ) -> None:
        self.holder = holder
        self.log = log
        self.instruments = instruments
        self.limits = limits
        self.deadline = deadline
        self.checking, self.reading = deadline.another(), deadline.another()
        self.traffic = LiveTraffic(log, holder, deadline.another(), traffic)
        self.log_problem: str | None = None

    def check_log(self) -> None:
        """Check that rows can be written and reach the log.

        Raises:
            LogError: they cannot, or it is not known.
        """
        if self.log.is_watched:  # the background thread knows: no waiting
            self.log.check_writable()
        else:
            self.checking.call(self.log.check_writable)

    def problems(self) -> list[str]:
        """Return why rides cannot be answered, or answers not be logged; empty when all is well."""
        problems = []
        if self.holder.serving is None:
            problems.append(self.holder.problem or HOW_TO_DEPLOY)
        try:
            self.check_log()
        except LogError as error:
            problems.append(f"predictions are not logged: {error}")
        return problems

    def serving(self) -> Serving:
        """Return the models in service.

        Raises:
            ApiError: 503, there are none; says how to deploy one.
        """
        serving = self.holder.serving
        if serving is None:
            raise ApiError(503, "no_model", without_folders(self.holder.problem or HOW_TO_DEPLOY))
        return serving

    def one(
        self, ride: Ride, pickup_at: datetime, explain: bool = False, trace: str | None = None
    ) -> RideAnswer:
        """Answer one ride; the answer is logged when this returns.

        Args:
            ride: validated.
            pickup_at: New York local time.
            explain: with reasons.
            trace: the traceparent of the answer, for the log.
        Raises:
            ApiError: 503, no model is in service.
        """
        started = time.perf_counter()
        serving = self.serving()
        prediction_id = new_ids(1)[0]
        loaded, failures = _arm(serving, ride.ride_id, prediction_id), NONE
        question = (ride.PULocationID, ride.DOLocationID, pickup_at, ride.trip_distance)
        try:
            base = loaded.predictor.answer(*question)
        except Exception as error:
            failures = self._stand_in(serving, loaded, [prediction_id], error)
            loaded = serving.champion
            base = loaded.predictor.answer(*question)
        answer, traffic = self._in_traffic(loaded, base, question)
        seconds = time.perf_counter() - started
        row = _row(ride, pickup_at, answer, loaded, prediction_id, 1000 * seconds, trace)
        beside = Beside((), failures)
        if traffic is not None:
            _note(row, traffic, base[:4])
        if serving.shadow and not failures:
            beside = self._shadow_one(_other(serving, loaded), prediction_id, question)
        logged = self._keep(row, beside)
        loaded.metrics.predicted(answer.duration, seconds)
        answered = _answer(ride, answer, loaded, prediction_id, logged)
        if explain:
            answered.reasons = [Reason(*one) for one in loaded.predictor.explain(*question)]
        if traffic is not None:
            _show_traffic(answered, traffic.factor, base.duration)
        return answered

    def many(
        self,
        rides: ManyRides,
        explain: bool = False,
        trace: str | None = None,
        model: LoadedModel | None = None,
    ) -> list[RideAnswer]:
        """Answer n rides, in their order; all are logged when this returns.

        Args:
            rides: validated.
            explain: with reasons.
            trace: the traceparent of the answer, for the log.
            model: of those in service, to answer all; by default each ride's arm decides.
        Raises:
            ApiError: too many rides, or no model is in service.
        """
        check_count(len(rides), self.limits.rides)
        if explain:
            check_count(len(rides), self.limits.explained, "rides with explain")
        serving = self.serving()
        if not len(rides):
            return []
        ids = new_ids(len(rides))
        if model is None:
            parts = self._by_arm(serving, rides, ids)
        else:
            parts = [self._answer_part(serving, model, rides, ids, None)]
        rows = [_as_logged(part, trace) for part in parts]
        answered = [answer for part in parts for answer in _as_answers(part, explain)]
        if not self._keep_many(rows, [self._shadow_many(serving, part) for part in parts]):
            for answer in answered:
                answer.logged = False
        for part in parts:
            part.loaded.metrics.predicted_many(part.answers.duration, part.seconds)
        if len(parts) > 1:
            order = np.argsort(np.concatenate([part.positions for part in parts]))
            answered = [answered[i] for i in order]
        return answered

    def plan(self, rides: Rides) -> Planned:
        """Answer rides that somebody may take, as the champion would; nothing is logged.

        Raises:
            ApiError: 503, no model is in service.
        """
        champion = self.serving().champion
        answers, _ = self._all_in_traffic(champion, champion.model.answer(rides), rides)
        return Planned(answers, champion.version)

    # --- arms ---------------------------------------------------------------------------

    def _by_arm(self, serving: Serving, rides: ManyRides, ids: list[str]) -> list[_Part]:
        """Split the rides by arm and answer each part with one call."""
        if serving.challenger is None or not serving.ab_share:
            return [self._answer_part(serving, serving.champion, rides, ids, None)]
        keys = rides.ride_ids or ids
        arms = [_arm(serving, key, ids[i]) for i, key in enumerate(keys)]
        parts = []
        for loaded in (serving.champion, serving.challenger):
            positions = np.array([i for i, arm in enumerate(arms) if arm is loaded], "int64")
            if len(positions):
                some = [ids[i] for i in positions]
                taken = rides.take(positions)
                parts.append(self._answer_part(serving, loaded, taken, some, positions))
        return parts

    def _answer_part(
        self,
        serving: Serving,
        loaded: LoadedModel,
        rides: ManyRides,
        ids: list[str],
        positions: np.ndarray | None,
    ) -> _Part:
        shadow = None
        if serving.shadow and len(rides) >= APART_RIDES:
            # The trees run without the interpreter's lock.
            shadow = begin("shadow", _other(serving, loaded).model.answer, rides.columns)
        started, failures = time.perf_counter(), NONE
        try:
            base = _answer_all(loaded, rides.columns, alone=shadow is None)
        except Exception as error:
            failures = self._stand_in(serving, loaded, ids, error)
            loaded = serving.champion
            base = loaded.model.answer(rides.columns)
        given = self._all_in_traffic(loaded, base, rides.columns)
        seconds = time.perf_counter() - started
        lists = _lists(given.answers)
        return _Part(loaded, rides, ids, *given, base, lists, positions, seconds, failures, shadow)

    def _stand_in(
        self, serving: Serving, failed: LoadedModel, ids: list[str], error: Exception
    ) -> Sequence[FailureRow]:
        """Count and return failures of the challenger, whose rides the champion will answer.

        Raises:
            Exception: the error, when the champion itself failed.
        """
        failures = _failures(failed, ids, failed.arm, error)
        if failed is serving.champion:
            raise error
        logger.error("the challenger %s failed, the champion answers: %r", failed.version, error)
        return failures

    def _shadow_one(
        self, other: LoadedModel, prediction_id: str, question: tuple[Any, ...]
    ) -> Beside:
        try:
            base = other.predictor.answer(*question)
        except Exception as error:  # a failing shadow must not cost the rider's answer
            logger.exception("the %s %s failed in the shadow", other.arm, other.version)
            return Beside((), _failures(other, [prediction_id], "shadow", error))
        other.metrics.shadow.inc()
        answer, traffic = self._in_traffic(other, base, question)
        row = _shadow(other, prediction_id, answer)
        if traffic is not None:
            _note(row, traffic, base[:4])
        return Beside((row,), ())

    def _shadow_many(self, serving: Serving, part: _Part) -> BesideMany:
        if not serving.shadow or part.failures:
            return BesideMany(None, part.failures)
        other = _other(serving, part.loaded)
        try:
            if part.shadow is None:
                base = other.model.answer(part.rides.columns)
            else:
                base = part.shadow.result()
        except Exception as error:  # as above
            logger.exception("the %s %s failed in the shadow", other.arm, other.version)
            return BesideMany(None, _failures(other, part.ids, "shadow", error))
        other.metrics.shadow.inc(len(part.ids))
        answers, traffic = self._all_in_traffic(other, base, part.rides.columns)
        columns = ShadowColumns(part.ids, other.version, other.sha256, *_minutes(answers))
        if traffic is not None:
            _note(columns, _as_lists(traffic), _minutes(base))
        return BesideMany(columns, ())

    # --- traffic ------------------------------------------------------------------------

    def _in_traffic(
        self, loaded: LoadedModel, base: Answer, question: tuple[Any, ...]
    ) -> tuple[Answer, Traffic | None]:
        """Return a model's answer as it is given, and the traffic applied; None without any."""
        level = self.traffic.of(loaded)
        traffic = None if level is None else level.at(question[0], question[2])
        return (base, None) if traffic is None else (in_traffic(base, traffic), traffic)

    def _all_in_traffic(self, loaded: LoadedModel, base: Answers, rides: Rides) -> InTraffic:
        """The same for many rides."""
        level = self.traffic.of(loaded)
        traffic = None if level is None else level.of(rides)
        return InTraffic(base if traffic is None else all_in_traffic(base, traffic), traffic)

    # --- the log ------------------------------------------------------------------------

    def _keep(self, row: PredictionRow, beside: Beside) -> bool:
        """Log an answer; False when that fails: the rider gets the answer all the same."""
        try:
            self.log.add((row,), *beside)
        except LogError as error:
            return self._not_kept(error, 1)
        self.log_problem = None
        return True

    def _keep_many(self, parts: list[PredictionColumns], beside: list[BesideMany]) -> bool:
        shadow = [one.shadow for one in beside if one.shadow is not None]
        failures = [row for one in beside for row in one.failures]
        try:
            self.log.add_many(parts, shadow, failures)
        except LogError as error:
            return self._not_kept(error, sum(len(part.prediction_id) for part in parts))
        self.log_problem = None
        return True

    def _not_kept(self, error: LogError, n: int) -> bool:
        self.instruments.log_failures.inc(n)
        if self.log_problem is None:
            logger.error("predictions are answered but not logged: %s", error)
        self.log_problem = str(error)
        return False


class Limits(NamedTuple):
    """Largest numbers in one request: rides, rides with reasons, true durations."""

    rides: int
    explained: int
    feedback: int


class Planned(NamedTuple):
    """Answers that belong to no ride, and the version that gave them."""

    answers: Answers
    version: str


class InTraffic(NamedTuple):
    """Answers as they are given, and the traffic applied; None where there was none."""

    answers: Answers
    traffic: Traffic | None


class Beside(NamedTuple):
    """What is logged beside the riders' answers during a test."""

    shadow: Sequence[ShadowRow]
    failures: Sequence[FailureRow]


class BesideMany(NamedTuple):
    """The same for many rides."""

    shadow: ShadowColumns | None
    failures: Sequence[FailureRow]


class _Part(NamedTuple):
    """The rides of one request that one model answered, and how long that took.

    `answers` are those given, `base` the model's own before `traffic`; `lists` the given ones as
    lists of plain numbers; `positions` the rides' indices in the request, None for all;
    `failures` the challenger's, when the champion answered instead; `shadow` the other version's
    answers, if they are computed on another thread.
    """

    loaded: LoadedModel
    rides: ManyRides
    ids: list[str]
    answers: Answers
    traffic: Traffic | None
    base: Answers
    lists: list[list[Any]]
    positions: np.ndarray | None
    seconds: float
    failures: Sequence[FailureRow]
    shadow: Future[Answers] | None


def new_ids(n: int) -> list[str]:
    """Return n new prediction ids: 12 hex digits of the time, so that they sort, and 20 random.

    In ascending order: rows that the log appends to its indexes cost it an eighth less than rows
    that fall anywhere among the others of the millisecond.
    """
    now = f"{time.time_ns() // 1_000_000:012x}"
    # From the kernel: with guessed ids one could give feedback on other people's rides.
    chances = np.sort(np.frombuffer(os.urandom(10 * n), "S10"))
    return [now + chance for chance in chances.tobytes().hex(" ", 10).split()]


def _arm(serving: Serving, ride_id: str | int | None, prediction_id: str) -> LoadedModel:
    """Return who answers a ride; within a test, a ride id always has the same arm."""
    challenger = serving.challenger
    if challenger is None or not serving.ab_share:
        return serving.champion
    key = prediction_id if ride_id is None else str(ride_id)
    arm = arm_of(key, serving.ab_share, challenger.sha256)
    return challenger if arm == "challenger" else serving.champion


def _other(serving: Serving, loaded: LoadedModel) -> LoadedModel:
    """Return the version under test that does not answer the rider."""
    assert serving.challenger is not None
    return serving.challenger if loaded is serving.champion else serving.champion


def _failures(
    failed: LoadedModel, ids: list[str], asked_as: str, error: Exception
) -> Sequence[FailureRow]:
    """Count the rides that a model could not answer, and return their rows."""
    failed.metrics.failures.inc(len(ids))
    text = repr(error)[:ERROR_CHARACTERS]
    return [FailureRow(i, failed.version, failed.sha256, asked_as, text) for i in ids]


def _row(
    ride: Ride, pickup_at: datetime, answer: Answer, loaded: LoadedModel, prediction_id: str,
    latency_ms: float, trace: str | None,
) -> PredictionRow:  # fmt: skip
    duration, p10, p50, p90, support, used_distance = answer
    return PredictionRow(
        prediction_id,
        None if ride.ride_id is None else str(ride.ride_id),
        time.time(),
        ride.PULocationID,
        ride.DOLocationID,
        pickup_at.isoformat(),
        ride.trip_distance,
        duration,
        p10,
        p50,
        p90,
        support,
        used_distance,
        loaded.version,
        loaded.sha256,
        loaded.arm,
        latency_ms,
        trace,
    )


def _answer(
    ride: Ride, answer: Answer, loaded: LoadedModel, prediction_id: str, logged: bool
) -> RideAnswer:
    duration, p10, p50, p90, support, used_distance = answer
    return RideAnswer(
        duration,
        Interval(p10, p50, p90),
        support,
        loaded.version,
        loaded.arm,
        prediction_id,
        used_distance,
        UNSET if ride.ride_id is None else ride.ride_id,
        UNSET,
        UNSET if logged else False,
        impossible_distance=_is_impossible(ride.trip_distance, used_distance, loaded),
    )


def _is_impossible(miles: float | None, used: bool, loaded: LoadedModel) -> bool | UnsetType:
    """True for a distance that was given and could not be used, else not in the answer.

    Of a model that uses none (FHV) nothing is said about the ride's.
    """
    return UNSET if used or miles is None or not loaded.model.knows_distance else True


def _as_logged(part: _Part, trace: str | None) -> PredictionColumns:
    """Return a part as columns for the log."""
    columns = _answered_columns(part, trace)
    if part.traffic is not None:
        _note(columns, _as_lists(part.traffic), _minutes(part.base))
    return columns


def _answered_columns(part: _Part, trace: str | None) -> PredictionColumns:
    loaded, rides, ids = part.loaded, part.rides, part.ids
    columns, ride_ids = rides.columns, rides.ride_ids
    *_, support, used_distance = part.lists
    return PredictionColumns(
        ids,
        [None if ride_id is None else str(ride_id) for ride_id in ride_ids] if ride_ids else None,
        time.time(),
        columns.PULocationID.tolist(),
        columns.DOLocationID.tolist(),
        rides.pickups or np.datetime_as_string(columns.pickup_at).tolist(),
        rides.miles,
        *_minutes(part.answers),
        support,
        used_distance,
        loaded.version,
        loaded.sha256,
        loaded.arm,
        1000 * part.seconds / len(ids),
        trace,
    )


def _as_answers(part: _Part, explain: bool) -> list[RideAnswer]:
    """Return the riders' answers of a part, before it is known whether they are logged."""
    ids, version, arm = part.ids, part.loaded.version, part.loaded.arm
    ride_ids = part.rides.ride_ids or [None] * len(ids)
    reasons = _reasons(part) if explain else [UNSET] * len(ids)
    answered = [
        RideAnswer(
            duration,
            Interval(p10, p50, p90),
            support,
            version,
            arm,
            prediction_id,
            used,
            UNSET if ride_id is None else ride_id,
            why,
        )
        for prediction_id, ride_id, why, duration, p10, p50, p90, support, used in zip(
            ids, ride_ids, reasons, *part.lists, strict=True
        )
    ]
    for i in np.flatnonzero(~part.answers.used_distance).tolist():
        answered[i].impossible_distance = _is_impossible(part.rides.miles[i], False, part.loaded)
    if part.traffic is not None:
        applied = zip(
            answered, part.traffic.factor.tolist(), part.base.duration.tolist(), strict=True
        )
        for answer, factor, base in applied:
            _show_traffic(answer, factor, base)
    return answered


def _show_traffic(answer: RideAnswer, factor: float, base: float) -> None:
    """Add the live traffic to an answer, and to its reasons: what it changed of the model's own."""
    if factor == 1.0:
        return
    answer.traffic = factor
    if answer.reasons is not UNSET:
        answer.reasons.append(Reason(REASON, answer.duration - base))


def _note(
    row: PredictionRow | PredictionColumns | ShadowRow | ShadowColumns,
    traffic: Traffic,
    base: Sequence[Any],
) -> None:
    """Note in a row, or in columns, what the traffic made of the model's own minutes."""
    row.traffic, row.stretch_low, row.stretch_high = traffic
    row.base_duration, row.base_p10, row.base_p50, row.base_p90 = base


def _as_lists(traffic: Traffic) -> Traffic:
    return Traffic(*(part.tolist() for part in traffic))


def _reasons(part: _Part) -> list[list[Reason]]:
    """Return the reasons of each answer of a part."""
    found = explain_answers(part.loaded.model, part.rides.columns, part.base.duration)
    return [[Reason(*one) for one in of_ride] for of_ride in found]


def _answer_all(loaded: LoadedModel, rides: Rides, alone: bool) -> Answers:
    """Return the model's answers to n rides, by several threads where there are many.

    Args:
        alone: no shadow version has the other cores.
    """
    cores = min(usable_cores(), MOST_CORES, len(rides) // CORE_RIDES)
    if cores < 2 or not alone:
        return loaded.model.answer(rides)
    ends = [len(rides) * i // cores for i in range(cores + 1)]
    first, *others = (rides.take(slice(*part)) for part in pairwise(ends))
    beside = [begin("part", loaded.model.answer, part) for part in others]
    return Answers.joined([loaded.model.answer(first), *(part.result() for part in beside)])


def _lists(answers: Answers) -> list[list[Any]]:
    """Return columns of Python numbers, in the order of `Answer`."""
    return [getattr(answers, name).tolist() for name in Answer._fields]


def _minutes(answers: Answers) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the columns of minutes as the log takes them."""
    duration, p10, p50, p90 = answers.duration, answers.p10, answers.p50, answers.p90
    return write_minutes(duration), write_minutes(p10), write_minutes(p50), write_minutes(p90)


def _shadow(other: LoadedModel, prediction_id: str, answer: Answer) -> ShadowRow:
    return ShadowRow(
        prediction_id, other.version, other.sha256,
        answer.duration, answer.p10, answer.p50, answer.p90,
    )  # fmt: skip
