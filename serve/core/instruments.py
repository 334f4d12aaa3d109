"""The service's metrics for Prometheus: one registry per app, summed over workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from serve import settings
from serve.core.metrics_file import reserve_files
from taxi_duration.domain.truths import OUTSIDE, SCORED

ARM = ("version", "arm")
LATENCY_SECONDS = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5,
)  # fmt: skip
MINUTES = (2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60)
ERROR_MINUTES = (0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60)


@dataclass(frozen=True)
class ArmMetrics:
    """The metrics of one model in one arm, labels looked up once."""

    predictions: Counter
    latency: Histogram
    minutes: Histogram
    shadow: Counter
    failures: Counter
    feedback: Counter
    outside: Counter
    error: Histogram
    covered: Counter

    def predicted(self, minutes: float, seconds: float) -> None:
        """Count one answered ride: its duration (minutes) and latency (seconds)."""
        self.predictions.inc()
        self.minutes.observe(minutes)
        self.latency.observe(seconds)

    def predicted_many(self, minutes: np.ndarray, seconds: float) -> None:
        """Count the n rides of one request.

        Args:
            minutes: durations answered, shape (n,).
            seconds: latency of the request.
        """
        self.predictions.inc(len(minutes))
        _observe_many(self.minutes, minutes)
        self.latency.observe(seconds)

    def measured(self, verdict: str, answered: dict[str, Any]) -> None:
        """Count the feedback on an answer.

        Args:
            verdict: its code of `domain.truths`; only scored ones enter the error.
            answered: a row of the log with `true_duration`, minutes.
        """
        self.feedback.inc()
        if verdict in OUTSIDE:
            self.outside.inc()
        if verdict == SCORED:
            true = answered["true_duration"]
            self.error.observe(abs(true - answered["duration"]))
            if answered["p10"] <= true <= answered["p90"]:
                self.covered.inc()


class Instruments:
    """All metrics of the service.

    With `PROMETHEUS_MULTIPROC_DIR` set before prometheus_client is imported, values are kept in
    files shared by all workers; without, in this process.
    """

    def __init__(self) -> None:
        reserve_files()
        self.registry = CollectorRegistry()
        counter, histogram = self._counter, self._histogram
        self._requests = counter(
            "taxi_requests_total", "HTTP requests answered.", ("endpoint", "status")
        )
        self.errors = counter("taxi_errors_total", "Requests refused or failed.", ("code",))
        self._predictions = counter("taxi_predictions_total", "Rides answered.", ARM)
        self._latency = histogram(
            "taxi_latency_seconds", "Time inside the service of a request.", LATENCY_SECONDS
        )
        self._minutes = histogram("taxi_predicted_minutes", "Durations answered.", MINUTES)
        self._shadow = counter("taxi_shadow_answers_total", "Answers logged, not given.", ARM)
        self._failures = counter("taxi_model_failures_total", "Rides a model failed at.", ARM)
        self.reloads = counter("taxi_reloads_total", "Deployments taken into service.")
        self.reload_failures = counter(
            "taxi_reload_failures_total", "Models of a deployment refused; the old one serves on."
        )
        self.log_failures = counter(
            "taxi_log_failures_total", "Predictions answered but not logged."
        )
        self._add_feedback()
        self._seen: dict[tuple[str, int], Counter] = {}
        self._arms: dict[tuple[str, str], ArmMetrics] = {}

    def _add_feedback(self) -> None:
        counter = self._counter
        self._feedback = counter("taxi_feedback_total", "True durations received.", ARM)
        self._outside = counter(
            "taxi_feedback_outside_total", "True durations outside the scored minutes.", ARM
        )
        self._error = self._histogram(
            "taxi_absolute_error_minutes", "Answer against scored true duration.", ERROR_MINUTES
        )
        self._covered = counter(
            "taxi_interval_covered_total", "Scored true durations within P10-P90.", ARM
        )
        self.quarantined_feedback = counter(
            "taxi_feedback_quarantined_total",
            "True durations that cannot be their ride's, as far as their own call shows.",
            ("reason",),
        )
        self.unknown_feedback = counter(
            "taxi_feedback_unknown_total", "Feedback on predictions nobody knows."
        )

    def _counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ARM, registry=self.registry, buckets=bounds)

    def arm(self, version: str, arm: str) -> ArmMetrics:
        """Return the metrics of one model (`name:version`) in one arm."""
        found = self._arms.get((version, arm))
        if found is None:
            labels = (version, arm)
            found = ArmMetrics(
                self._predictions.labels(*labels), self._latency.labels(*labels),
                self._minutes.labels(*labels), self._shadow.labels(*labels),
                self._failures.labels(*labels), self._feedback.labels(*labels),
                self._outside.labels(*labels), self._error.labels(*labels),
                self._covered.labels(*labels),
            )  # fmt: skip
            self._arms[version, arm] = found
        return found

    def count_request(self, endpoint: str, status: int) -> None:
        """Count one answered request."""
        child = self._seen.get((endpoint, status))
        if child is None:
            child = self._seen[endpoint, status] = self._requests.labels(endpoint, str(status))
        child.inc()

    def render(self, states: Callable[[], Iterable[GaugeMetricFamily]]) -> bytes:
        """Return all metrics as text in Prometheus' format.

        Args:
            states: yields the gauges that are read now.
        """
        registry = CollectorRegistry()
        registry.register(_Collected(states))
        folder = settings.metrics_dir()
        # When somebody deleted the folder, this worker's own values are all that is left.
        if folder and any(Path(folder).glob("*.db")):
            MultiProcessCollector(registry)
            return generate_latest(registry)
        return generate_latest(self.registry) + generate_latest(registry)


class _Collected:
    """Makes a function a collector."""

    def __init__(self, states: Callable[[], Iterable[GaugeMetricFamily]]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._states()


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def model_gauges(models: Iterable[tuple[str, str, dict[str, Any]]]) -> Iterator[GaugeMetricFamily]:
    """Yield age and identity of the models in service.

    Args:
        models: arm, `name:version` and card of each.
    """
    age = GaugeMetricFamily("taxi_model_age_seconds", "Since the model was made.", labels=ARM)
    info = GaugeMetricFamily(
        "taxi_model_info", "1 for every model in service.", labels=(*ARM, "sha256", "data_source")
    )
    for arm, version, card in models:
        seconds = time.time() - datetime.fromisoformat(card["created"]).timestamp()
        age.add_metric([version, arm], seconds)
        info.add_metric([version, arm, card["model_sha256"], card["data_source"]], 1)
    yield age
    yield info


def _observe_many(histogram: Histogram, values: np.ndarray) -> None:
    """Observe n values with one update per bucket.

    prometheus-client has no public way; a test holds it equal to `observe`.
    """
    bounds = np.array(histogram._upper_bounds)
    counts = np.bincount(np.searchsorted(bounds, values, side="left"), minlength=len(bounds))
    for bucket, count in zip(histogram._buckets, counts.tolist(), strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(float(values.sum()))
