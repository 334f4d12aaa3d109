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
from serve.headers import HEADERS, add_headers
from serve.routes.docs import docs_blueprint
from serve.routes.feedback import feedback_blueprint
from serve.routes.health import health_blueprint
from serve.routes.invocations import invocations_blueprint, ping_blueprint
from serve.routes.metrics import metrics_blueprint
from serve.routes.model import model_blueprint
from serve.routes.monitor import monitor_blueprint
from serve.routes.pages import pages_blueprint
from serve.routes.planning import planning_blueprint
from serve.routes.predict import predict_blueprint, predict_json
from taxi_duration.live.prediction_log import PredictionLog, open_log
from taxi_duration.model.duration_model import DurationModel

REFUSED = "taxi.refused"  # in a request's environ: the error that the server refuses it with
LOG_SECONDS = 10.0  # twice as long as one writer of SQLite waits for another


def create_app(
    config: Mapping[str, Any] | None = None,
    model: tuple[DurationModel, dict[str, Any]] | None = None,
    log: PredictionLog | None = None,
) -> Flask:
    """Return the service.

    Args:
        config: over the environment's settings: `API_KEYS`, `MONITOR_ACCESS`, `MAX_RIDES`,
            `MAX_EXPLAINED`, `MAX_FEEDBACK`, `MAX_CONTENT_LENGTH` (bytes), `LOG_SECONDS`
            (patience with the log's store), `BACKGROUND` (start threads now, not after forking).
        model: a model and its card to serve whatever is deployed; default: what
            deployment.json says, followed as it changes.
        log: where predictions go; default as the environment says.
    """
    app = _Service(__name__)
    app.config.update(_from_environment() | dict(config or {}))
    instruments = Instruments()
    answering = Answering(
        ModelHolder(instruments, model),
        log or open_log(),
        instruments,
        Limits(*(app.config[name] for name in ("MAX_RIDES", "MAX_EXPLAINED", "MAX_FEEDBACK"))),
        Deadline(app.config["LOG_SECONDS"]),
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
    """What an app is set to when its maker says nothing else."""
    return {
        "API_KEYS": settings.api_keys(),
        "MONITOR_ACCESS": settings.monitor_access(),
        "MAX_CONTENT_LENGTH": settings.max_body_bytes(),
        "MAX_RIDES": settings.max_rides(),
        "MAX_EXPLAINED": settings.max_explained(),
        "MAX_FEEDBACK": settings.max_feedback(),
        "LOG_SECONDS": LOG_SECONDS,
        "BACKGROUND": True,
    }


def _add_routes(app: Flask, answering: Answering, instruments: Instruments) -> None:
    """Add every endpoint; where there are keys, most want one (see `auth.py`)."""
    keys, access = app.config["API_KEYS"], app.config["MONITOR_ACCESS"]
    for make in (predict_blueprint, invocations_blueprint, planning_blueprint, feedback_blueprint):
        keyed = make(answering)
        require_key(keyed, keys)
        app.register_blueprint(keyed)
    metrics = metrics_blueprint(answering, instruments)
    for inside in (model_blueprint(answering), monitor_blueprint(answering), metrics):
        guard_inside(inside, keys, access)
        app.register_blueprint(inside)
    for make_open in (ping_blueprint, health_blueprint):
        app.register_blueprint(make_open(answering))
    app.register_blueprint(pages_blueprint())
    app.register_blueprint(docs_blueprint())


def start_background(app: Flask) -> None:
    """Start following the deployment and moving the log, in this process."""
    answering: Answering = app.extensions["taxi"]
    answering.holder.start()
    answering.log.start()


def close_app(app: Flask) -> None:
    """Stop the threads; what waits for the log is moved into it."""
    answering: Answering = app.extensions["taxi"]
    answering.holder.close()
    answering.log.close()


def quick_predict(app: Flask) -> Callable[[bytes], tuple[list[tuple[str, str]], bytes]]:
    """Return what answers the JSON body of /predict as the app does, without Flask around it.

    Flask's requests, responses and routing take longer than a ride. What this raises is to be
    answered by the app, see `REFUSED`.
    """
    answering: Answering = app.extensions["taxi"]
    headers = [("Content-Type", JSON), *HEADERS.items()]

    def answer(body: bytes) -> tuple[list[tuple[str, str]], bytes]:
        content = predict_json(answering, body)
        answering.instruments.count_request("predict.predict", 200)
        return headers, content

    return answer


def _observe(app: Flask, instruments: Instruments) -> None:
    """Count every answer, also those that refuse what the server could not take."""

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
    """Flask's own would be opened for every request."""

    def open_session(self, app: Flask, request: Any) -> None:
        return None

    def make_null_session(self, app: Flask) -> Any:
        return {}

    def is_null_session(self, obj: object) -> bool:
        return True

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Nothing to save."""


class _Service(Flask):
    """Flask without what no request here needs: sessions, coroutines, paths by host.

    Together they took a tenth of the time of a ride.
    """

    session_interface = _NoSession()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view as it is: none is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the paths as this request sees them, whatever host it names."""
        if request is None:
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map, "", request.root_path, "", request.scheme, request.path, request.method
        )
