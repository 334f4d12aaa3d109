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
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, DeploymentError, NotFoundError
from taxi_duration.live.deployment import DEPLOYMENT_FILE, Deployment, read_deployment
from taxi_duration.live.refusals import note_refusal, note_served
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
    baking: bool = False


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
        self.problem: str | None = None
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
        if self._seen == seen and self.problem is None and self.serving is not None:
            return
        self._seen = seen
        problems: list[str] = []
        try:
            deployment, folder = read_deployment(), None
            if deployment is None:
                folder = _only_bundle()
                if folder is None:
                    return
                alone = folder == environment.models_dir()  # given as MODELS_DIR itself
                expected = None if alone else reference_of(folder)
                deployment = Deployment(_version_of(load_card(folder, expected=expected)))
            champion = self._champion(deployment, folder, problems)
            if champion is not None:
                challenger = self._challenger(deployment, problems)
                self._swap(champion, challenger, deployment)
        except (BundleError, DeploymentError, NotFoundError) as error:
            problems.append(str(error))
        if problems:
            self._refuse("; ".join(problems))
        else:
            self.problem = None
            note_served()

    # --- one deployment -----------------------------------------------------------------

    def _champion(
        self, deployment: Deployment, folder: Path | None, problems: list[str]
    ) -> LoadedModel | None:
        """The deployed champion. With nothing in service yet, the one before it will do."""
        candidates = [deployment.champion]
        if self.serving is None:
            candidates += reversed(deployment.earlier)
        for version in candidates:
            try:
                return self._load(version, "champion", folder)
            except BundleError as error:
                problems.append(f"{version.ref} is refused: {error}")
        return None

    def _challenger(self, deployment: Deployment, problems: list[str]) -> LoadedModel | None:
        version = deployment.challenger
        if version is None:
            return None
        try:
            return self._load(version, "challenger")
        except BundleError as error:
            problems.append(f"challenger {version.ref} is refused: {error}")
            return None

    def _load(self, version: Version, arm: str, folder: Path | None = None) -> LoadedModel:
        """Load and warm a bundle, or take it from what is in service.

        Args:
            folder: of a bundle that lies somewhere else than versions do.
        Raises:
            BundleError: says what is wrong with it.
        """
        for loaded in _models(self.serving):
            if (loaded.sha256, loaded.version) == (version.sha256, version.ref):
                return self._ready(loaded.model, loaded.card, arm, loaded.predictor)
        expected = version.ref if version.name else None
        model, card = load_bundle(folder or version.folder, environment.signing_key(), expected)
        if card["model_sha256"] != version.sha256:
            raise BundleError(
                f"its SHA-256 is {card['model_sha256'][:12]}…, deployed is {version.sha256[:12]}…"
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
        version = _version_of(card)
        metrics = self._instruments.arm(version.ref, arm)
        return LoadedModel(version.ref, version.sha256, card, model, predictor, arm, metrics)

    def _swap(
        self, champion: LoadedModel, challenger: LoadedModel | None, deployment: Deployment
    ) -> None:
        share = deployment.ab_share if challenger else 0.0
        shadow = deployment.shadow and challenger is not None
        before = self.serving
        self.serving = Serving(champion, challenger, share, shadow, deployment.is_baking)
        names = [(m.version, m.sha256) for m in _models(self.serving)]
        if before is None or names != [(m.version, m.sha256) for m in _models(before)]:
            self._instruments.reloads.inc()
            logger.info("serving %s", " and ".join(m.version for m in _models(self.serving)))

    def _refuse(self, problem: str) -> None:
        if problem != self.problem:  # logged once, not at every look
            note_refusal(problem)
            self._instruments.reload_failures.inc()
            logger.error("%s; %s", problem, "what serves goes on" if self.serving else "no model")
        self.problem = problem

    def _watch(self) -> None:
        waited = 0.0
        while not self._stop.wait(WATCH_SECONDS):
            waited += WATCH_SECONDS
            changed = _signature(environment.deployment_dir() / DEPLOYMENT_FILE) != self._seen
            if changed or (waited >= RETRY_SECONDS and (self.problem or self.serving is None)):
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


def _version_of(card: dict[str, Any]) -> Version:
    """What a card says; a model that was never registered has no name and no number."""
    return Version(
        card.get("name", "model"),
        card.get("version", 0),
        card.get("model_sha256", ""),
        card.get("data_source", ""),
    )


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _only_bundle() -> Path | None:
    """The folder of the one bundle in the models' folder; None when there is none.

    So an image with a model baked in, or a single bundle mounted, serves it without a
    deployment.json: there is nothing to choose.

    Raises:
        NotFoundError: there are several and nothing says which.
    """
    root = environment.models_dir()
    cards = [*root.glob(CARD_FILE), *root.glob(f"*/*/{CARD_FILE}")]
    if len(cards) > 1:
        raise NotFoundError(
            f"{len(cards)} models in {root.name}/ and no {DEPLOYMENT_FILE} that says which serves; "
            "`python pipeline.py promote NAME:VERSION` writes one"
        )
    return cards[0].parent if cards else None


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
