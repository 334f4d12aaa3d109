"""A sample answer for each call, as a model of January 2021 gave them; long lists are cut."""

from __future__ import annotations

from typing import Any

ID = "01a2194ab3179403cbed6ed4e22b4825"
MODEL = "green-duration:1"
FROM_TO = {"PULocationID": 74, "DOLocationID": 138}
RIDE = {**FROM_TO, "pickup_datetime": "2021-02-15T08:30", "trip_distance": 5.2}
INTERVAL = {"p10": 8.0, "p50": 10.34, "p90": 13.43}
CARD = {"name": "green-duration", "version": 1, "model_kind": "XGB", "train_data": "2021-01"}
METRICS = """\
# HELP taxi_predictions_total Rides answered.
# TYPE taxi_predictions_total counter
taxi_predictions_total{arm="champion",version="green-duration:1"} 4000.0
"""

# By the path of the call.
ANSWERS: dict[str, Any] = {
    "/predict": {
        "duration": 10.64,
        "interval": INTERVAL,
        "support": 24,
        "model": MODEL,
        "arm": "champion",
        "prediction_id": ID,
        "used_distance": True,
    },
    "/feedback": {"known": [ID], "unknown": [], "duplicate": []},
    "/profile": {
        **FROM_TO,
        "date": "2021-02-15",
        "model": MODEL,
        "hours": [
            {"hour": 0, "duration": 13.16, "interval": {"p10": 8.66, "p50": 12.74, "p90": 17.82}}
        ],
    },
    "/reach": {
        "PULocationID": 74,
        "when": "2021-02-15T08:30:00",
        "model": MODEL,
        "zones": [
            {
                "DOLocationID": 1,
                "duration": 37.82,
                "interval": {"p10": 29.34, "p50": 37.24, "p90": 47.41},
                "support": 0,
            }
        ],
    },
    "/leave-by": {
        **FROM_TO,
        "arrive": "2021-02-15T08:30:00",
        "leave_by": "2021-02-15T08:13:00",
        "p": 0.9,
        "minutes": 16.47,
        "model": MODEL,
    },
    "/invocations": {
        "predictions": [{"duration": 10.64, **INTERVAL, "support": 24, "used_distance": True}],
        "prediction_ids": [ID],
    },
    "/ping": "\n",
    "/model": {
        "model": MODEL,
        "champion": CARD,
        "challenger": None,
        "ab_share": 0.0,
        "shadow": False,
        "baking": False,
        "trouble": None,
    },
    "/health": {"status": "ok", "model": MODEL, "problems": []},
    "/ready": {"status": "ready", "model": MODEL, "problems": []},
    "/metrics": METRICS,
    "/openapi.json": {"openapi": "3.1.0", "info": {"title": "NYC taxi trip duration"}},
    "/zones": [
        {
            "id": 74,
            "borough": "Manhattan",
            "name": "East Harlem North",
            "longitude": -73.9373,
            "latitude": 40.8012,
            "area_km2": 2.282,
        }
    ],
    "/zones/shapes": {"borders": [[-741845, 406950, 17, 85]], "zones": {"74": [[0, -226, 388]]}},
    "/monitor/data": {
        "at": 1796000000.0,
        "headline": {"level": "ok", "text": "Fine: answers are off by 3.1 minutes, as on …"},
        "trouble": [],
    },
}
_METADATA = {
    "name": "green-duration",
    "versions": ["1"],
    "platform": "taxi-duration",
    "inputs": [{"name": "PULocationID", "datatype": "INT64", "shape": [-1]}],
    "outputs": [{"name": "duration", "datatype": "FP64", "shape": [-1]}],
}
_INFERRED = {
    "model_name": "green-duration",
    "outputs": [{"name": "duration", "datatype": "FP64", "shape": [1], "data": [10.64]}],
}
ANSWERS |= {
    "/v2": {"name": "taxi-duration", "version": "1", "extensions": ["binary_tensor_data"]},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
}
for _model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
    ANSWERS[_model] = _METADATA
    ANSWERS[f"{_model}/ready"] = {"ready": True, "name": "green-duration"}
    ANSWERS[f"{_model}/infer"] = _INFERRED


def add_examples(paths: dict[str, Any]) -> None:
    """Add to each call of OpenAPI's `paths` the answer that it has here."""
    for path, answer in ANSWERS.items():
        for operation in paths[path].values():
            for content in operation["responses"]["200"]["content"].values():
                content["example"] = answer
