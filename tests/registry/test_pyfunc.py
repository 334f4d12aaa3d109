import json
import urllib.request
from datetime import datetime
from decimal import Decimal

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
    assert inputs.optional_input_names()[:2] == ["trip_distance", "pickup_datetime"]
    assert champion.metadata.signature.outputs.input_names() == list(OUTPUTS)


TIMES = [ride["pickup_datetime"] for ride in RIDES]


@pytest.fixture(scope="module")
def check():
    """A frame as MLflow checks it by our signature and then gives it to our model: what that asks
    of the bundle, or why not."""
    from mlflow.exceptions import MlflowException
    from mlflow.models.utils import _enforce_schema

    from taxi_duration.domain.rides import Answers
    from taxi_duration.registry.pyfunc import TaxiDurationModel, signature

    asked = []

    class Spy:
        def answer(self, rides):
            asked.append(rides)
            return Answers(*[rides.trip_distance] * len(OUTPUTS))

    model = TaxiDurationModel()
    model.model = Spy()

    def check(frame):
        try:
            model.predict(None, _enforce_schema(frame, signature().inputs))
        except MlflowException as error:
            return str(error)
        return asked.pop()

    return check


def frame_of(**columns) -> pd.DataFrame:
    """RIDES, with columns changed or, by None, left out."""
    frame = pd.DataFrame(RIDES).assign(**columns)
    return frame.drop(columns=[name for name, column in columns.items() if column is None])


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"PULocationID": np.array([74, 132, 264], "int16")},
        {"PULocationID": [74.0, 132.0, 264.0]},
        {"PULocationID": pd.array([74, 132, 264], "Int32"), "DOLocationID": [42.0, 265, 1]},
        {"PULocationID": pd.Categorical([74, 132, 264])},
        {"DOLocationID": [Decimal(42), Decimal(265), Decimal(1)]},
        {"trip_distance": pd.array([3, None, 0], "Int64")},
        {"trip_distance": pd.array([3, None, 0], "float32[pyarrow]")},
        {"trip_distance": [Decimal("3.0"), None, Decimal(0)]},
        {"trip_distance": None, "trip_miles": [3, None, 0]},
        {"pickup_datetime": pd.to_datetime(TIMES)},
        {"pickup_datetime": pd.to_datetime(TIMES).astype("datetime64[ns]")},
        {"pickup_datetime": pd.to_datetime(TIMES).tz_localize("America/New_York")},
        {
            "pickup_datetime": pd.to_datetime(TIMES)
            .tz_localize("America/New_York")
            .tz_convert("UTC")
        },
        {"pickup_datetime": [datetime.fromisoformat(time) for time in TIMES]},
        {"pickup_datetime": np.array(TIMES, "datetime64[s]")},
        {"pickup_datetime": pd.Categorical(TIMES)},
        {"pickup_datetime": None, "lpep_pickup_datetime": TIMES},
        {"pickup_datetime": None, "tpep_pickup_datetime": pd.to_datetime(TIMES)},
        {"ride_id": ["a", "b", "c"], "fare_amount": [1, 2, 3]},
    ],
    ids=range(20),
)
def test_frames_of_all_types_ask_the_same(check, columns):
    rides, expected = check(frame_of(**columns)), Rides.from_dicts(RIDES)
    for name in Rides.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(rides, name), getattr(expected, name))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NaT, pd.NA])
def test_what_is_missing_is_missing_however_a_frame_says_it(check, missing):
    rides = check(frame_of(trip_distance=pd.Series([missing] * 3, dtype=object),
                           pickup_datetime=pd.Series([missing] * 3, dtype=object)))  # fmt: skip
    assert np.isnan(rides.trip_distance).all()
    assert (rides.pickup_at > np.datetime64("2026")).all()
    error = check(frame_of(DOLocationID=pd.Series([1, missing, 3], dtype=object)))
    assert "element 1: DOLocationID is null; it must be a TLC taxi zone" in error


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"PULocationID": [74, 132, -1]}, "element 2: PULocationID is -1; it must be a TLC taxi"),
        ({"DOLocationID": [266, 1, 1]}, "element 0: DOLocationID is 266; it must be a TLC taxi"),
        ({"DOLocationID": [1, 1.5, 1]}, "element 1: DOLocationID is 1.5; it must be a TLC taxi"),
        ({"DOLocationID": [1, None, 1]}, "element 1: DOLocationID is null; it must be"),
        ({"PULocationID": ["74"] * 3}, 'element 0: PULocationID is "74"; it must be'),
        ({"PULocationID": [True] * 3}, "element 0: PULocationID is true; it must be"),
        ({"trip_distance": [1, 2, -0.5]}, "element 2: trip_distance is -0.5; it must be miles"),
        ({"trip_distance": [1, np.inf, 1]}, "element 1: trip_distance is Infinity; it must be"),
        ({"trip_distance": [[1], [1], [1]]}, "element 0: trip_distance is an array of 1; it must"),
        ({"PULocationID": [b"74"] * 3}, "element 0: PULocationID is \"b'74'\"; it must be"),
        ({"trip_distance": [datetime(2021, 2, 15).time()] * 3}, 'element 0: trip_distance is "0'),
        ({"pickup_datetime": pd.to_timedelta([1, 2, 3])}, "element 0: pickup_datetime is "),
        ({"pickup_datetime": ["soon"] * 3}, 'element 0: pickup_datetime is "soon"; it must be'),
        ({"pickup_datetime": pd.to_datetime(["1999-12-31"] * 3)},
         'element 0: pickup_datetime is "1999-12-31T00:00:00"; it must be'),
        ({"trip_miles": [1, 2, 3]}, "trip_distance comes 2 times, as 'trip_distance' and "),
        ({"lpep_pickup_datetime": TIMES}, "pickup_datetime comes 2 times, as "),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_refused_is_refused_in_the_words_of_the_service(check, columns, words):
    error = check(frame_of(**columns))
    assert isinstance(error, str)
    assert words in error


@pytest.mark.parametrize("rows", [0, 3])
def test_columns_are_checked_before_rows(check, rows):
    frame = frame_of().rename(columns={"PULocationID": "PULocation"})[:rows]
    assert "missing inputs ['PULocationID']" in check(frame)
    assert len(check(frame_of()[:0])) == 0


def test_a_champion_refuses_what_it_refused_nobody_before(champion):
    from mlflow.exceptions import MlflowException

    for zone in (-1, 0, 266):
        with pytest.raises(MlflowException, match=f"DOLocationID is {zone}; it must be"):
            champion.predict(frame_of(DOLocationID=[1, zone, 1]))
    whole = champion.predict(frame_of(trip_distance=[3, 2, 1]))
    assert whole["used_distance"].all()


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
    expected = own.answer(Rides.from_dicts(RIDES))
    by_column = pd.DataFrame(RIDES).astype(object).where(lambda frame: frame.notna(), None)
    for content in (
        {"dataframe_records": RIDES},
        {"dataframe_split": by_column.to_dict("split")},
        {"inputs": RIDES},
        {"inputs": by_column.to_dict("list")},
    ):
        request = urllib.request.Request(
            f"{served}/invocations",
            data=json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answers = json.load(response)["predictions"]
        minutes = [answer["duration"] for answer in answers]
        assert minutes == pytest.approx(expected.duration.tolist(), rel=1e-6)
        assert [answer["support"] for answer in answers] == expected.support.tolist()
