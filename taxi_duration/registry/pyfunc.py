"""The registered model as MLflow loads it: a pyfunc from code around our own bundle.

MLflow runs this file (`models from code`), so nothing but the checked bundle is unpickled.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec

from taxi_duration import environment
from taxi_duration.domain.rides import Rides
from taxi_duration.model.bundle import load_bundle

OUTPUTS = ("duration", "p10", "p50", "p90", "support", "used_distance")


class TaxiDurationModel(PythonModel):
    """Answers a frame of rides with the columns of `OUTPUTS`; minutes."""

    def load_context(self, context: Any) -> None:
        """Load the bundle, digest and classes checked."""
        self.model, self.card = load_bundle(context.artifacts["bundle"], environment.signing_key())

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return one row per ride.

        Args:
            context: MLflow's.
            model_input: `PULocationID`, `DOLocationID`; optional `trip_distance` (miles) and
                `pickup_datetime` (ISO text, New York local; now when missing).
            params: unused.
        """
        rows = model_input.astype(object).where(model_input.notna(), None)
        answers = self.model.answer(Rides.from_dicts(rows.to_dict("records")))
        return pd.DataFrame({name: getattr(answers, name) for name in OUTPUTS})


def signature() -> ModelSignature:
    """What goes in and out, with units in the names the service uses."""
    outputs: list[ColSpec | TensorSpec] = [ColSpec("float", name) for name in OUTPUTS[:4]]
    outputs += [ColSpec("integer", "support"), ColSpec("boolean", "used_distance")]
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("long", "PULocationID"),
                ColSpec("long", "DOLocationID"),
                ColSpec("double", "trip_distance", required=False),
                ColSpec("string", "pickup_datetime", required=False),
            ]
        ),
        outputs=Schema(outputs),
    )


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
