"""The models in service: loaded beside the old ones, warmed, then swapped in one step."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from serve.core.instruments import ArmMetrics, Instruments
from taxi_duration import environment
from taxi_duration.domain.references import name_of
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import BundleError, DeploymentError, NotFoundError
from taxi_duration.live.deployment import DEPLOYMENT_FILE, read_deployment
from taxi_duration.model.bundle import CARD_FILE, load_bundle, load_card, reference_of
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.ride_predictor import RidePredictor

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
RETRY_SECONDS = 5.0  # a refused deployment is tried again: its files may arrive after its name

HOW_TO_DEPLOY = (
    "no model is deployed yet: `make run` (or `python pipeline.py`) trains, registers and "
    "deploys the first one; `python pipeline.py promote NAME:VERSION` deploys a registered one"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer in one arm."""

    version: str  # name:version
    sha256: str
    card: dict[str, Any]
    model: DurationModel
    predictor: RidePredictor
    arm: str
    metrics: ArmMetrics


@dataclass(frozen=True)
class Serving:
    """Who answers; never changed, only replaced as a whole."""

    champion: LoadedModel
    challenger: LoadedModel | None = None
    ab_share: float = 0.0
    shadow: bool = False


class ModelHolder:
    """Keeps what is served equal to what is deployed.

    Args:
        instruments: counts reloads and refusals.
        model: a model and its card to serve whatever is deployed; None to follow
            deployment.json.
    """

    def __init__(
        self, instruments: Instruments, model: tuple[DurationModel, dict[str, Any]] | None = None
    ) -> None:
        self._instruments = instruments
        self._fixed = model is not None
        self._seen: tuple[int, ...] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.serving: Serving | None = None
        self.trouble: str | None = None
        if model is not None:
            self.serving = Serving(self._ready(*model, arm="champion"))
        else:
            self.refresh()

    def start(self) -> None:
        """Look again now (a forked worker has its parent's model) and then twice a second."""
        if self._fixed or self._thread is not None:
            return
        self.refresh()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch")
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def refresh(self) -> None:
        """Serve what is deployed now; what cannot be served is refused and the old serves on."""
        seen = _signature(environment.deployment_dir() / DEPLOYMENT_FILE)
        if self._seen == seen and self.trouble is None and self.serving is not None:
            return
        self._seen = seen
        troubles: list[str] = []
        try:
            deployment = read_deployment() or _only_bundle()
            if deployment is None:
                return
            champion = self._champion(deployment, troubles)
            if champion is not None:
                challenger = self._challenger(deployment, troubles)
                self._swap(champion, challenger, deployment)
        except (BundleError, DeploymentError, NotFoundError) as error:
            troubles.append(str(error))
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
        ) as error:  # fmt: skip
            troubles.append(f"{DEPLOYMENT_FILE} cannot be read: {error!r}")
        if troubles:
            self._refuse("; ".join(troubles))
        else:
            self.trouble = None

    # --- one deployment -----------------------------------------------------------------

    def _champion(self, deployment: dict[str, Any], troubles: list[str]) -> LoadedModel | None:
        """The deployed champion. With nothing in service yet, the one before it will do."""
        candidates = [deployment["champion"]]
        if self.serving is None:
            candidates += reversed(deployment.get("earlier") or [])
        for entry in candidates:
            try:
                return self._load(entry, "champion")
            except BundleError as error:
                troubles.append(f"{name_of(entry)} is refused: {error}")
        return None

    def _challenger(self, deployment: dict[str, Any], troubles: list[str]) -> LoadedModel | None:
        entry = deployment.get("challenger")
        if entry is None:
            return None
        try:
            return self._load(entry, "challenger")
        except BundleError as error:
            troubles.append(f"challenger {name_of(entry)} is refused: {error}")
            return None

    def _load(self, entry: dict[str, Any], arm: str) -> LoadedModel:
        """Load and warm a bundle, or take it from what is in service.

        Raises:
            BundleError: says what is wrong with it.
        """
        for loaded in _models(self.serving):
            if loaded.sha256 == entry["model_sha256"] and loaded.version == name_of(entry):
                return self._ready(loaded.model, loaded.card, arm, loaded.predictor)
        folder = environment.models_dir() / str(entry["name"]) / str(entry["version"])
        expected = name_of(entry) if entry["name"] else None
        model, card = load_bundle(
            entry.get("folder") or folder, environment.signing_key(), expected
        )
        if card["model_sha256"] != entry["model_sha256"]:
            raise BundleError(
                f"its SHA-256 is {card['model_sha256'][:12]}…, "
                f"deployed is {str(entry['model_sha256'])[:12]}…"
            )
        return self._ready(model, card, arm)

    def _ready(
        self,
        model: DurationModel,
        card: dict[str, Any],
        arm: str,
        predictor: RidePredictor | None = None,
    ) -> LoadedModel:
        try:
            predictor = predictor or RidePredictor(model)
            _warm(model, predictor)
        except Exception as error:  # whatever a bundle does wrong, it must not get into service
            raise BundleError(f"it does not answer: {error!r}") from error
        version = name_of({"name": "model", "version": 0, **card})
        metrics = self._instruments.arm(version, arm)
        sha256 = card.get("model_sha256", "")
        return LoadedModel(version, sha256, card, model, predictor, arm, metrics)

    def _swap(
        self, champion: LoadedModel, challenger: LoadedModel | None, deployment: dict[str, Any]
    ) -> None:
        share = _share(deployment) if challenger else 0.0
        shadow = bool(deployment.get("shadow") and challenger)
        before = self.serving
        self.serving = Serving(champion, challenger, share, shadow)
        names = [(m.version, m.sha256) for m in _models(self.serving)]
        if before is None or names != [(m.version, m.sha256) for m in _models(before)]:
            self._instruments.reloads.inc()
            logger.info("serving %s", " and ".join(m.version for m in _models(self.serving)))

    def _refuse(self, trouble: str) -> None:
        if trouble != self.trouble:  # each trouble is told once, however often it is met
            self._instruments.reload_failures.inc()
            logger.error("%s; %s", trouble, "what serves goes on" if self.serving else "no model")
        self.trouble = trouble

    def _watch(self) -> None:
        waited = 0.0
        while not self._stop.wait(WATCH_SECONDS):
            waited += WATCH_SECONDS
            changed = _signature(environment.deployment_dir() / DEPLOYMENT_FILE) != self._seen
            if changed or (waited >= RETRY_SECONDS and (self.trouble or self.serving is None)):
                waited = 0.0
                self._look()

    def _look(self) -> None:
        """Refresh, and outlive whatever goes wrong: a dead watcher would never swap again."""
        try:
            self.refresh()
        except Exception:
            logger.exception("the deployment could not be looked at")
            self._instruments.reload_failures.inc()


