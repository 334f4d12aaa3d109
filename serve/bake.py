"""Put a bundle into the image while it is built: `python -m serve.bake MODEL CONTEXT TARGET`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from taxi_duration.domain.references import parse_reference
from taxi_duration.errors import NotFoundError, SettingError, TaxiError
from taxi_duration.live.deployment import read_deployment
from taxi_duration.model.bundle import CARD_FILE, MODEL_FILE, load_bundle


def bake(model: str, context: Path, target: Path) -> str:
    """Check the chosen bundle, copy it, and return a sentence on what was done.

    Args:
        model: `champion` (of deployment.json, when there is one), `NAME:VERSION` or `none`.
        context: build context; may hold models/ and deployment/.
        target: the image's folder of models.
    Raises:
        TaxiError: the model does not exist or is damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    deployment = read_deployment(context / "deployment") if model == "champion" else None
    if model == "none" or (model == "champion" and deployment is None):
        return "no model is baked in; mount one at /models"
    if deployment is not None:
        name, version = deployment.champion.name, str(deployment.champion.number)
    else:
        reference = parse_reference(model)
        if reference.version is None:
            raise SettingError(f"{model!r} cannot be baked in; write champion or NAME:VERSION")
        name, version = reference.name, reference.version
    source = context / "models" / name / version
    if not source.is_dir():
        raise NotFoundError(f"{name}:{version} is not in models/")
    load_bundle(source, expected=f"{name}:{version}")
    folder = target / name / version
    folder.mkdir(parents=True, exist_ok=True)
    for file in (MODEL_FILE, CARD_FILE):
        shutil.copy(source / file, folder / file)
    return f"{name}:{version} is baked in"


if __name__ == "__main__":
    try:
        print(bake(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
    except TaxiError as error:
        sys.exit(f"error: {error}")
