"""The models in service: new ones are loaded beside the old, warmed up, then swapped atomically."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.core.bundle_reading import (
    Loaded,
    Signature,
    bundle_signatures,
    deployment_signature,
    load_warm,
    read_deployed,
    version_of,
    warm,
)
from serve.core.instruments import ArmMetrics, Instruments
from serve.core.memory import give_back_memory
from serve.core.patience import OvertakenError, Patience
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, DeploymentError, NotFoundError
from taxi_duration.live.deployment import DEPLOYMENT_FILE, Deployment
from taxi_duration.live.refusals import note_refusal, note_served
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.ride_predictor import RidePredictor

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
# A refused deployment is tried again as soon as one of its files changes. A disk error shows no
# change: it is tried again after so long, then after twice as long, up to the maximum.
RETRY_SECONDS = 5.0
MOST_RETRY_SECONDS = 60.0
SILENT_SECONDS = 5.0  # since the last look: the watcher looks ten times in so long
STOP_SECONDS = 1.0  # to wait for the watcher, which a disk may block

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
    """The models in service and their shares; immutable, replaced as a whole."""

    champion: LoadedModel
    challenger: LoadedModel | None = None
    ab_share: float = 0.0
    shadow: bool = False
    baking: bool = False


class ModelHolder:
    """Holds the models in service and follows the deployment.

    Args:
        instruments: counts reloads and refusals.
        model: a fixed model and its card; None to follow deployment.json.
    """

    def __init__(
        self, instruments: Instruments, model: tuple[DurationModel, dict[str, Any]] | None = None
    ) -> None:
        self._instruments = instruments
        self._fixed = model is not None
        self._seen: Signature = None
        self._named: list[Path] = []  # folders of the bundles that were read
        self._bundles_seen: list[Signature] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked_at = time.monotonic()
        self._patience = Patience(self._is_overtaken, self._stop)
        self._problem: str | None = None
        self.serving: Serving | None = None
        if model is not None:
            self.serving = Serving(self._in_arm(warm(*model), "champion"))
        else:
            self.refresh()

    @property
    def problem(self) -> str | None:
        """Why the deployment is not served, or that it cannot be read; None when it is served."""
        silent = time.monotonic() - self._looked_at
        if self._thread is not None and silent > SILENT_SECONDS:
            return f"{DEPLOYMENT_FILE} could not be looked at for {silent:.0f} s"
        return self._problem

    def start(self) -> None:
        """Look now, since a forked worker has its parent's models, and then twice a second."""
        if self._fixed or self._thread is not None:
            return
        self._patience = Patience(self._is_overtaken, self._stop)  # a fork has no threads
        self.refresh()
        self._looked_at = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch")
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            self._thread = None

    def refresh(self) -> None:
        """Serve what is deployed now; if it cannot be served, the old models go on."""
        while not self._stop.is_set():
            seen = deployment_signature()
            if self._seen == seen and self._problem is None and self.serving is not None:
                return
            self._seen = seen
            try:
                self._take()
                return
            except OvertakenError:
                continue  # something newer is deployed
            finally:
                give_back_memory()

    # --- one deployment -----------------------------------------------------------------

    def _take(self) -> None:
        """Read and serve the deployment, once.

        Raises:
            OvertakenError: something newer was deployed meanwhile.
        """
        problems: list[str] = []
        self._named, self._bundles_seen = [], []
        try:
            deployment, folder = self._patience.call(DEPLOYMENT_FILE, read_deployed)
            if deployment is None:
                if self.serving is None:
                    self._problem = None
                    return
                raise NotFoundError(f"{DEPLOYMENT_FILE} is gone")
            champion = self._champion(deployment, folder, problems)
            if champion is not None:
                challenger = self._challenger(deployment, problems)
                if not problems:  # first: who is answered by the new one finds no old trouble
                    self._problem = None
                self._swap(champion, challenger, deployment)
        except (BundleError, DeploymentError, NotFoundError) as error:
            problems.append(str(error))
        if problems:
            self._refuse("; ".join(problems))
        else:
            self._note(note_served)

    def _champion(
        self, deployment: Deployment, folder: Path | None, problems: list[str]
    ) -> LoadedModel | None:
        """Load the deployed champion; at the first start an earlier one if it is refused."""
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
        """Load and warm a bundle, unless it is in service.

        Args:
            folder: of a bundle outside the usual place.
        Raises:
            BundleError: the bundle is not valid.
        """
        for one in served(self.serving):
            if (one.sha256, one.version) == (version.sha256, version.ref):
                return self._in_arm(Loaded(one.model, one.card, one.predictor), arm)
        folder = folder or version.folder
        self._named.append(folder)
        # Before it is read, so that changes during reading are noticed.
        self._bundles_seen += self._patience.call((folder, "times"), bundle_signatures, [folder])
        return self._in_arm(self._patience.call(folder, load_warm, version, folder), arm)

    def _in_arm(self, loaded: Loaded, arm: str) -> LoadedModel:
        version = version_of(loaded.card)
        metrics = self._instruments.arm(version.ref, arm)
        model, card, predictor = loaded
        return LoadedModel(version.ref, version.sha256, card, model, predictor, arm, metrics)

    def _swap(
        self, champion: LoadedModel, challenger: LoadedModel | None, deployment: Deployment
    ) -> None:
        share = deployment.ab_share if challenger else 0.0
        shadow = deployment.shadow and challenger is not None
        before = self.serving
        self.serving = Serving(champion, challenger, share, shadow, deployment.is_baking)
        names = [(m.version, m.sha256) for m in served(self.serving)]
        if before is None or names != [(m.version, m.sha256) for m in served(before)]:
            self._instruments.reloads.inc()
            logger.info("serving %s", " and ".join(m.version for m in served(self.serving)))

    def _refuse(self, problem: str) -> None:
        is_new, self._problem = problem != self._problem, problem
        if is_new:  # logged once, not at each look
            self._instruments.reload_failures.inc()
            logger.error("%s; %s", problem, "what serves goes on" if self.serving else "no model")
            self._note(note_refusal, problem)

    def _note(self, note: Callable[..., None], *arguments: str) -> None:
        try:
            self._patience.call("note", note, *arguments)
        except (BundleError, OvertakenError) as error:
            logger.warning("the loop gets no note of this: %s", error)

    # --- watching -----------------------------------------------------------------------

    def _watch(self) -> None:
        tried, pause = time.monotonic(), RETRY_SECONDS
        while not self._stop.wait(WATCH_SECONDS):
            is_new = self._is_overtaken() or self._has_changed()
            is_due = time.monotonic() >= tried + pause
            if is_new or (is_due and (self._problem or self.serving is None)):
                pause = RETRY_SECONDS if is_new else min(2 * pause, MOST_RETRY_SECONDS)
                self._look()
                tried = time.monotonic()

    def _look(self) -> None:
        """Refresh, whatever goes wrong: a dead watcher would never swap again."""
        try:
            self.refresh()
        except Exception as error:
            logger.exception("the deployment could not be looked at")
            self._refuse(f"the deployment could not be looked at: {error!r}")

    def _is_overtaken(self) -> bool:
        changed = deployment_signature() != self._seen
        self._looked_at = time.monotonic()
        return changed

    def _has_changed(self) -> bool:
        """Return whether a file of a refused bundle has changed since it was read."""
        if self._problem is None:
            return False
        try:
            now = self._patience.call("times", bundle_signatures, self._named)
        except (BundleError, OvertakenError):
            return False
        return now != self._bundles_seen


def served(serving: Serving | None) -> list[LoadedModel]:
    """Return the models in service: the champion, then the challenger if there is one."""
    models = [serving.champion, serving.challenger] if serving else []
    return [model for model in models if model is not None]
