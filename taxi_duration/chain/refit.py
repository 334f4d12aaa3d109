"""Registers a judged version once more, fitted also on the month that judged it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.card import make_card
from taxi_duration.chain.digests import keep_finished, keep_registered
from taxi_duration.chain.run import Run
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month, format_months
from taxi_duration.domain.version import Version
from taxi_duration.evaluation.release_checks import check_model, require_passed
from taxi_duration.evaluation.window_scores import window_digest
from taxi_duration.model.bundle import CARD_FILE, save_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import register_bundle
from taxi_duration.timestamps import iso_now
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.refit import refit_model

FOLDER = "refit"  # in the run's


def refit_version(
    run: Run, judged: DurationModel, card: dict[str, Any], months: list[Month]
) -> dict[str, Any]:
    """Fit a judged version's model on months that end with the one that judged; return the card.

    The new version's card keeps the errors of the judged one, which had not seen that month,
    and says in `refit` what the model itself was fitted on and whose errors they are.
    Safe to repeat after a crash: the run keeps its version.

    Args:
        run: with the judged version's settings, made for this.
        judged, card: of the version that passed the gate.
        months: to fit on, all of the judged version's own.
    Raises:
        AtWorkError: another process executes the run.
        ModelCheckError: the new model fails a check; nothing is registered.
    """
    with run.at_work():
        return _refit_version(run, judged, card, months)


def _refit_version(
    run: Run, judged: DurationModel, card: dict[str, Any], months: list[Month]
) -> dict[str, Any]:
    folder = run.folder / FOLDER
    if not (folder / CARD_FILE).exists():
        _fit(run, judged, card, months, folder)
    registered = register_bundle(run.client, run.parent_run(), run.settings.service, folder)
    keep_registered(registered)
    version = Version.of(registered)
    run.client.set_terminated(run.parent_run())
    if "finished" not in run.read():
        run.update(
            status="done",
            finished=iso_now(),
            model={"name": version.name, "version": version.number, "path": str(version.folder)},
        )
    keep_finished(run)
    return registered


def _fit(
    run: Run, judged: DurationModel, card: dict[str, Any], months: list[Month], folder: Path
) -> None:
    started = time.perf_counter()
    window = [m for m in run.train_months + run.val_months if m.raw.month in months]
    model = refit_model(judged, Window.learnable(window), Window.learnable(run.val_months))
    seconds = time.perf_counter() - started
    validation = Window.scored(run.val_months)
    lookups = fit_baselines(Window.learnable(run.train_months))
    require_passed(check_model(model, validation, lookups, judged))
    digest = window_digest(model, validation)
    refit = {"months": format_months(months), "judged": Version.of(card).ref}
    new = make_card(run, model, card["metrics"], digest, seconds) | {"refit": refit}
    errors = tracking.flatten_metrics(card["metrics"])
    tracking.log_run(run.client, run.parent_run(), model.parameters, errors, refit)
    save_bundle(folder, model, new, environment.signing_key())
