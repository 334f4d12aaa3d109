"""Put a bundle into the image while it is built: `python -m serve.bake MODEL CONTEXT TARGET`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from taxi_duration.domain.references import parse_reference
from taxi_duration.errors import NotFoundError, SettingError, TaxiError
from taxi_duration.live.deployment import DEPLOYMENT_FILE
from taxi_duration.model.bundle import CARD_FILE, MODEL_FILE, load_bundle


def bake(model: str, context: Path, target: Path) -> str:
    """Copy the chosen bundle, digest checked, and return what was done.

    Args:
        model: `champion` (of deployment.json, when there is one), `NAME:VERSION` or `none`.
        context: holds models/ and deployment/, or not.
        target: the image's folder of models.
    Raises:
        TaxiError: the model does not exist or is damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    deployment = context / "deployment" / DEPLOYMENT_FILE
    if model == "none" or (model == "champion" and not deployment.exists()):
        return "no model is baked in; mount one at /models"
    if model == "champion":
        entry = json.loads(deployment.read_text())["champion"]
        name, version = entry["name"], str(entry["version"])
    else:
        name, version = parse_reference(model)[:2]
        if version is None:
            raise SettingError(f"{model!r} cannot be baked in; write champion or NAME:VERSION")
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
