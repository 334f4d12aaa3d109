"""Tunes XGBoost's settings with optuna on time-ordered folds.

Only for whoever wants new defaults: an ordinary run uses the settings stored beside this file.
optuna and MLflow are imported where they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taxi_duration.data.prepared import PreparedMonth, prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month, format_months
from taxi_duration.errors import SettingError
from taxi_duration.evaluation.metrics import error_metrics
from taxi_duration.files import write_json
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES, known_distance, transform
from taxi_duration.registry import tracking
from taxi_duration.training.boosting import flat_settings, xgb_settings
from taxi_duration.training.boosting_engine import learn_booster
from taxi_duration.training.feature_tables import fold_tables, window_atlas, window_tables
from taxi_duration.training.tree_models import THREADS
from taxi_duration.training.tree_packing import from_xgboost
from taxi_duration.training.window_sums import window_sums

log = logging.getLogger(__name__)

FOLD_SHARES = (0.5, 0.75)  # of the days: where the past ends and the scored days begin
FOLD_AHEAD = 0.25  # share of the days that are scored
MAX_NODES = 120_000  # of one booster: more would cost a served ride its microseconds


@dataclass(frozen=True)
class Fold:
    """One past and the days after it, as features, with and without distance.

    Args:
        past, ahead: float32 rows, shapes (n, 39) and (m, 39).
        past_minutes, ahead_minutes: shapes (n,) and (m,).
        past_weight: how much each row counts, shape (n,).
        mean_rmse: RMSE of the past's mean on the days ahead: what errors are measured in.
    """

    past: np.ndarray
    past_minutes: np.ndarray
    past_weight: np.ndarray
    ahead: np.ndarray
    ahead_minutes: np.ndarray
    mean_rmse: float


def tune(
    service: str, months: list[Month], trials: int, minutes: float, out: Path
) -> dict[str, Any]:
    """Search settings on months, write the best ones to a file and the study to MLflow.

    Each month is its own set of folds, so that the settings serve windows of one month. Later
    months are never looked at: give none on which you want to judge the result.

    Args:
        trials, minutes: the search stops at whichever comes first; the stored settings are
            the first trial.
        out: file to write, in the form of `xgb_settings.json`.
    Returns:
        `settings` as written, `score` and `stored_score` (share of the mean's RMSE), `trials`.
    Raises:
        SettingError: no month, or no trial asked for.
    """
    if not months or trials < 1 or minutes <= 0:
        raise SettingError(
            f"tuning needs months, trials and minutes; got {len(months)} months, {trials} trials, "
            f"{minutes} minutes"
        )
    prepared = prepare_months(service, months)
    windows = [Window.learnable([month]) for month in prepared]
    folds = [fold for window in windows for fold in time_folds(window)]
    study = search(folds, trials, minutes)
    settings = settings_of(study.best_params)
    write_json(out, settings)
    result = {
        "settings": settings,
        "score": float(study.best_value),
        "stored_score": study.trials[0].value or float("nan"),  # none: it grew too many nodes
        "trials": len(study.trials),
    }
    _log_study(study, result, service, months, prepared)
    log.info("best of %d trials: %.5f, stored settings: %.5f", len(study.trials),
             result["score"], result["stored_score"])  # fmt: skip
    return result


def time_folds(window: Window) -> list[Fold]:
    """Return folds in which the days ahead come after every day of the past.

    Args:
        window: whose days are divided.
    """
    rides, duration = window.whole()
    days, place = np.unique(rides.pickup_at.astype("datetime64[D]"), return_inverse=True)
    folds = []
    for share in FOLD_SHARES:
        start, end = (int(len(days) * s) for s in (share, min(share + FOLD_AHEAD, 1.0)))
        past, ahead = place < start, (place >= start) & (place < end)
        known = Window.of(rides.take(past), duration[past])
        sums, atlas = window_sums(known), window_atlas(window)
        features = list(fold_tables(sums, atlas=atlas).batches(known))
        tables = window_tables(known, atlas=atlas)
        mean = np.full(ahead.sum(), duration[past].mean())
        folds.append(
            Fold(
                np.concatenate([batch.rows for batch in features]),
                duration[past],
                np.concatenate([batch.weight for batch in features]),
                transform(rides.take(ahead), tables, with_distance=True),
                duration[ahead],
                error_metrics(duration[ahead], mean)["rmse"],
            )
        )
    return folds


def score_settings(
    settings: dict[str, Any], folds: list[Fold], report: Callable[[float, int], None] | None = None
) -> float:
    """Return the mean over folds of the RMSE with (where there is any) and without distance, over
    the mean's RMSE.

    Args:
        settings: `rounds` and `parameters`.
        report: called with the score so far and the fold's number after each fold.
    """
    scores: list[float] = []
    for number, fold in enumerate(folds):
        scores.append(_fold_score(settings, fold))
        if report is not None:
            report(float(np.mean(scores)), number)
    return float(np.mean(scores))


def _fold_score(settings: dict[str, Any], fold: Fold) -> float:
    miles = DISTANCE_FEATURES.index("distance_miles")
    errors = []
    for width in (len(DISTANCE_FEATURES), len(FEATURES)):
        past = np.ones(len(fold.past), dtype=bool)
        ahead = np.ones(len(fold.ahead), dtype=bool)
        if width > len(FEATURES):
            past &= ~np.isnan(known_distance(fold.past[:, miles]))
            ahead &= ~np.isnan(known_distance(fold.ahead[:, miles]))
        if not (past.any() and ahead.any()):  # FHV months have no distances
            continue
        rows = np.ascontiguousarray(fold.past[past, :width])
        given = fold.past_minutes[past], fold.past_weight[past], flat_settings(settings)
        trees = from_xgboost(learn_booster(rows, *given, seed=0, threads=THREADS))
        if len(trees.nodes) > MAX_NODES:
            return float("inf")
        predicted = trees.predict(fold.ahead[ahead, :width])
        # The level of later days is not the settings' business.
        actual = fold.ahead_minutes[ahead]
        predicted = predicted * (actual.sum() / predicted.sum())
        errors.append(error_metrics(actual, predicted)["rmse"])
    return float(np.mean(errors)) / fold.mean_rmse


def search(folds: list[Fold], trials: int, minutes: float) -> Any:
    """Return optuna's study of settings on the folds; the stored settings come first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: Any) -> float:
        def report(score: float, fold: int) -> None:
            trial.report(score, fold)
            if trial.should_prune():
                raise optuna.TrialPruned

        score = score_settings(settings_of(_suggest(trial)), folds, report)
        if not np.isfinite(score):
            raise optuna.TrialPruned
        return score

    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=8),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )
    study.enqueue_trial(_searched(xgb_settings()))
    study.optimize(objective, n_trials=trials, timeout=minutes * 60)
    return study


