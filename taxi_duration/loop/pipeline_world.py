"""The real world of the loop: the same chain, registry and log that everything else uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration import environment
from taxi_duration.chain.chain import run_chain
from taxi_duration.chain.refit import refit_version
from taxi_duration.chain.release import mirror_aliases
from taxi_duration.chain.run import Run, load_run, new_run
from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.sources import fetch_republished, newest_edition, published_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month, format_months, parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.errors import NotFoundError, PipelineError, SourceUnreachableError
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.gate import Decision, check_unseen, compare_models, fitted_months
from taxi_duration.evaluation.health import Health, draws_for, scored
from taxi_duration.live.prediction_log import PredictionLog, open_log
from taxi_duration.live.verdict import write_verdict
from taxi_duration.loop.monitor import (
    check_live,
    check_month,
    load_version,
    log_frame,
    make_verdict,
    recent_rides,
)
from taxi_duration.loop.world import Republished, World
from taxi_duration.model.bundle import load_card, reference_of
from taxi_duration.registry import tracking
from taxi_duration.registry.pull_bundle import restore_bundle
from taxi_duration.training.baselines import fit_baselines


class PipelineWorld(World):
    """`World` says what each method is for; here is how it is done for real.

    Args:
        notebooks: of the chain, in their order.
        say: prints a line of progress.
    """

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
        return time.time()

    # --- months -------------------------------------------------------------------------

    def months_of(self, version: Version) -> list[Month]:
        card = load_card(version.folder, environment.signing_key(), version.ref)
        return parse_months(f"{card['train_data']},{card['val_data']}")

    def find_published(self, version: Version, months: Iterable[Month]) -> Iterator[Month]:
        """A version that learned from real trips is never followed by one from the sample."""
        today = datetime.now(UTC)
        past = [month for month in months if month < (today.year, today.month)]
        generated, mode = version.data_source == "sample", environment.data_mode()
        if generated and mode == "sample":
            yield from past
            return
        try:
            yield from published_months(version.service, past)
        except SourceUnreachableError:
            if not generated or mode == "tlc":
                raise
            yield from past

    def fetch_republished(self, version: Version, months: Iterable[Month]) -> list[Republished]:
        if version.data_source == "sample":
            return []
        card = load_card(version.folder, environment.signing_key(), version.ref)
        lineage = [entry for role in card["months"].values() for entry in role]
        known = {entry["month"]: entry["sha256"] for entry in lineage}
        learned = fitted_months(card)
        found = []
        try:
            for month in months:
                stored = newest_edition(version.service, month)
                if stored is None:
                    continue
                anew = fetch_republished(stored) or stored
                before = known.get(str(month), stored.sha256)
                if before != anew.sha256:
                    found.append(Republished(month, before, anew.sha256, str(month) in learned))
        except SourceUnreachableError as error:
            self._say(f"whether months were published anew is not known: {error}")
        return found

    def month_health(self, version: Version, month: Month) -> Health:
        return check_month(version, month)

    # --- the live log -------------------------------------------------------------------

    def live_health(self, champion: Version) -> Health:
        health = check_live(champion, self.prediction_log)
        write_verdict(make_verdict(health))
        return health

    def arm_health(self, challenger: Version) -> Health:
        return check_live(challenger, self.prediction_log)

    def live_rows(self, since: float, pair: tuple[Version, Version]) -> pd.DataFrame:
        digests = (pair[0].sha256, pair[1].sha256)
        return log_frame(self.prediction_log.answered(since=since, pair=digests))

    def compare_live(self, champion: Version, earlier: Version) -> tuple[Estimate, int]:
        """Let the earlier version answer again what the champion answered in the last days."""
        rows = scored(recent_rides(champion, self.prediction_log))
        model, _ = load_version(earlier)
        true = rows["true_duration"].to_numpy()
        theirs = np.abs(model.answer(Rides.from_frame(rows)).duration - true)
        gain = np.abs(rows["duration"].to_numpy() - true) - theirs
        return draws_for(rows["pickup_at"].to_numpy()).mean(gain), len(rows)

    # --- a challenger -------------------------------------------------------------------

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> Version:
        run = self._begin(settings, run_id)
        remember(run.run_id)
        run_chain(run, self._notebooks, self._say)
        released = run.read().get("model")
        if released is None:
            raise PipelineError(f"run {run.run_id} registered no model")
        folder = bundle_folder(released["name"], released["version"])
        return Version.of(load_card(folder, environment.signing_key(), reference_of(folder)))

    def _begin(self, settings: RunSettings, run_id: str | None) -> Run:
        """The run to go on with, or a new one; none is begun while MLflow's store is away."""
        tracking.experiment_id(self.client)
        try:
            return load_run(run_id) if run_id else new_run(settings)
        except NotFoundError:  # its folder was cleared away
            return new_run(settings)

    def gate(self, champion: Version | None, challenger: Version, month: Month) -> Decision:
        ours, our_card = load_version(challenger)
        theirs, their_card = load_version(champion) if champion else (None, our_card)
        check_unseen(str(month), our_card, their_card)
        service, mode = our_card["service"], our_card["data_source"]
        # Rows with a proven clock fault judge neither lookups nor models.
        train, trips = (
            Window.learnable(prepare_months(service, months, mode=mode))
            for months in (parse_months(our_card["train_data"]), [month])
        )
        lookups = fit_baselines(train)
        rides, actual = trips.whole()
        decision = compare_models(theirs, ours, lookups, rides, actual)
        tracking.set_version_tags(self.client, challenger, decision.as_tags())
        return decision

    def restore_bundle(self, version: Version) -> bool:
        return restore_bundle(lambda: self.client, version)

    def refit(
        self,
        judged: Version,
        months: list[Month],
        run_id: str | None,
        remember: Callable[[str], None],
    ) -> Version:
        model, card = load_version(judged)
        given = {"TRAIN_DATA": card["train_data"], "VAL_DATA": card["val_data"]}
        settings = check_settings(**given, MODEL=card["model_kind"], SERVICE=card["service"])
        run = self._begin(settings, run_id)
        remember(run.run_id)
        self._say(f"{judged.ref} is fitted once more, on {format_months(months)}: minutes …")
        return Version.of(refit_version(run, model, card, months))

    def check_bundle(self, version: Version) -> None:
        load_version(version)

    # --- MLflow -------------------------------------------------------------------------

    def mirror(self) -> None:
        mirror_aliases(self.client)

    def log(self, line: dict[str, Any], version: Version | None) -> None:
        tracking.log_decision(self.client, line, version)
