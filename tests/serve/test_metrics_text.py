"""GET /metrics: what is counted, by version and arm."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_samples import RIDE

from serve.core.instruments import Instruments, _observe_many

ARM = 'arm="champion",version="green-duration:1"'


def test_the_text_is_what_prometheus_reads(client):
    client.post("/predict", json=RIDE)
    response = client.get("/metrics")
    families = {family.name for family in text_string_to_metric_families(response.text)}
    assert response.content_type.startswith("text/plain")
    assert {
        "taxi_requests", "taxi_predictions", "taxi_latency_seconds", "taxi_predicted_minutes",
        "taxi_feedback", "taxi_absolute_error_minutes", "taxi_interval_covered",
        "taxi_model_age_seconds", "taxi_reload_failures", "taxi_log_failures",
    } <= families  # fmt: skip


@pytest.mark.parametrize(("content", "n"), [(RIDE, 1), ([RIDE] * 7, 7)])
def test_answered_rides_are_counted(client, metric, content, n):
    client.post("/predict", json=content)
    assert metric(f"taxi_predictions_total{{{ARM}}}") == n
    assert metric(f"taxi_predicted_minutes_count{{{ARM}}}") == n
    assert metric(f"taxi_latency_seconds_count{{{ARM}}}") == 1


def test_requests_are_counted_by_endpoint_and_status(client, metric):
    client.post("/predict", json=RIDE)
    client.post("/predict", json={})
    assert metric('taxi_requests_total{endpoint="predict.predict",status="200"}') == 1
    assert metric('taxi_requests_total{endpoint="predict.predict",status="400"}') == 1
    assert metric('taxi_errors_total{code="400"}') == 1


def test_paths_that_do_not_exist_make_no_new_series(client, metric):
    for i in range(5):
        client.get(f"/nowhere-{i}")
    assert metric('taxi_requests_total{endpoint="none",status="404"}') == 5


def test_age_of_the_model_is_since_it_was_made(client, metric):
    assert metric(f"taxi_model_age_seconds{{{ARM}}}") > 0


def test_many_observed_at_once_count_as_one_by_one():
    values = np.array([0.5, 2.0, 2.1, 7.9, 8.0, 59.9, 60.0, 61.0, 500.0], "float32")
    together, single = Instruments(), Instruments()
    _observe_many(together.arm("m:1", "champion").minutes, values)
    for value in values.tolist():
        single.arm("m:1", "champion").minutes.observe(value)

    def counted(instruments):
        text = instruments.render(lambda: []).decode()
        lines = [line for line in text.splitlines() if "minutes_bucket" in line]
        return [line for line in lines if "predicted" in line]

    assert counted(together) == counted(single)
    assert len(counted(single)) == 14