def _suggest(trial: Any) -> dict[str, Any]:
    """Return one point of the search space."""
    return {
        "rounds": trial.suggest_int("rounds", 150, 450, step=10),
        "eta": trial.suggest_float("eta", 0.015, 0.1, log=True),
        "max_depth": trial.suggest_int("max_depth", 6, 11),
        "min_child_weight": trial.suggest_int("min_child_weight", 5, 100, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 0.95),
        "colsample_bynode": trial.suggest_float("colsample_bynode", 0.15, 0.8),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.5, 50.0, log=True),
    }


def _searched(settings: dict[str, Any]) -> dict[str, Any]:
    """Return stored settings as a point of the search space."""
    values = {"rounds": settings["rounds"], **settings["parameters"]}
    names = ("rounds", "eta", "max_depth", "min_child_weight", "subsample", "colsample_bynode",
             "reg_lambda")  # fmt: skip
    return {name: values[name] for name in names}


def settings_of(point: dict[str, Any]) -> dict[str, Any]:
    """Return a point of the search space in the form of `xgb_settings.json`."""
    searched = {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in point.items()
        if name != "rounds"
    }
    stored = xgb_settings()
    parameters = {**stored["parameters"], **searched}
    return {**stored, "rounds": point["rounds"], "parameters": parameters}


def _log_study(
    study: Any,
    result: dict[str, Any],
    service: str,
    months: list[Month],
    prepared: list[PreparedMonth],
) -> None:
    """Log the study as one run: best settings, scores, months, and every trial as a table."""
    client = tracking.connect()
    run = tracking.start_run(
        client, "tune XGB", {"service": service, "train_data": format_months(months)}
    )
    settings = result["settings"]
    tracking.log_run(
        client,
        run,
        params={"rounds": settings["rounds"], **settings["parameters"]},
        metrics={k: result[k] for k in ("score", "stored_score", "trials")},
        tags={"kind": "tuning"},
    )
    tracking.log_months(client, run, prepared, "training")
    trials = [
        {"number": t.number, "state": t.state.name, "score": t.value, **t.params}
        for t in study.trials
    ]
    client.log_dict(run, {"trials": trials}, "trials.json")
    client.log_dict(run, settings, "xgb_settings.json")
    client.set_terminated(run)
