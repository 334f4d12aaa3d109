"""What the live page shows beside /metrics: the log's figures, the last verdict, who decided what.

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
from serve.core.served_models import LoadedModel
from taxi_duration import environment
from taxi_duration.domain.findings import LEVEL_NUMBERS
from taxi_duration.domain.truths import QUARANTINED
from taxi_duration.errors import ContentError, LogError
from taxi_duration.live.audit import read_audit
from taxi_duration.live.deployment import read_history
from taxi_duration.live.verdict import Verdict, page_path, read_verdict
from taxi_duration.timestamps import iso_of

T = TypeVar("T")

WINDOW_DAYS = 7
LINES = 20
KEPT_SECONDS = 3.0  # however many pages are open, the log is asked once in so long
KEPT_TIMES = 2  # times as long as it took: pages cost a large log a third of its time at most
NORMAL_95 = 1.96
LEVELS_SAID = ", ".join(f"{number:g} {level}" for level, number in LEVEL_NUMBERS.items())


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
        """Return what JSON can hold; what cannot be read is said in `trouble`."""
        log = self._log()
        problems = [self._answering.holder.problem, log["trouble"]]
        decisions = _or_nothing(read_audit, problems) or []
        history = _or_nothing(read_history, problems) or []
        verdict = _or_nothing(read_verdict, problems)
        return {
            "at": self._now(),
            "serving": self._serving(),
            "trouble": without_folders([problem for problem in problems if problem]),
            "log": log,
            "verdict": verdict,
            "test": _newest_test(decisions),
            "decisions": decisions[: -LINES - 1 : -1],
            "history": history[: -LINES - 1 : -1],
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
            "baking": serving.baking,
        }

    def _log(self) -> dict[str, Any]:
        with self._lock:
            asked_again, content = self._kept
            began = self._now()
            if began >= asked_again:
                content = self._ask_log()
                ended = self._now()
                rest = max(KEPT_SECONDS, KEPT_TIMES * (ended - began))
                self._kept = (ended + rest, content)
            return content

    def _ask_log(self) -> dict[str, Any]:
        log, since = self._answering.log, self._now() - WINDOW_DAYS * 86_400
        try:
            models, problem = self._answering.reading.call(log.summary, since), None
        except LogError as error:
            models, problem = [], str(error)
        rows = [{**row, **_error_interval(row), **_quarantined(row)} for row in models]
        return {"days": WINDOW_DAYS, "models": rows, "trouble": without_folders(problem)}


def _or_nothing(read: Callable[[], T], problems: list[str | None]) -> T | None:
    """Return what is read; None, and why, when its file cannot be."""
    try:
        return read()
    except (ContentError, OSError) as error:
        problems.append(str(error))
        return None


def verdict_gauges() -> Iterator[GaugeMetricFamily]:
    """Yield the verdict, what it rests on, the estimate and each drift; nothing without one."""
    try:
        verdict = read_verdict()
    except ContentError:  # the page says so
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
    told = GaugeMetricFamily(
        "taxi_truths", "True durations by what they are.", labels=("version", "truth")
    )
    for code, count in verdict.truths.items():
        told.add_metric([verdict.model, code], count)
    yield from (level, age, reason, told)
    yield from _estimate_gauges(verdict)
    yield from _drift_gauges(verdict)


def _estimate_gauges(verdict: Verdict) -> Iterator[GaugeMetricFamily]:
    """Yield what is expected of rides whose truth is not known; NaN when nothing is."""
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
    """Yield how long ago the log got a ride and a true duration; infinite when it never did.

    Nothing while the log cannot be read: `taxi_log_writable` says so.
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
    return {"model": loaded.version, "sha256": loaded.sha256, **{n: card.get(n) for n in names}}


def _error_interval(row: dict[str, Any]) -> dict[str, float | None]:
    """A 95 % interval of the mean error, as if rides were independent of each other.

    Rides of one day share its traffic, so it is too narrow over few days; the verdict's
    intervals, drawn over days, are not.
    """
    n, mean, square = row["scored"], row["mean_error"], row["mean_square"]
    if n < 2 or mean is None or square is None:
        return {"error_low": None, "error_high": None}
    half = NORMAL_95 * (max(square - mean**2, 0.0) / (n - 1)) ** 0.5
    return {"error_low": max(mean - half, 0.0), "error_high": mean + half}


def _quarantined(row: dict[str, Any]) -> dict[str, Any]:
    """How many true durations of each reason cannot be their ride's; those that there are."""
    return {"quarantined": {code: row[code] for code in QUARANTINED if row[code]}}


def _newest_test(decisions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the last look at a challenger's feedback said, with the bound that it must cross."""
    for line in reversed(decisions):
        numbers = line.get("numbers")
        test = numbers.get("test") if isinstance(numbers, dict) else None
        if isinstance(test, dict):
            return {**test, "at": line.get("at"), "what": line.get("what")}
    return None


def _report_time() -> str | None:
    """When that report was made, ISO; None when there is none."""
    try:
        made = page_path().stat().st_mtime
    except OSError:
        return None
    return iso_of(made)


def _mlflow_address() -> str | None:
    """Where MLflow's pages are, when runs are tracked on a server."""
    address = environment.tracking_server() or ""
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None
