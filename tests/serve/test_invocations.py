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


STRANGERS = {"fare": 1, "VendorID": 2}
WITH_STRANGERS = {**RIDE, **STRANGERS}


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": list(WITH_STRANGERS),
                             "data": [list(WITH_STRANGERS.values())]}},
        {"dataframe_records": [RIDE, {**RIDE, "fare": [1]}, WITH_STRANGERS]},
        {"instances": [WITH_STRANGERS]},
        {"instances": {name: [value] for name, value in WITH_STRANGERS.items()}},
        {"inputs": [WITH_STRANGERS, WITH_STRANGERS]},
        {"inputs": WITH_STRANGERS, "params": {"ignored": 1}},
        pd.DataFrame([WITH_STRANGERS]).to_csv(),
    ],
)  # fmt: skip
def test_other_columns_are_ignored_and_named_once(client, content):
    response = post(client, content, "text/csv" if isinstance(content, str) else "application/json")
    assert minutes(response)
    assert response.json["ignored"] == list(STRANGERS)


def test_nothing_is_said_where_nothing_is_ignored(client):
    assert set(post(client, {"inputs": RIDE}).json) == {"predictions", "prediction_ids"}


def test_names_that_are_told_are_few_and_short(client):
    many = {f"{i:03d}" + "x" * 200: i for i in range(200)}
    (ignored,) = (post(client, {"inputs": {**RIDE, **many}}).json["ignored"],)
    assert ignored == [f"{i:03d}" + "x" * 96 + "…" for i in range(50)]


MISSPELT = {"PULocation": [], "DOLocationID": [], "far": []}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"dataframe_split": {"columns": list(MISSPELT), "data": []}}, list(MISSPELT)),
        ({"dataframe_split": {"columns": [], "data": []}}, ["no columns"]),
        ({"dataframe_split": {"columns": list(MISSPELT), "data": [[1], 5]}}, list(MISSPELT)),
        ({"inputs": MISSPELT}, list(MISSPELT)),
        ({"instances": MISSPELT}, list(MISSPELT)),
        ({"inputs": {}}, ["no columns"]),
        ({"inputs": {"PULocation": [1, 2], "far": [1]}}, ["PULocation", "far"]),
        ("PULocation,DOLocationID,far\n", list(MISSPELT)),
        ("74,42,1.5\n", ["74", "42", "1.5"]),
        ("74,42,1.5\n74,42,1.5\n", ["74", "42", "1.5"]),
        ("PULocationID;DOLocationID\n74;42\n", ["PULocationID;DOLocationID"]),
        ("\n74,42\n", ["no columns"]),
    ],
)
def test_columns_are_checked_before_rows(client, content, found):
    response = post(client, content, "text/csv" if isinstance(content, str) else "application/json")
    error = response.json["error"]
    assert (response.status_code, error["code"], error["field"]) == (
        400, "missing_field", "PULocationID",
    )  # fmt: skip
    assert f"(any case), found {', '.join(found)}; it must be a TLC taxi zone" in error["message"]


@pytest.mark.parametrize("names", [["PULocationID", "PUlocationID"], ["trip_miles"],
                                   ["lpep_pickup_datetime"], ["pickup_at", "fare"]])  # fmt: skip
def test_columns_that_mean_the_same_are_refused_in_every_form(client, names):
    ride = {**RIDE, **dict.fromkeys(names, 1)}
    frame = pd.DataFrame([ride])
    errors = [
        post(client, content).json["error"]
        for content in (
            {"dataframe_split": {"columns": list(ride), "data": []}},
            {"inputs": {name: [value] for name, value in ride.items()}},
            {"inputs": ride},
        )
    ]
    errors.append(post(client, frame.to_csv(), "text/csv").json["error"])
    errors += [post(client, {name: [ride]}).json["error"] for name in ("inputs", "instances")]
    assert {error["code"] for error in errors} == {"duplicate_key"}
    assert len({error["field"] for error in errors}) == 1
    assert all(" comes 2 times, as '" in error["message"] for error in errors)


def test_column_names_of_tlc_are_understood(client, frame, expected):
    tlc = {"PULocationID": " PUlocationID", "trip_distance": "Trip_distance",
           "pickup_datetime": "lpep_pickup_datetime"}  # fmt: skip
    renamed = frame.rename(columns=tlc)
    records = renamed.astype(object).where(renamed.notna(), None).to_dict("records")
    for response in (
        post(client, renamed.to_csv(index=False), "text/csv"),
        post(client, {"dataframe_records": records}),
        post(client, '{"dataframe_split": %s}' % renamed.to_json(orient="split")),  # noqa: UP031
        post(client, {"inputs": renamed.to_dict("list")}),
    ):
        assert minutes(response) == expected
        assert "ignored" not in response.json


@pytest.mark.parametrize("word", ["", "NULL", "null", "None", "N/A", "<NA>", "NaN", "nan", "\\N",
                                  " NULL "])  # fmt: skip
def test_words_for_null_in_csv_are_null(client, word, log):
    names = "PULocationID,DOLocationID,trip_distance,pickup_datetime,ride_id"
    answer = post(client, f"{names}\n74,42,{word},{word},{word}\n", "text/csv").json
    row = log.find(answer["prediction_ids"][0])
    assert (row["trip_distance"], row["ride_id"]) == (None, None)
    assert row["pickup_at"] > "2026"
    error = post(client, f"PULocationID,DOLocationID\n42,{word}\n", "text/csv").json["error"]
    assert error["message"].startswith("element 0: DOLocationID is null; it must be")


@pytest.mark.parametrize("text", ["7_4", "７４", "+nan", "infinity", "1e", ".", "True", "0x4a"])
def test_numbers_that_only_python_knows_are_refused_in_csv(client, text):
    response = post(client, f"PULocationID,DOLocationID\n{text},42\n", "text/csv")
    assert response.status_code == 400
    assert response.json["error"]["field"] == "PULocationID"


def test_json_with_a_byte_order_mark_is_read(client):
    body = b"\xef\xbb\xbf" + json.dumps({"inputs": RIDE}).encode()
    assert len(minutes(post(client, body))) == 1


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
        'PULocationID,DOLocationID,note\n1,2,"a\n3,4,b\n5,6,c\n',
        'PULocationID,DOLocationID,note\n1,2,a\n3,4,"b\n',
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
