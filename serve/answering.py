"""From checked rides to answers: which arm, which model, what is logged and counted."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from msgspec import UNSET

from serve.bodies import check_count
from serve.errors import ApiError
from serve.holder import HOW_TO_DEPLOY, LoadedModel, ModelHolder, Serving
from serve.instruments import Instruments
from serve.schema import Interval, Reason, Ride, RideAnswer
from taxi_duration.ab_test import arm_of
from taxi_duration.errors import LogError
from taxi_duration.prediction_log import PredictionLog, PredictionRow, ShadowRow
from taxi_duration.rides import Answer, Answers, Rides

logger = logging.getLogger(__name__)


class Answering:
    """Answers rides with the models in service.

    Args:
        holder: knows them.
        log: gets every answer before it is given.
        instruments: count.
        max_rides: most rides of one request.
    """

    def __init__(
        self, holder: ModelHolder, log: PredictionLog, instruments: Instruments, max_rides: int
    ) -> None:
        self.holder = holder
        self.log = log
        self.instruments = instruments
        self.max_rides = max_rides
        self.log_trouble: str | None = None

    def serving(self) -> Serving:
        """Return who answers.

        Raises:
            ApiError: nobody yet; says how to get there.
        """
        serving = self.holder.serving
        if serving is None:
            raise ApiError(503, "no_model", self.holder.trouble or HOW_TO_DEPLOY)
        return serving

    def one(self, ride: Ride, pickup_at: datetime, explain: bool = False) -> RideAnswer:
        """Answer one ride; the answer is in the log when this returns.

        Args:
            ride: checked.
            pickup_at: New York local time.
            explain: with reasons.
        """
        started = time.perf_counter()
        serving = self.serving()
        prediction_id = new_ids(1)[0]
        loaded = _arm(serving, ride.ride_id, prediction_id)
        question = (ride.PULocationID, ride.DOLocationID, pickup_at, ride.trip_distance)
        try:
            answer = loaded.predictor.answer(*question)
        except Exception as error:
            loaded = self._stand_in(serving, loaded, error)
            answer = loaded.predictor.answer(*question)
        seconds = time.perf_counter() - started
        row = _row(ride, pickup_at, answer, loaded, prediction_id, 1000 * seconds)
        shadow = ()
        if serving.shadow and loaded is serving.champion:
            shadow = self._shadow_one(serving.challenger, prediction_id, question)
        logged = self._keep([row], shadow)
        loaded.metrics.predicted(answer.duration, seconds)
        answered = _answer(ride, answer, loaded, prediction_id, logged)
        if explain:
            reasons = loaded.predictor.explain(*question)
            answered.reasons = [Reason(reason.name, float(reason.minutes)) for reason in reasons]
        return answered

    def many(self, rides: Sequence[Ride], pickups: Sequence[datetime]) -> list[RideAnswer]:
        """Answer many rides at once, in their order; all are in the log when this returns."""
        columns = Rides(
            np.array([ride.PULocationID for ride in rides], "int16"),
            np.array([ride.DOLocationID for ride in rides], "int16"),
            np.array(pickups, "datetime64[s]"),
            np.array(
                [np.nan if r.trip_distance is None else r.trip_distance for r in rides], "float32"
            ),
        )
        return self.columns(columns, rides, pickups)

    def columns(
        self, columns: Rides, rides: Sequence[Ride], pickups: Sequence[datetime]
    ) -> list[RideAnswer]:
        """Answer many rides of which the columns are at hand; see `many`."""
        check_count(len(rides), self.max_rides)
        serving = self.serving()
        if not len(rides):
            return []
        started = time.perf_counter()
        ids = new_ids(len(rides))
        parts = self._by_arm(serving, columns, rides, ids)
        seconds = time.perf_counter() - started
        per_ride_ms = 1000 * seconds / len(rides)
        answered: list[RideAnswer] = [None] * len(rides)  # type: ignore[list-item]
        rows, shadow = [], []
        for loaded, positions, answers in parts:
            for i, answer in zip(positions, _as_tuples(answers), strict=True):
                rows.append(_row(rides[i], pickups[i], answer, loaded, ids[i], per_ride_ms))
                answered[i] = _answer(rides[i], answer, loaded, ids[i], True)
            loaded.metrics.predicted_many(answers.duration, seconds)
            if serving.shadow and loaded is serving.champion:
                asked = columns.take(np.array(positions))
                shadow += self._shadow_many(serving.challenger, [ids[i] for i in positions], asked)
        if not self._keep(rows, shadow):
            for answer in answered:
                answer.logged = False
        return answered

    # --- arms ---------------------------------------------------------------------------

    def _by_arm(
        self, serving: Serving, columns: Rides, rides: Sequence[Ride], ids: Sequence[str]
    ) -> list[tuple[LoadedModel, Sequence[int], Answers]]:
        """Split the rides by arm and answer each part with one call."""
        split: dict[int, tuple[LoadedModel, list[int]]] = {}
        if serving.challenger is None or not serving.ab_share:
            split[0] = (serving.champion, list(range(len(rides))))
        else:
            for i, ride in enumerate(rides):
                loaded = _arm(serving, ride.ride_id, ids[i])
                split.setdefault(id(loaded), (loaded, []))[1].append(i)
        parts = []
        for loaded, positions in split.values():
            whole = len(positions) == len(rides)
            asked = columns if whole else columns.take(np.array(positions))
            try:
                answers = loaded.model.answer(asked)
            except Exception as error:
                loaded = self._stand_in(serving, loaded, error)
                answers = loaded.model.answer(asked)
            parts.append((loaded, positions, answers))
        return parts

    def _stand_in(self, serving: Serving, failed: LoadedModel, error: Exception) -> LoadedModel:
        """Return the champion, where the challenger failed.

        Raises:
            Exception: the error, where there is nobody to stand in.
        """
        failed.metrics.failures.inc()
        if failed is serving.champion:
            raise error
        logger.error("the challenger %s failed, the champion answers: %r", failed.version, error)
        return serving.champion

    def _shadow_one(
        self, challenger: LoadedModel, prediction_id: str, question: tuple[Any, ...]
    ) -> tuple[ShadowRow, ...]:
        try:
            answer = challenger.predictor.answer(*question)
        except Exception:  # nobody waits for a shadow; it must not cost an answer
            challenger.metrics.failures.inc()
            logger.exception("the challenger %s failed in the shadow", challenger.version)
            return ()
        challenger.metrics.shadow.inc()
        return (_shadow(challenger, prediction_id, answer),)

    def _shadow_many(
        self, challenger: LoadedModel, ids: Sequence[str], asked: Rides
    ) -> list[ShadowRow]:
        try:
            answers = challenger.model.answer(asked)
        except Exception:  # as above
            challenger.metrics.failures.inc()
            logger.exception("the challenger %s failed in the shadow", challenger.version)
            return []
        challenger.metrics.shadow.inc(len(ids))
        pairs = zip(ids, _as_tuples(answers), strict=True)
        return [_shadow(challenger, prediction_id, answer) for prediction_id, answer in pairs]

    # --- the log ------------------------------------------------------------------------

    def _keep(self, rows: Sequence[PredictionRow], shadow: Sequence[ShadowRow]) -> bool:
        """Log; False when it cannot be done: the rider gets the answer all the same."""
        try:
            self.log.add(rows, shadow)
        except LogError as error:
            self.instruments.log_failures.inc(len(rows))
            if self.log_trouble is None:
                logger.error("predictions are answered but not logged: %s", error)
            self.log_trouble = str(error)
            return False
        self.log_trouble = None
        return True


def new_ids(n: int) -> list[str]:
    """Return n new prediction ids: 12 hex digits of the time, so that they sort, 20 of chance."""
    now = time.time_ns() // 1_000_000 << 80
    # `random` seeds itself anew in a forked worker, and asks the kernel for nothing.
    return [f"{now | random.getrandbits(80):032x}" for _ in range(n)]


def _arm(serving: Serving, ride_id: str | int | None, prediction_id: str) -> LoadedModel:
    """Who answers a ride; the same ride id always meets the same arm of one test."""
    challenger = serving.challenger
    if challenger is None or not serving.ab_share:
        return serving.champion
    key = prediction_id if ride_id is None else str(ride_id)
    arm = arm_of(key, serving.ab_share, challenger.sha256)
    return challenger if arm == "challenger" else serving.champion


def _as_tuples(answers: Answers) -> list[Answer]:
    """Rows of plain Python numbers."""
    columns = (getattr(answers, name).tolist() for name in Answer._fields)
    return list(map(Answer._make, zip(*columns, strict=True)))


def _row(
    ride: Ride, pickup_at: datetime, answer: Answer, loaded: LoadedModel, prediction_id: str,
    latency_ms: float,
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
    )


def _shadow(challenger: LoadedModel, prediction_id: str, answer: Answer) -> ShadowRow:
    return ShadowRow(
        prediction_id, challenger.version, challenger.sha256,
        answer.duration, answer.p10, answer.p50, answer.p90,
    )  # fmt: skip
