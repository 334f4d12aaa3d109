"""What one turn of the loop does to the world: months, chain, registry, log and deployment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from taxi_duration import environment
from taxi_duration.chain.chain import run_chain
from taxi_duration.chain.release import mirror_aliases
from taxi_duration.chain.run import load_run, new_run
from taxi_duration.chain.run_settings import RunSettings
from taxi_duration.data.prepared import concat_trips, prepare_months
from taxi_duration.data.sources import fetch_month, fetch_months
from taxi_duration.domain.months import Month, parse_months
from taxi_duration.domain.references import name_of
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import (
    MonthNotPublishedError,
    PipelineError,
)
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.gate import Decision, check_unseen, compare_models
from taxi_duration.evaluation.health import Health, draws_for
from taxi_duration.live.prediction_log import PredictionLog, open_log
from taxi_duration.loop.monitor import (
    check_live,
    check_month,
    load_version,
    log_frame,
    recent_rides,
    write_verdict,
)
from taxi_duration.model.bundle import load_card
from taxi_duration.registry import tracking
from taxi_duration.training.baselines import fit_baselines


class PipelineWorkshop:
    """The real `Workshop`: the same chain, registry and log that everything else uses."""

    def __init__(self, notebooks: Sequence[str], say: Callable[[str], None]) -> None:
        self._notebooks = notebooks
        self._say = say

    @cached_property
    def client(self) -> Any:
        """MlflowClient on the configured store."""
        return tracking.connect()

    @cached_property
    def prediction_log(self) -> PredictionLog:
        """The service's log."""
        return open_log()

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    # --- months -------------------------------------------------------------------------

    def months_of(self, entry: dict[str, Any]) -> list[Month]:
        """Months that a version was trained and validated on."""
        card = load_card(self._folder(entry), environment.signing_key(), name_of(entry))
        return parse_months(f"{card['train_data']},{card['val_data']}")

    def is_published(self, entry: dict[str, Any], month: Month) -> bool:
        """Whether a month of the same source can be had; it is in data/raw then.

        A version that learned from real trips is never followed by one from the sample.

        Raises:
            SourceUnreachableError, SourceError: the source does not say.
        """
        today = datetime.now(UTC)
        if (today.year, today.month) <= month:
            return False
        service = entry["name"].removesuffix("-duration")
        try:
            if entry["data_source"] == "sample":
                fetch_months(service, [month])
            else:
                fetch_month(service, month)
        except MonthNotPublishedError:
            return False
        return True

    def month_health(self, entry: dict[str, Any], month: Month) -> Health:
        """How the version does on a published month."""
        return check_month(entry, month)

    # --- the live log -------------------------------------------------------------------

    def live_health(self, entry: dict[str, Any]) -> Health:
        """How the version does on the log since it serves; kept for the service's pages."""
        health = check_live(entry, self.prediction_log)
        write_verdict(health)
        return health

    def arm_health(self, entry: dict[str, Any]) -> Health:
        """How a challenger does on the rides that it answered."""
        return check_live(entry, self.prediction_log)

    def live_rows(self, since: float) -> pd.DataFrame:
        """Rides of the log with their truth."""
        return log_frame(self.prediction_log.answered(since=since))

    def compare_live(self, entry: dict[str, Any], earlier: dict[str, Any]) -> tuple[Estimate, int]:
        """Let the earlier version answer again what this one answered in the last days."""
        frame = recent_rides(entry, self.prediction_log)
        frame = frame[frame["true_duration"].notna()]
        model, _ = load_version(earlier)
        true = frame["true_duration"].to_numpy()
        theirs = np.abs(model.answer(Rides.from_frame(frame)).duration - true)
        gain = np.abs(frame["duration"].to_numpy() - true) - theirs
        return draws_for(frame["pickup_at"].to_numpy()).mean(gain), len(frame)

    # --- a challenger -------------------------------------------------------------------

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> dict[str, Any]:
        """Run the chain, or go on with it where it stopped.

        Raises:
            TrackingError: MLflow's store is not there to take a run.
            TaxiError: the chain failed, or its model was not good enough to be registered.
        """
        with tracking.needed():
            tracking.experiment_id(self.client)
        run = new_run(settings) if run_id is None else load_run(run_id)
        remember(run.run_id)
        run_chain(run, self._notebooks, self._say)
        released = run.read().get("model")
        if released is None:
            raise PipelineError(f"run {run.run_id} registered no model")
        card = load_card(self._folder(released), environment.signing_key(), name_of(released))
        return {key: card[key] for key in ("name", "version", "model_sha256", "data_source")}

    def gate(self, champion: dict[str, Any], challenger: dict[str, Any], month: Month) -> Decision:
        """Judge on a month that neither was trained on; the numbers go to the registry."""
        (ours, our_card), (theirs, their_card) = map(load_version, (challenger, champion))
        check_unseen(str(month), our_card, their_card)
        train, trips = (
            concat_trips(prepare_months(our_card["service"], months, mode=our_card["data_source"]))
            for months in (parse_months(our_card["train_data"]), [month])
        )
        lookups = fit_baselines(Rides.from_frame(train), train["duration"].to_numpy())
        rides, actual = Rides.from_frame(trips), trips["duration"].to_numpy()
        decision = compare_models(theirs, ours, lookups, rides, actual)
        name, version = challenger["name"], str(challenger["version"])
        with tracking.needed():
            for tag, value in decision.as_tags().items():
                self.client.set_model_version_tag(name, version, tag, value)
        return decision

    def check_bundle(self, entry: dict[str, Any]) -> None:
        """Load the version as the service would.

        Raises:
            BundleError: it is not usable.
        """
        load_version(entry)

    # --- saying so ----------------------------------------------------------------------

    def mirror(self) -> None:
        """Make the registry's aliases say what deployment.json says."""
        with tracking.needed():
            mirror_aliases(self.client)

    def log(self, line: dict[str, Any], model: dict[str, Any] | None) -> None:
        """Keep a decision in MLflow, once however often it is told."""
        with tracking.needed():
            tracking.log_decision(self.client, line, model and (model["name"], model["version"]))

    @staticmethod
    def _folder(entry: dict[str, Any]):
        return environment.models_dir() / entry["name"] / str(entry["version"])


