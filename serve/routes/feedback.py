"""POST /feedback: true durations of predictions, stored before the answer is given."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from flask import Blueprint, Response, request

from serve.bodies.errors import ApiError, json_response
from serve.bodies.folders import without_folders
from serve.bodies.json_text import require_json
from serve.bodies.reading import check_count
from serve.bodies.schema import Feedback, FeedbackAnswer
from serve.core.answering import Answering
from serve.core.instruments import Instruments
from taxi_duration.domain.asked_rides import check
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import QUARANTINED, judge_truths
from taxi_duration.errors import LogError
from taxi_duration.live.log_rows import FeedbackResult
from taxi_duration.live.prediction_log import PredictionLog


def feedback_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("feedback", __name__)
    instruments = answering.instruments

    @blueprint.post("/feedback")
    def feedback() -> Response:
        content = require_json(request)
        if isinstance(content, list):
            check_count(len(content), answering.limits.feedback, "durations")
            given = check(content, list[Feedback])
        else:
            given = [check(content, Feedback)]
        rows = [msgspec.structs.asdict(one) for one in given]
        try:
            result, answered = answering.deadline.call(_keep, answering.log, rows)
        except LogError as error:
            instruments.log_failures.inc()
            why = without_folders(str(error))
            raise ApiError(
                503, "log_unavailable", f"it may not be kept; send it again, safely: {why}"
            ) from error
        instruments.unknown_feedback.inc(len(result.unknown))
        _measure(instruments, answered)
        return json_response(FeedbackAnswer(*result))

    return blueprint


def _keep(
    log: PredictionLog, rows: list[dict[str, Any]]
) -> tuple[FeedbackResult, list[dict[str, Any]]]:
    """Store feedback; return the result and the rows of the predictions with new feedback."""
    result = log.add_feedback(rows)
    return result, log.find_many(result.known)


def _measure(instruments: Instruments, answered: list[dict[str, Any]]) -> None:
    """Count the new true durations of one call, rows of the log, by verdict."""
    if not answered:
        return
    rides = Rides.from_dicts({**row, "pickup_datetime": row["pickup_at"]} for row in answered)
    minutes, received_at = (
        np.array([row[name] for row in answered], dtype="float64")
        for name in ("true_duration", "received_at")
    )
    verdicts = judge_truths(minutes, rides, received_at).tolist()
    for row, verdict in zip(answered, verdicts, strict=True):
        instruments.arm(row["model"], row["arm"]).measured(verdict, row)
        if verdict in QUARANTINED:
            instruments.quarantined_feedback.labels(verdict).inc()
