"""Reads deployment.json and the bundles that it names, and warms the models up."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from taxi_duration import environment
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, NotFoundError
from taxi_duration.live.deployment import DEPLOYMENT_FILE, Deployment, read_deployment
from taxi_duration.model.bundle import CARD_FILE, MODEL_FILE, load_bundle, load_card, reference_of
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.made_with import ANSWERING, other_versions
from taxi_duration.model.ride_predictor import RidePredictor

logger = logging.getLogger(__name__)

Signature = tuple[int, ...] | None


class Loaded(NamedTuple):
    """A loaded bundle whose model was tried."""

    model: DurationModel
    card: dict[str, Any]
    predictor: RidePredictor


def read_deployed() -> tuple[Deployment | None, Path | None]:
    """Return the deployment, and the folder of a bundle that lies outside the usual place.

    Raises:
        DeploymentError, BundleError, NotFoundError: it cannot be read, or is not unique.
    """
    deployment = read_deployment()
    if deployment is not None:
        return deployment, None
    folder = _only_bundle()
    if folder is None:
        return None, None
    alone = folder == environment.models_dir()  # given as MODELS_DIR itself
    card = load_card(folder, expected=None if alone else reference_of(folder))
    return Deployment(version_of(card)), folder


def load_warm(version: Version, folder: Path) -> Loaded:
    """Load a bundle and let its model answer a few rides.

    Raises:
        BundleError: the bundle or its answers are not valid.
        OSError: it cannot be read.
    """
    expected = version.ref if version.name else None
    try:
        model, card = load_bundle(folder, environment.signing_key(), expected)
    except (BundleError, OSError):
        raise
    except Exception as error:  # an unforeseen error must not end the watching thread
        raise BundleError(f"it cannot be loaded: {error!r}") from error
    if card["model_sha256"] != version.sha256:
        raise BundleError(
            f"its SHA-256 is {card['model_sha256'][:12]}…, deployed is {version.sha256[:12]}…"
        )
    if others := other_versions(card["libraries"], ANSWERING):
        logger.warning("%s: %s", version.ref, others)
    return warm(model, card)


def warm(model: DurationModel, card: dict[str, Any]) -> Loaded:
    """Let the model answer a few rides, single and as arrays, which fills its caches.

    Raises:
        BundleError: it fails, or an answer is not finite: it must not serve.
    """
    at = datetime(2021, 2, 15, 8, 30)
    try:
        model = model.for_riders()
        predictor = RidePredictor(model)
        for question in ((74, 75, at, 1.5), (10, 50, at, 40.0), (132, 230, at, None)):
            answer = predictor.answer(*question)
            if not all(map(math.isfinite, answer)):
                raise ValueError(f"{question} is answered with {answer}")
        model.answer(
            Rides(
                np.array([74, 132], "int16"),
                np.array([75, 230], "int16"),
                np.array([at, at], "datetime64[s]"),
                np.array([1.5, np.nan], "float32"),
            )
        )
    except Exception as error:
        raise BundleError(f"it does not answer: {error!r}") from error
    return Loaded(model, card, predictor)


def version_of(card: dict[str, Any]) -> Version:
    """Return the version of a card; defaults for a model that was never registered."""
    return Version(
        card.get("name", "model"),
        card.get("version", 0),
        card.get("model_sha256", ""),
        card.get("data_source", ""),
    )


def deployment_signature() -> Signature:
    """Return what changes when deployment.json does (times, inode, size); None without one."""
    return _signature(environment.deployment_dir() / DEPLOYMENT_FILE)


def bundle_signatures(folders: Iterable[Path]) -> list[Signature]:
    """Return what changes when files of the bundles do, one entry per file."""
    return [_signature(folder / name) for folder in folders for name in (CARD_FILE, MODEL_FILE)]


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size, status.st_mode


def _only_bundle() -> Path | None:
    """Return the folder of the only bundle in the models' folder; None when there is none.

    So an image with a baked-in model, or one mounted bundle, needs no deployment.json.

    Raises:
        NotFoundError: there are several bundles.
    """
    root = environment.models_dir()
    cards = [*root.glob(CARD_FILE), *root.glob(f"*/*/{CARD_FILE}")]
    if len(cards) > 1:
        raise NotFoundError(
            f"{len(cards)} models in {root.name}/ and no {DEPLOYMENT_FILE} that says which serves; "
            "`python pipeline.py promote NAME:VERSION` writes one"
        )
    return cards[0].parent if cards else None
