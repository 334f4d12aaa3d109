"""The registered model as MLflow loads it: a pyfunc from code around our own bundle.

MLflow runs this file (`models from code`), so nothing but the checked bundle is unpickled.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from taxi_duration import environment
from taxi_duration.domain.asked_rides import NEEDED, check_table
from taxi_duration.domain.refused_values import RefusedError
from taxi_duration.domain.ride_columns import SYNONYMS
from taxi_duration.model.bundle import load_bundle

OUTPUTS = ("duration", "p10", "p50", "p90", "support", "used_distance")
OURS = ("trip_distance", "pickup_datetime")
OPTIONAL = (*OURS, *(name for field in OURS for name in SYNONYMS[field] if name not in OURS))


class TaxiDurationModel(PythonModel):
    """Answers a frame of rides with the columns of `OUTPUTS`; minutes."""

    def load_context(self, context: Any) -> None:
        """Load the bundle, after all of its checks."""
        model, self.card = load_bundle(context.artifacts["bundle"], environment.signing_key())
        self.model = model.for_riders()

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return one row per ride.

        Args:
            context: MLflow's.
            model_input: `PULocationID`, `DOLocationID`; optional `trip_distance` (miles) and
                `pickup_datetime` (a timestamp or ISO text, New York local unless it has a zone;
                now when missing), the latter two also under the names that TLC uses.
            params: unused.
        Raises:
            MlflowException: a value is refused, in the words of the service.
        """
        columns = [[_plain(value) for value in column] for _, column in model_input.items()]
        try:
            rides = check_table(list(map(str, model_input)), zip(*columns, strict=True))
        except RefusedError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        answers = self.model.answer(rides.columns)
        return pd.DataFrame({name: getattr(answers, name) for name in OUTPUTS})


def _plain(value: Any) -> Any:
    """A value of a frame as JSON has it: null is None, times are ISO text."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, date):  # a datetime, and a pandas Timestamp, is one too
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def signature() -> ModelSignature:
    """What goes in and out, with units in the names the service uses.

    Of any type: MLflow would refuse a whole distance, a zone that came as float beside a missing
    one, or a time that is a timestamp, and leave out columns that are not named. `predict` checks.
    """
    outputs: list[ColSpec | TensorSpec] = [ColSpec("float", name) for name in OUTPUTS[:4]]
    outputs += [ColSpec("integer", "support"), ColSpec("boolean", "used_distance")]
    inputs: list[ColSpec | TensorSpec] = [ColSpec(AnyType(), name) for name in NEEDED]
    inputs += [ColSpec(AnyType(), name, required=False) for name in OPTIONAL]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def input_example() -> pd.DataFrame:
    """One ride as MLflow shows it, the course's own."""
    return pd.DataFrame(
        {
            "PULocationID": [10],
            "DOLocationID": [50],
            "trip_distance": [40.0],
            "pickup_datetime": ["2021-02-15T08:30:00"],
        }
    )


def requirements() -> list[str]:
    """The few packages that answering takes, pinned to what is installed."""
    needed = ("mlflow", "numpy", "pandas", "msgspec", "cloudpickle")
    return [f"{name}=={version(name)}" for name in needed]


set_model(TaxiDurationModel())
