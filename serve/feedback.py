"""POST /feedback: the true durations of predictions, kept before the answer."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from serve.bodies import check, check_count, require_json
from serve.errors import ApiError, json_response
from serve.instruments import Instruments
from serve.schema import Feedback, FeedbackAnswer
from taxi_duration.errors import LogError
from taxi_duration.prediction_log import PredictionLog


def feedback_blueprint(log: PredictionLog, instruments: Instruments, most: int) -> Blueprint:
    """Return the blueprint.

    Args:
        log: keeps the feedback.
        instruments: count how wrong the answers were.
        most: elements of one request.
    """
    blueprint = Blueprint("feedback", __name__)

    @blueprint.post("/feedback")
    def feedback() -> Response:
        content = require_json(request)
        if isinstance(content, list):
            check_count(len(content), most)
            given = check(content, list[Feedback])
        else:
            given = [check(content, Feedback)]
        rows = [msgspec.structs.asdict(one) for one in given]
        try:
            result = log.add_feedback(rows)
            _count(rows, result.known, len(result.unknown))
        except LogError as error:
            instruments.log_failures.inc()
            raise ApiError(
                503, "log_unavailable", f"nothing was kept, send it again: {error}"
            ) from error
        return json_response(FeedbackAnswer(*result))

    def _count(rows: list[dict[str, Any]], known: list[str], unknown: int) -> None:
        instruments.unknown_feedback.inc(unknown)
        first: dict[str, float] = {}
        for row in rows:
            first.setdefault(row["prediction_id"], row["duration"])
        for answered in log.find_many(known):
            arm = instruments.arm(answered["model"], answered["arm"])
            arm.measured(first[answered["prediction_id"]], answered)

    return blueprint
