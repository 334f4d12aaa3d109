"""The data of the live page: figures of the log, the last verdict, decisions and history.

The verdict is that of `python pipeline.py monitor` or of the last turn of `auto`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from prometheus_client.core import GaugeMetricFamily

from serve.bodies.folders import without_folders
from serve.core.answering import Answering
from serve.core.headline import headline
from serve.core.served_models import LoadedModel
from serve.core.traffic_figures import traffic_content
from taxi_duration import environment
from taxi_duration.domain.findings import LEVEL_NUMBERS
from taxi_duration.domain.truths import QUARANTINED
from taxi_duration.errors import ContentError, LogError
from taxi_duration.live.audit import last_training, read_audit
from taxi_duration.live.deployment import read_history
from taxi_duration.live.log_rows import LastTimes
from taxi_duration.live.verdict import Verdict, page_path, read_verdict
from taxi_duration.timestamps import DAY_SECONDS, iso_of

T = TypeVar("T")

WINDOW_DAYS = 7
LINES = 20
KEPT_SECONDS = 3.0  # the log is queried once in so long, however many pages are open
KEPT_TIMES = 2  # times the query's own time: pages take a third of a large log's time at most
NORMAL_95 = 1.96
LEVELS_SAID = ", ".join(f"{number:g} {level}" for level, number in LEVEL_NUMBERS.items())


class LivePage:
    """The content of /monitor/data.

    Args:
        answering: has the models in service and the log.
        now: returns unix seconds.
    """

    def __init__(self, answering: Answering, now: Callable[[], float] = time.time) -> None:
        self._answering = answering
        self._now = now
        self._lock = threading.Lock()
        self._kept: tuple[float, float, dict[str, Any]] = (0.0, float("-inf"), {})

    def content(self) -> dict[str, Any]:
        """Return the content as JSON types; `trouble` says what could not be read."""
        log, now = self._log(), self._now()
        unlogged = self._answering.log_problem
        problems = [
            self._answering.holder.problem,
            log["trouble"],
            unlogged and f"answers are not logged: {unlogged}",
        ]
        decisions = _or_nothing(read_audit, problems) or []
        history = _or_nothing(read_history, problems) or []
        verdict = _or_nothing(read_verdict, problems)
        found = {
            "at": now,
            "serving": self._serving(),
            "trouble": without_folders([problem for problem in problems if problem]),
            "log": log,
            "traffic": traffic_content(self._answering, now),
            "verdict": verdict,
            "test": _newest_test(decisions),
            "decisions": decisions[: -LINES - 1 : -1],
            "history": history[: -LINES - 1 : -1],
            "report": _report_time(),
            "mlflow": _mlflow_address(),
            "training": last_training(decisions),
        }
        return {**found, "headline": headline(found)}

    def _serving(self) -> dict[str, Any] | None:
        serving = self._answering.holder.serving
        if serving is None:
            return None
        return {
            "champion": _facts(serving.champion),
            "challenger": serving.challenger and _facts(serving.challenger),
            "ab_share": serving.ab_share,
            "shadow": serving.shadow,
            "baking": serving.baking,
        }

    def _log(self) -> dict[str, Any]:
        with self._lock:
            ended, asked_again, content = self._kept
            began = self._now()
            # A clock that was set back would keep the content until it is as late as before.
            if not ended <= began < asked_again:
                content = self._ask_log()
                ended = self._now()
                rest = max(KEPT_SECONDS, KEPT_TIMES * (ended - began))
                self._kept = (ended, ended + rest, content)
            return content

    def _ask_log(self) -> dict[str, Any]:
        log, now = self._answering.log, self._now()

        def read() -> tuple[Any, ...]:
            models = log.summary(now - WINDOW_DAYS * DAY_SECONDS)
            return models, log.hours(now - DAY_SECONDS), log.last_times(), None

        try:
            models, hours, times, problem = self._answering.reading.call(read)
        except LogError as error:
            models, hours, times, problem = [], [], LastTimes(None, None), str(error)
        rows = [{**row, **_error_interval(row), **_quarantined(row)} for row in models]
        return {
            "days": WINDOW_DAYS, "models": rows, "hours": hours, "last_ride_at": times.ride,
            "last_feedback_at": times.feedback, "trouble": without_folders(problem),
        }  # fmt: skip


def _or_nothing(read: Callable[[], T], problems: list[str | None]) -> T | None:
    """Read a file; on an error return None and add the error to the problems."""
    try:
        return read()
    except (ContentError, OSError) as error:
        problems.append(str(error))
        return None


def verdict_gauges() -> Iterator[GaugeMetricFamily]:
    """Yield verdict, reasons, truths, estimate and drift; nothing without a verdict."""
    try:
        verdict = read_verdict()
    except ContentError:  # shown on the page
        return
    if verdict is None:
        return
    model, version = ("version",), [verdict.model]
    level = GaugeMetricFamily("taxi_verdict", f"{LEVELS_SAID}.", labels=model)
    level.add_metric(version, LEVEL_NUMBERS[verdict.verdict])
    age = GaugeMetricFamily("taxi_verdict_age_seconds", "Since the monitor looked.", labels=model)
    age.add_metric(version, verdict.age_seconds)
    reason = GaugeMetricFamily(
        "taxi_verdict_reason", f"By kind of reason: {LEVELS_SAID}.", labels=("version", "kind")
    )
    for kind, found in verdict.levels().items():
        reason.add_metric([verdict.model, kind], LEVEL_NUMBERS[found])
    truths = GaugeMetricFamily(
        "taxi_truths", "True durations by what they are.", labels=("version", "truth")
    )
    for code, count in verdict.truths.items():
        truths.add_metric([verdict.model, code], count)
    yield from (level, age, reason, truths)
    yield from _estimate_gauges(verdict)
    yield from _drift_gauges(verdict)


def _estimate_gauges(verdict: Verdict) -> Iterator[GaugeMetricFamily]:
    """Yield the errors estimated for rides without a true duration; NaN without an estimate."""
    for name, text in (
        ("rides", "Rides without a true duration, of which errors are estimated."),
        ("mae_minutes", "Mean absolute error that is expected of them."),
        ("coverage", "Share within P10-P90 that is expected of them."),
    ):
        gauge = GaugeMetricFamily(f"taxi_estimated_{name}", text, labels=("version",))
        value = getattr(verdict.estimate, name.removesuffix("_minutes"), float("nan"))
        gauge.add_metric([verdict.model], value)
        yield gauge


def _drift_gauges(verdict: Verdict) -> Iterator[GaugeMetricFamily]:
    feature = ("feature", "measure")
    drift = GaugeMetricFamily("taxi_drift", "Distance from the training months.", labels=feature)
    level = GaugeMetricFamily("taxi_drift_level", f"{LEVELS_SAID}.", labels=feature)
    for one in verdict.drift:
        labels = [one.feature, one.measure]
        drift.add_metric(labels, one.value)
        level.add_metric(labels, LEVEL_NUMBERS[one.level])
    yield from (drift, level)


def activity_gauges(answering: Answering) -> Iterator[GaugeMetricFamily]:
    """Yield the seconds since the last ride and the last true duration; infinite without one.

    Nothing while the log cannot be read, see `taxi_log_writable`.
    """
    try:
        times = answering.reading.call(answering.log.last_times)
    except LogError:
        return
    for name, at in (("ride", times.ride), ("feedback", times.feedback)):
        age = float("inf") if at is None else max(time.time() - at, 0.0)
        text = f"Since the last {name} in the prediction log."
        yield GaugeMetricFamily(f"taxi_last_{name}_age_seconds", text, value=age)


def _facts(loaded: LoadedModel) -> dict[str, Any]:
    card = loaded.card
    names = ("model_kind", "data_source", "train_data", "created", "run_id")
    kinds = ("with_distance", "without_distance")
    errors = [card.get("metrics", {}).get(kind, {}).get("mae") for kind in kinds]
    return {
        "model": loaded.version,
        "sha256": loaded.sha256,
        **{name: card.get(name) for name in names},
        "validation_mae": [error for error in errors if error is not None],
    }


def _error_interval(row: dict[str, Any]) -> dict[str, float | None]:
    """Return a 95 % interval of the mean error, as if rides were independent.

    Rides of a day share its traffic, so over few days it is too narrow; the verdict's intervals
    resample days.
    """
    n, mean, square = row["scored"], row["mean_error"], row["mean_square"]
    if n < 2 or mean is None or square is None:
        return {"error_low": None, "error_high": None}
    half = NORMAL_95 * (max(square - mean**2, 0.0) / (n - 1)) ** 0.5
    return {"error_low": max(mean - half, 0.0), "error_high": mean + half}


def _quarantined(row: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of quarantined true durations by reason, without zeros."""
    return {"quarantined": {code: row[code] for code in QUARANTINED if row[code]}}


def _newest_test(decisions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last result of the test of a challenger, with its bound; None without one."""
    for line in reversed(decisions):
        numbers = line.get("numbers")
        test = numbers.get("test") if isinstance(numbers, dict) else None
        if isinstance(test, dict):
            return {**test, "at": line.get("at"), "what": line.get("what")}
    return None


def _report_time() -> str | None:
    """Return when the monitor's report was made, ISO; None without one."""
    try:
        made = page_path().stat().st_mtime
    except OSError:
        return None
    return iso_of(made)


def _mlflow_address() -> str | None:
    """Return the address of MLflow's pages; None when runs are not tracked on a server."""
    address = environment.tracking_server() or ""
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None
