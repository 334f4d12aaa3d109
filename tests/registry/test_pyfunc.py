import json
import urllib.request

import numpy as np
import pandas as pd
import pytest
from servers import mlflow_process

from taxi_duration.domain.rides import Rides
from taxi_duration.model.bundle import load_bundle
from taxi_duration.registry import tracking
from taxi_duration.registry.pyfunc import OUTPUTS

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

CHAMPION = "models:/green-duration@champion"
RIDES = [
    {"PULocationID": pickup, "DOLocationID": dropoff, "trip_distance": miles, "pickup_datetime": at}
    for pickup, dropoff, miles, at in [
        (74, 42, 3.0, "2021-02-01T09:00:00"),
        (132, 265, None, "2021-02-07T23:59:59"),
        (264, 1, 0.0, "2021-02-03T02:30:00"),
    ]
]


@pytest.fixture
def champion(moved_home):
    """The champion as MLflow loads it, from a home that was moved since it was registered."""
    import mlflow

    tracking.connect()
    return mlflow.pyfunc.load_model(CHAMPION)


@pytest.fixture
def own(moved_home):
    """The same version as our own bundle."""
    model, _ = load_bundle(moved_home / "models" / "green-duration" / "1")
    return model


def test_frame_with_all_columns_is_answered_as_by_the_bundle(champion, own):
    answers = champion.predict(pd.DataFrame(RIDES))
    expected = own.answer(Rides.from_dicts(RIDES))
    assert tuple(answers.columns) == OUTPUTS
    for name in OUTPUTS:
        np.testing.assert_array_equal(answers[name].to_numpy(), getattr(expected, name))


@pytest.mark.parametrize("missing", [["trip_distance"], ["pickup_datetime"],
                                     ["trip_distance", "pickup_datetime"]])  # fmt: skip
def test_optional_columns_may_be_left_out(champion, own, missing):
    rides = [{name: value for name, value in ride.items() if name not in missing} for ride in RIDES]
    expected = own.answer(Rides.from_dicts(rides))
    answers = champion.predict(pd.DataFrame(rides))
    # LR does not know the time, so that "now" is the same a moment later.
    np.testing.assert_array_equal(answers["duration"].to_numpy(), expected.duration)
    assert answers["used_distance"].tolist() == expected.used_distance.tolist()


@pytest.mark.parametrize("name", ["PULocationID", "DOLocationID"])
def test_required_column_that_is_missing_is_named(champion, name):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=name):
        champion.predict(pd.DataFrame(RIDES).drop(columns=name))


def test_signature_says_what_is_required(champion):
    inputs = champion.metadata.signature.inputs
    assert inputs.required_input_names() == ["PULocationID", "DOLocationID"]
    assert inputs.optional_input_names() == ["trip_distance", "pickup_datetime"]
    assert champion.metadata.signature.outputs.input_names() == list(OUTPUTS)


def test_input_example_can_be_sent_as_it_is(champion):
    assert champion.predict(champion.input_example)["duration"].notna().all()


def test_stored_model_brings_the_bundle_and_the_code_that_reads_it(champion):
    from mlflow.artifacts import list_artifacts

    top = {item.path.rsplit("/")[-1] for item in list_artifacts(artifact_uri=CHAMPION)}
    assert {"MLmodel", "code", "artifacts", "input_example.json"} <= top
    code = {
        item.path for item in list_artifacts(artifact_uri=f"{CHAMPION}/code/taxi_duration/model")
    }
    assert any(path.endswith("bundle.py") for path in code)
    assert not any(path.endswith((".so", ".c", "__pycache__")) for path in code)


@pytest.fixture
def served(moved_home, tmp_path):
    """Address of `mlflow models serve` on the champion."""
    tracking.connect()  # follows the moved folder
    store = f"sqlite:///{moved_home}/tracking/mlflow.db"
    args = ["models", "serve", "--model-uri", CHAMPION, "--env-manager", "local"]
    with mlflow_process(args, "/ping", tmp_path, MLFLOW_TRACKING_URI=store) as address:
        yield address


@pytest.mark.long
def test_mlflow_models_serve_answers_invocations(served, own):
    request = urllib.request.Request(
        f"{served}/invocations",
        data=json.dumps({"dataframe_records": RIDES[:1]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        (answer,) = json.load(response)["predictions"]
    expected = own.answer(Rides.from_dicts(RIDES[:1]))
    assert answer["duration"] == pytest.approx(float(expected.duration[0]), rel=1e-6)
    assert answer["support"] == int(expected.support[0])