def _models(serving: Serving | None) -> list[LoadedModel]:
    models = [serving.champion, serving.challenger] if serving else []
    return [model for model in models if model is not None]


def _share(deployment: dict[str, Any]) -> float:
    """The challenger's share of the rides.

    Raises:
        ValueError: no number from 0 to 1.
    """
    share = deployment.get("ab_share", 0.0)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ValueError(f"ab_share is {share!r}; it must be a number from 0 to 1")
    return share


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _only_bundle() -> dict[str, Any] | None:
    """A deployment of the one bundle in the models' folder; None when there is none.

    So an image with a model baked in, or a single bundle mounted, serves it without a
    deployment.json: there is nothing to choose.

    Raises:
        NotFoundError: there are several and nothing says which.
    """
    root = environment.models_dir()
    cards = [*root.glob(CARD_FILE), *root.glob(f"*/*/{CARD_FILE}")]
    if not cards:
        return None
    if len(cards) > 1:
        raise NotFoundError(
            f"{len(cards)} models in {root.name}/ and no {DEPLOYMENT_FILE} that says which serves; "
            "`python pipeline.py promote NAME:VERSION` writes one"
        )
    folder = cards[0].parent
    card = load_card(folder, expected=None if folder == root else reference_of(folder))
    names = ("name", "version", "model_sha256", "data_source")
    return {"champion": {**{n: card.get(n) for n in names}, "folder": folder}}


def _warm(model: DurationModel, predictor: RidePredictor) -> None:
    """Ask a few rides both ways, so that the first rider does not wait for caches.

    Raises:
        ValueError: an answer is not a number.
    """
    at = datetime(2021, 2, 15, 8, 30)
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
