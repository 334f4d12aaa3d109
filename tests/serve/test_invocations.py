"""POST /invocations: MLflow's protocol, answered as `mlflow models serve` answers."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from service_samples import RIDE, make_rides

from taxi_duration.domain.rides import Rides


def post(client, content, kind="application/json"):
    body = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return client.post("/invocations", data=body, content_type=kind)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Twenty rides as an MLflow client holds them; one without distance."""
    rides, _ = make_rides(20)
    frame = pd.DataFrame(
        {
            "PULocationID": rides.PULocationID.astype("int64"),
            "DOLocationID": rides.DOLocationID.astype("int64"),
            "trip_distance": rides.trip_distance.astype("float64"),
            "pickup_datetime": rides.pickup_at.astype(str),
        }
    )
    frame.loc[3, "trip_distance"] = None
    return frame


def minutes(response) -> list[float]:
    assert response.status_code == 200, response.text
    return [row["duration"] for row in response.json["predictions"]]


@pytest.fixture
def expected(models, frame) -> pytest.approx:
    """What the model says to the frame."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return pytest.approx(models[1].answer(Rides.from_dicts(rows)).duration.tolist(), abs=1e-4)


def test_dataframe_split_is_answered(client, frame, expected):
    content = '{"dataframe_split": %s}' % frame.to_json(orient="split")  # noqa: UP031
    assert minutes(post(client, content)) == expected


def test_dataframe_split_with_a_bare_nan_is_answered(client, frame, expected):
    # This is what json.dumps makes of frame.to_dict("split").
    assert minutes(post(client, {"dataframe_split": frame.to_dict("split")})) == expected


def test_dataframe_records_are_answered(client, frame, expected):
    content = '{"dataframe_records": %s}' % frame.to_json(orient="records")  # noqa: UP031
    assert minutes(post(client, content)) == expected


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_instances_and_inputs_are_answered_by_row_and_by_column(client, frame, expected, key):
    by_row = frame.to_dict("records")
    by_column = frame.to_dict("list")
    assert minutes(post(client, {key: by_row})) == expected
    assert minutes(post(client, {key: by_column})) == expected


def test_inputs_of_plain_values_are_one_ride(client):
    assert len(minutes(post(client, {"inputs": RIDE}))) == 1


def test_csv_is_answered(client, frame, expected):
    assert minutes(post(client, frame.to_csv(index=False), "text/csv")) == expected


def test_csv_with_the_index_is_answered(client, frame, expected):
    assert minutes(post(client, frame.to_csv(), "text/csv; charset=utf-8")) == expected


def test_parquet_is_answered(client, frame, expected):
    frame["pickup_datetime"] = pd.to_datetime(frame["pickup_datetime"])
    body = frame.to_parquet(index=False)
    assert minutes(post(client, body, "application/vnd.apache.parquet")) == expected


def test_rows_have_the_columns_of_the_registered_model(client, frame):
    from taxi_duration.registry.pyfunc import OUTPUTS

    answer = post(client, {"instances": frame.to_dict("records")}).json
    assert tuple(answer["predictions"][0]) == OUTPUTS


def test_predictions_are_logged_and_their_ids_given(client, log, frame):
    ids = post(client, {"instances": frame.to_dict("records")}).json["prediction_ids"]
    assert len(log.find_many(ids)) == 20


def test_params_are_allowed_and_unused(client):
    assert len(minutes(post(client, {"instances": [RIDE], "params": {"a": 1}}))) == 1


def test_other_columns_are_ignored(client):
    assert len(minutes(post(client, {"instances": [{**RIDE, "fare": [1]}]}))) == 1


@pytest.mark.parametrize(
    "content",
    [
        [],
        5,
        {},
        RIDE,
        {"instances": [RIDE], "inputs": [RIDE]},
        {"instances": 5},
        {"instances": "x"},
        {"dataframe_records": RIDE},
        {"dataframe_split": [RIDE]},
        {"dataframe_split": {"columns": ["PULocationID"]}},
        {"dataframe_split": {"columns": [1], "data": [[1]]}},
        {"dataframe_split": {"columns": ["PULocationID"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": ["PULocationID"], "data": [5]}},
        {
            "dataframe_split": {
                "columns": ["PULocationID"] * 2 + ["DOLocationID"],
                "data": [[1, 2, 3]],
            }
        },
        {"dataframe_split": {"columns": ["PULocationID"], "data": [[1]]}},
        {"inputs": {"PULocationID": [1, 2], "DOLocationID": [1]}},
        {"instances": [RIDE, 5]},
        {"instances": [{**RIDE, "PULocationID": 300}]},
    ],
)
def test_what_is_not_of_the_protocol_is_refused(client, content):
    response = post(client, content)
    assert response.status_code == 400
    assert response.json["error"]["message"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PULocationID\n",
        "PULocationID,DOLocationID\n1\n",
        "PULocationID,PULocationID\n1,2\n",
        "PULocationID,DOLocationID\nten,2\n",
        "PULocationID,DOLocationID,trip_distance\n1,2,inf\n",
        'PULocationID,DOLocationID\n"1,2\n',
        "PULocationID,DOLocationID\n1,2\x00\n",
    ],
)
def test_bad_csv_is_refused_or_empty(client, text):
    response = post(client, text, "text/csv")
    rows = response.json.get("predictions")
    assert response.status_code == 400 or rows == []


def test_csv_as_spreadsheets_save_it_is_answered(client, frame, expected):
    body = frame.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")
    assert minutes(post(client, body, "text/csv")) == expected


def test_infinity_is_refused_by_name(client):
    text = '{"instances": [{"PULocationID": 1, "DOLocationID": 2, "trip_distance": Infinity}]}'
    response = post(client, text)
    assert response.status_code == 400
    assert response.json["error"]["field"] == "trip_distance"


def test_other_types_are_refused(client):
    assert post(client, b"x", "application/octet-stream").status_code == 415
