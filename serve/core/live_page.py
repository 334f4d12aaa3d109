"""What the live page shows beside /metrics: the log's figures, the last verdict, who decided what.

The verdict is that of `python pipeline.py monitor` or of the last turn of `auto`; it is read
from its file, since making one needs libraries that the service does not have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from serve.core.answering import Answering
from serve.core.served_models import LoadedModel
from taxi_duration import environment
from taxi_duration.domain.levels import LEVELS
from taxi_duration.errors import LogError
from taxi_duration.files import read_json
from taxi_duration.live.audit import read_audit
from taxi_duration.live.deployment import read_history
from taxi_duration.live.verdict import PAGE_FILE, VERDICT_FILE

VERDICT_KEYS = {
    "at",
    "verdict",
    "source",
    "model",
    "rides",
    "answered",
    "reasons",
    "errors",
    "drift",
}
WINDOW_DAYS = 7
LINES = 20
KEPT_SECONDS = 3.0  # however many pages are open, the log is asked once in so long
NORMAL_95 = 1.96


class LivePage:
    """The content of /monitor/data.

    Args:
        answering: who serves, and the log.
        now: unix seconds.
    """

    def __init__(self, answering: Answering, now: Callable[[], float] = time.time) -> None:
        self._answering = answering
        self._now = now
        self._lock = threading.Lock()
        self._kept: tuple[float, dict[str, Any]] = (float("-inf"), {})

    def content(self) -> dict[str, Any]:
        """Return everything as plain JSON types; what cannot be read is said in `trouble`."""
        trouble = [self._answering.holder.trouble] if self._answering.holder.trouble else []
        log = self._log()
        if log["trouble"]:
            trouble.append(log["trouble"])
        decisions = read_audit()
        return {
            "at": self._now(),
            "serving": self._serving(),
            "trouble": trouble,
            "log": log,
            "verdict": read_verdict(trouble),
            "test": _newest_test(decisions),
            "decisions": decisions[: -LINES - 1 : -1],
            "history": read_history()[: -LINES - 1 : -1],
            "report": _report_time(),
            "mlflow": _mlflow_address(),
        }

    def _serving(self) -> dict[str, Any] | None:
        serving = self._answering.holder.serving
        if serving is None:
            return None
        return {
            "champion": _facts(serving.champion),
            "challenger": serving.challenger and _facts(serving.challenger),
            "ab_share": serving.ab_share,
            "shadow": serving.shadow,
        }

    def _log(self) -> dict[str, Any]:
        with self._lock:
            asked_at, content = self._kept
            if self._now() - asked_at >= KEPT_SECONDS:
                content = self._ask_log()
                self._kept = (self._now(), content)
            return content

    def _ask_log(self) -> dict[str, Any]:
        log, since = self._answering.log, self._now() - WINDOW_DAYS * 86_400
        try:
            models, trouble = self._answering.deadline.call(log.summary, since), None
        except LogError as error:
            models, trouble = [], str(error)
        rows = [{**row, **_error_interval(row)} for row in models]
        return {"days": WINDOW_DAYS, "models": rows, "trouble": trouble}


def read_verdict(trouble: list[str] | None = None) -> dict[str, Any] | None:
    """Return the monitor's last verdict; None when there is none, or none that can be read.

    Args:
        trouble: gets a line when the file is damaged.
    """
    path = environment.live_dir() / VERDICT_FILE
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if trouble is not None:
            trouble.append(f"{VERDICT_FILE} cannot be read: {error}")
        return None


def verdict_gauges(verdict: dict[str, Any] | None) -> Iterator[GaugeMetricFamily]:
    """Yield the verdict, its age and the drift of each feature; nothing without a verdict."""
    if verdict is None:
        return
    model = ("version",)
    level = GaugeMetricFamily("taxi_verdict", "0 ok, 1 watch, 2 alarm.", labels=model)
    age = GaugeMetricFamily("taxi_verdict_age_seconds", "Since the monitor looked.", labels=model)
    feature = ("feature", "measure")
    drift = GaugeMetricFamily("taxi_drift", "Distance from the training months.", labels=feature)
    drift_level = GaugeMetricFamily("taxi_drift_level", "0 ok, 1 watch, 2 alarm.", labels=feature)
    version = [verdict["model"]]
    level.add_metric(version, LEVELS.index(verdict["verdict"]))
    age.add_metric(version, time.time() - datetime.fromisoformat(verdict["at"]).timestamp())
    for one in verdict["drift"]:
        labels = [one["feature"], one["measure"]]
        drift.add_metric(labels, one["value"])
        drift_level.add_metric(labels, LEVELS.index(one["level"]))
    yield from (level, age, drift, drift_level)


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    missing = VERDICT_KEYS - content.keys() if isinstance(content, dict) else VERDICT_KEYS
    if missing:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    return content


def _facts(loaded: LoadedModel) -> dict[str, Any]:
    card = loaded.card
    names = ("model_kind", "data_source", "train_data", "created", "run_id")
    return {"model": loaded.version, "sha256": loaded.sha256, **{n: card.get(n) for n in names}}


def _error_interval(row: dict[str, Any]) -> dict[str, float | None]:
    """A 95 % interval of the mean error, as if rides were independent of each other.

    Rides of one day share its traffic, so it is too narrow over few days; the verdict's
    intervals, drawn over days, are not.
    """
    n, mean, square = row["feedback"], row["mean_error"], row["mean_square"]
    if n < 2 or mean is None or square is None:
        return {"error_low": None, "error_high": None}
    half = NORMAL_95 * (max(square - mean**2, 0.0) / (n - 1)) ** 0.5
    return {"error_low": max(mean - half, 0.0), "error_high": mean + half}


def _newest_test(decisions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the last look at a challenger's feedback said, with the bound that it must cross."""
    for line in reversed(decisions):
        test = (line.get("numbers") or {}).get("test")
        if isinstance(test, dict):
            return {**test, "at": line["at"], "what": line["what"]}
    return None


def report_path() -> Path:
    """Where the monitor's last whole report lies, if it made one."""
    return environment.live_dir() / PAGE_FILE


def _report_time() -> str | None:
    """When that report was made, ISO; None when there is none."""
    try:
        made = report_path().stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(made, UTC).isoformat(timespec="seconds")


def _mlflow_address() -> str | None:
    """Where MLflow's pages are, when runs are tracked on a server."""
    address = environment.tracking_server() or ""
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None
