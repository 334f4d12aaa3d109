"""The application factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Request, Response, request
from flask.sessions import SessionInterface
from werkzeug.routing import MapAdapter

from serve import settings
from serve.auth import guard_inside, require_key
from serve.bodies.errors import JSON, add_error_handlers
from serve.core.answering import Answering, Limits
from serve.core.deadline import Deadline
from serve.core.instruments import Instruments
from serve.core.served_models import ModelHolder
from serve.headers import HEADERS, TRACEPARENT, add_headers
from serve.routes.docs import docs_blueprint
from serve.routes.feedback import feedback_blueprint
from serve.routes.health import health_blueprint
from serve.routes.invocations import invocations_blueprint, ping_blueprint
from serve.routes.metrics import metrics_blueprint
from serve.routes.model import model_blueprint
from serve.routes.monitor import monitor_blueprint
from serve.routes.open_inference import (
    open_inference_blueprint,
    open_inference_health_blueprint,
)
from serve.routes.pages import pages_blueprint
from serve.routes.planning import planning_blueprint
from serve.routes.predict import predict_blueprint, predict_json
from taxi_duration.domain.trace_context import continued
from taxi_duration.live.prediction_log import PredictionLog, open_log
from taxi_duration.model.duration_model import DurationModel

REFUSED = "taxi.refused"  # key in a request's environ: the error that the server answers it with
LOG_SECONDS = 10.0  # twice as long as one writer of SQLite waits for another


def create_app(
    config: Mapping[str, Any] | None = None,
    model: tuple[DurationModel, dict[str, Any]] | None = None,
    log: PredictionLog | None = None,
) -> Flask:
    """Return the service.

    Args:
        config: overrides the environment's settings: `API_KEYS`, `MONITOR_ACCESS`, `MAX_RIDES`,
            `MAX_EXPLAINED`, `MAX_FEEDBACK`, `MAX_CONTENT_LENGTH` (bytes), `LOG_SECONDS`
            (time limit of calls to the log's store), `TRAFFIC` (False: off), `BACKGROUND` (start
            threads now, not after forking).
        model: a model and its card to serve; by default deployment.json decides, and is
            watched for changes.
        log: where predictions go; by default as the environment says.
    """
    app = _Service(__name__)
    app.url_map.merge_slashes = False  # else /v2//models is sent on to an address without a host
    app.config.update(_from_environment() | dict(config or {}))
    instruments = Instruments()
    answering = Answering(
        ModelHolder(instruments, model),
        log or open_log(),
        instruments,
        Limits(*(app.config[name] for name in ("MAX_RIDES", "MAX_EXPLAINED", "MAX_FEEDBACK"))),
        Deadline(app.config["LOG_SECONDS"]),
        app.config["TRAFFIC"],
    )
    app.extensions["taxi"] = answering
    add_error_handlers(app)
    add_headers(app)
    _observe(app, instruments)
    _add_routes(app, answering, instruments)
    if app.config["BACKGROUND"]:
        start_background(app)
    return app


def _from_environment() -> dict[str, Any]:
    """Return the settings of the environment."""
    return {
        "API_KEYS": settings.api_keys(),
        "MONITOR_ACCESS": settings.monitor_access(),
        "TRAFFIC": settings.traffic(),
        "MAX_CONTENT_LENGTH": settings.max_body_bytes(),
        "MAX_RIDES": settings.max_rides(),
        "MAX_EXPLAINED": settings.max_explained(),
        "MAX_FEEDBACK": settings.max_feedback(),
        "LOG_SECONDS": LOG_SECONDS,
        "BACKGROUND": True,
    }


def _add_routes(app: Flask, answering: Answering, instruments: Instruments) -> None:
    """Add every endpoint; with API keys, most need one (see `auth.py`)."""
    keys, access = app.config["API_KEYS"], app.config["MONITOR_ACCESS"]
    for make in (
        predict_blueprint, invocations_blueprint, open_inference_blueprint, planning_blueprint,
        feedback_blueprint,
    ):  # fmt: skip
        keyed = make(answering)
        require_key(keyed, keys)
        app.register_blueprint(keyed)
    metrics = metrics_blueprint(answering, instruments)
    for inside in (model_blueprint(answering), monitor_blueprint(answering), metrics):
        guard_inside(inside, keys, access)
        app.register_blueprint(inside)
    for make_open in (ping_blueprint, health_blueprint, open_inference_health_blueprint):
        app.register_blueprint(make_open(answering))
    app.register_blueprint(pages_blueprint())
    app.register_blueprint(docs_blueprint())


def start_background(app: Flask) -> None:
    """Start the threads that watch the deployment and move log rows, in this process."""
    answering: Answering = app.extensions["taxi"]
    answering.holder.start()
    answering.log.start()
    answering.traffic.start()


def close_app(app: Flask) -> None:
    """Stop the threads; waiting rows are moved into the log."""
    answering: Answering = app.extensions["taxi"]
    answering.holder.close()
    answering.traffic.close()
    answering.log.close()


def quick_predict(
    app: Flask,
) -> Callable[[bytes, str | None], tuple[list[tuple[str, str]], bytes]]:
    """Return a function from the JSON body of /predict, and the value of its header traceparent,
    to headers and body of the answer.

    It answers as the app does, without Flask, whose request, response and routing take longer
    than a ride. The app has to answer the errors that it raises, see `REFUSED`.
    """
    answering: Answering = app.extensions["taxi"]
    headers = [("Content-Type", JSON), *HEADERS.items()]

    def answer(body: bytes, given: str | None) -> tuple[list[tuple[str, str]], bytes]:
        trace = continued(given)
        content = predict_json(answering, body, trace=trace)
        answering.instruments.count_request("predict.predict", 200)
        return [*headers, (TRACEPARENT, trace)] if trace else headers, content

    return answer


def _observe(app: Flask, instruments: Instruments) -> None:
    """Count every answer, including refusals by the server (`REFUSED`)."""

    @app.before_request
    def refuse() -> None:
        refusal = request.environ.get(REFUSED)
        if refusal is not None:
            raise refusal

    @app.after_request
    def count(response: Response) -> Response:
        instruments.count_request(request.endpoint or "none", response.status_code)
        if response.status_code >= 400:
            instruments.errors.labels(str(response.status_code)).inc()
        return response


class _NoSession(SessionInterface):
    """No sessions; Flask's own would be opened for every request."""

    def open_session(self, app: Flask, request: Any) -> None:
        return None

    def make_null_session(self, app: Flask) -> Any:
        return {}

    def is_null_session(self, obj: object) -> bool:
        return True

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Nothing to save."""


class _Service(Flask):
    """Flask without sessions, coroutines and routing by host, a tenth of a ride's time."""

    session_interface = _NoSession()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view unchanged: none is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the request's routes, whatever host it names."""
        if request is None:
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map, "", request.root_path, "", request.scheme, request.path, request.method
        )