class Workshop(Protocol):
    """What the loop can do to the world; `PipelineWorkshop` is the real one."""

    def now(self) -> float:
        """Unix seconds."""

    def months_of(self, entry: dict[str, Any]) -> list[Month]:
        """Months that a version was trained and validated on."""

    def is_published(self, entry: dict[str, Any], month: Month) -> bool:
        """Whether a month of the entry's service can be had."""

    def month_health(self, entry: dict[str, Any], month: Month) -> Health:
        """How the version does on a published month."""

    def live_health(self, entry: dict[str, Any]) -> Health:
        """How the version does on the prediction log since it serves."""

    def compare_live(self, entry: dict[str, Any], earlier: dict[str, Any]) -> tuple[Estimate, int]:
        """By how many minutes an earlier version would have been nearer, and on how many rides."""

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> dict[str, Any]:
        """Run the chain, or go on with it, and return the registered version's entry."""

    def gate(self, champion: dict[str, Any], challenger: dict[str, Any], month: Month) -> Decision:
        """Judge the challenger on a month neither has seen; tag the version."""

    def live_rows(self, since: float) -> pd.DataFrame:
        """Rides of the prediction log with their truth, as `monitor.log_frame`."""

    def check_bundle(self, entry: dict[str, Any]) -> None:
        """Load the version as the service would; a BundleError when it is not usable."""

    def mirror(self) -> None:
        """Make the registry's aliases say what deployment.json says; raises TrackingError."""

    def log(self, line: dict[str, Any], model: dict[str, Any] | None) -> None:
        """Keep a decision in MLflow, once however often it is told; raises TrackingError."""
