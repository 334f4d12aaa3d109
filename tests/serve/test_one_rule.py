"""The same rides in every form that can be sent: the same answers, or the same refusal."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import hypothesis.strategies as st
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import bounded
from hypothesis import given
from service_samples import make_card

from serve import create_app
from serve.app import close_app
from taxi_duration.live.prediction_log import open_log

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

PARQUET = "application/vnd.apache.parquet"
FIELDS = ("PULocationID", "DOLocationID", "trip_distance", "pickup_datetime")
NAMES = {  # each means its field
    "PULocationID": ["PULocationID", "PUlocationID", " pulocationid", "pickup_location_id"],
    "DOLocationID": ["DOLocationID", "DOlocationID", "\ufeffDOLocationID"],
    "trip_distance": ["trip_distance", "Trip_distance ", "trip_miles"],
    "pickup_datetime": ["pickup_datetime", "lpep_pickup_datetime", "Tpep_Pickup_DateTime"],
}
GOOD = {
    "PULocationID": st.integers(1, 265),
    "DOLocationID": st.integers(1, 265) | st.integers(1, 265).map(float),
    "trip_distance": st.none() | st.floats(0, 100, width=32) | st.integers(0, 1_000_000),
    "pickup_datetime": st.none()
    | st.sampled_from(["2021-02-15T08:30:00", "2021-02-15 13:30:00 UTC", "2021-07-15T14:30:00Z",
                       "2021-02-15T22:30:00+09:00", "2021-02-15", "2021-11-07T01:30:00-04:00"]),
}  # fmt: skip
BAD = st.sampled_from(
    [
        ("PULocationID", 0), ("PULocationID", 266), ("PULocationID", -1), ("PULocationID", None),
        ("DOLocationID", 10.5), ("DOLocationID", 2**40), ("DOLocationID", None),
        ("trip_distance", -0.5), ("trip_distance", 1e7),
        ("pickup_datetime", "1999-12-31T23:59:59"), ("pickup_datetime", "2100-01-01T00:00:00Z"),
        ("pickup_datetime", "yesterday"), ("pickup_datetime", "2021-02-30"),
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def client(models, tmp_path_factory):
    """One service for all generated rides."""
    folder = tmp_path_factory.mktemp("live")
    log = open_log(f"sqlite:///{folder / 'predictions.db'}", folder / "spool")
    app = create_app({"BACKGROUND": False}, (models[1], make_card(1, "LR")), log)
    yield app.test_client()
    close_app(app)


@pytest.fixture(scope="module")
def registered(models):
    """What `mlflow.pyfunc.load_model` does with a frame: MLflow's own check, then our model."""
    from mlflow.exceptions import MlflowException
    from mlflow.models.utils import _enforce_schema

    from taxi_duration.registry.pyfunc import TaxiDurationModel, signature

    model = TaxiDurationModel()
    model.model = models[1].for_riders()  # as it is loaded

    def ask(frame: pd.DataFrame) -> Any:
        try:
            checked = _enforce_schema(frame, signature().inputs)
            return model.predict(None, checked)["duration"].tolist()
        except MlflowException as error:
            return str(error).removeprefix("INVALID_PARAMETER_VALUE: ")

    return ask


def said(response) -> Any:
    """The minutes, or what is wrong."""
    if response.status_code != 200:
        assert response.status_code == 400, response.text
        return response.json["error"]["message"]
    rows = response.json if isinstance(response.json, list) else response.json["predictions"]
    return [row["duration"] for row in rows]


def as_csv(names: list[str], rows: list[list[Any]], null: str) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(names)
    writer.writerows([[null if cell is None else cell for cell in row] for row in rows])
    return file.getvalue()


def as_parquet(names: list[str], columns: list[list[Any]]) -> bytes:
    zones, miles, times = pa.float64(), pa.float64(), pa.string()
    kinds = (zones, zones, miles, times)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names), file)
    return file.getvalue()


def every_form(client, names: list[str], rows: list[list[Any]], null: str) -> dict[str, Any]:
    """What each form of the same table is answered."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = [list(column) for column in zip(*rows, strict=True)]
    by_column = dict(zip(names, columns, strict=True))
    frames = {
        "dataframe_split": {"columns": names, "data": rows},
        "dataframe_records": records,
        "instances": records,
        "inputs": by_column,
    }
    answers = {"an array": said(client.post("/predict", json=records))}
    for name, content in frames.items():
        body = "\ufeff" + json.dumps({name: content, "params": {"a": 1}})
        response = client.post("/invocations", data=body.encode(), content_type="application/json")
        answers[name] = said(response)
    answers["instances by column"] = said(
        client.post("/invocations", json={"instances": by_column})
    )
    body = as_csv(names, rows, null)
    answers["CSV"] = said(client.post("/invocations", data=body, content_type="text/csv"))
    body = as_parquet(names, columns)
    for path in ("/predict", "/invocations"):
        answers[f"Parquet to {path}"] = said(client.post(path, data=body, content_type=PARQUET))
    return answers


@st.composite
def tables(draw) -> tuple[list[str], list[list[Any]]]:
    """Names, and rows of which one may have a value that is refused."""
    names = [draw(st.sampled_from(NAMES[field])) for field in FIELDS]
    rows = draw(
        st.lists(st.tuples(*(GOOD[field] for field in FIELDS)).map(list), min_size=1, max_size=4)
    )
    if draw(st.booleans()):
        field, value = draw(BAD)
        draw(st.sampled_from(rows))[FIELDS.index(field)] = value
    return names, rows


@pytest.mark.parametrize(
    "examples", [12, pytest.param(100, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_every_form_gets_the_same_answers_or_the_same_refusal(client, registered, examples):
    @bounded(examples)
    @given(tables(), st.sampled_from(["", "NULL", "None", "N/A", "<NA>", "nan", "\\N"]))
    def compare(table, null):
        names, rows = table
        answers = every_form(client, names, rows, null)
        frame = pd.DataFrame(rows, columns=list(FIELDS))  # names of the signature
        answers["the registered model"] = registered(frame)
        singles = [client.post("/predict", json=dict(zip(names, row, strict=True))) for row in rows]
        bad = [i for i, one in enumerate(singles) if one.status_code != 200]
        if bad:
            expected = f"element {bad[0]}: {singles[bad[0]].json['error']['message']}"
            assert answers == dict.fromkeys(answers, expected)
        else:
            minutes = [one.json["duration"] for one in singles]
            assert answers == dict.fromkeys(answers, pytest.approx(minutes, abs=1e-4))

    compare()
