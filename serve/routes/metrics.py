"""GET /metrics: Prometheus text of the whole service, whichever worker is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily

from serve.core.answering import Answering
from serve.core.instruments import Instruments, gauge, model_gauges
from serve.core.live_page import activity_gauges, verdict_gauges
from serve.core.served_models import served
from serve.core.traffic_figures import traffic_gauges
from taxi_duration.errors import LogError


def metrics_blueprint(answering: Answering, instruments: Instruments) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("metrics", __name__)

    def states() -> Iterator[GaugeMetricFamily]:
        serving = answering.holder.serving
        yield from model_gauges((m.arm, m.version, m.card) for m in served(serving))
        yield gauge("taxi_ab_share", "Share of rides for the challenger.",
                    serving.ab_share if serving else 0.0)  # fmt: skip
        yield gauge("taxi_deployment_refused", "1 while a deployment cannot be served.",
                    float(answering.holder.problem is not None))  # fmt: skip
        yield from _log_gauges(answering)
        yield from activity_gauges(answering)
        yield from verdict_gauges()
        yield from traffic_gauges(answering, time.time())

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(instruments.render(states), content_type=CONTENT_TYPE_LATEST)

    return blueprint


def _log_gauges(answering: Answering) -> Iterator[GaugeMetricFamily]:
    """Yield the state of the prediction log, as /ready reports it."""
    try:
        answering.check_log()
        writable = 1.0
    except LogError:
        writable = 0.0
    yield gauge("taxi_log_writable", "0 while /ready says that the log is not well.", writable)
    yield gauge("taxi_log_waiting_bytes", "Spool files not yet removed.",
                answering.log.waiting_bytes())  # fmt: skip
    yield gauge("taxi_log_waiting_seconds", "Since all rows that waited were last moved.",
                answering.log.waiting_seconds())  # fmt: skip
