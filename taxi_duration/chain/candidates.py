"""Trained candidates of a run: fitted once, scored once, kept in the run's folder."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from taxi_duration import environment
from taxi_duration.chain.branches import Branch, run_branches
from taxi_duration.chain.card import make_card
from taxi_duration.chain.earlier import copy_file, made_by_others
from taxi_duration.chain.inputs import fingerprint_of, fit_inputs
from taxi_duration.chain.run import Run
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.data.window import MonthPart, Window
from taxi_duration.errors import BundleError, PipelineError
from taxi_duration.evaluation.window_scores import predictors, score_model, score_points
from taxi_duration.files import read_json, write_json
from taxi_duration.logs import log_step, prefix_steps
from taxi_duration.model.bundle import (
    CARD_FILE,
    MODEL_FILE,
    load_bundle,
    load_card,
    save_bundle,
    write_card,
)
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.registry import tracking
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import find_kind

log = logging.getLogger(__name__)

RESULTS_FILE = "leaderboard.json"
SHOWN_SCORES = ("rmse", "mae", "bias", "coverage", "mean_width", "pinball", "crps")


@dataclass(frozen=True)
class Candidate:
    """A fitted model with its card, saved as a bundle in `folder`."""

    kind: str
    model: DurationModel
    card: dict[str, Any]
    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """Validation metrics, `with_distance` and `without_distance`."""
        return self.card["metrics"]


@dataclass(frozen=True)
class Fit:
    """A fitted model that is not scored yet; `card` is the saved one when it was found."""

    kind: str
    fingerprint: str
    model: DurationModel
    seconds: float
    card: dict[str, Any] | None = None


class Scores(NamedTuple):
    """How good a model is: validation metrics, and the SHA-256 of its predictions."""

    metrics: dict[str, Any]
    predictions_sha256: str


def train_candidate(run: Run, kind: str) -> Candidate:
    """Fit one kind on the training months, score it on the validation months, save and log it.

    A candidate that this run already has for the same data and code version is loaded; one
    that was saved by a process killed before it was logged is logged now.
    """
    fit = fit_candidate(run, kind)
    return save_candidate(run, fit, score_candidate(run, fit))


def train_candidates(run: Run) -> Iterator[Candidate]:
    """Yield a candidate of each kind that the run asks for, in their order.

    They are fitted beside each other, within the cores, and share one copy of the trips.

    Raises:
        PipelineError: a fit failed; names the kind.
    """
    window = Window.learnable(run.train_months)
    branches = [
        Branch(kind, find_kind(kind).threads, partial(fit_candidate, run, kind, window))
        for kind in run.settings.kinds
    ]
    for fit in run_branches(branches):
        yield save_candidate(run, fit, score_candidate(run, fit))


def fit_candidate(run: Run, kind: str, window: Window | None = None) -> Fit:
    """Fit one kind on the training months, or load what this run has saved of it already.

    A run that may take what is current (see `current.py`) takes the model of an earlier one.

    Args:
        window: the training trips, when the caller has them already.
    Raises:
        SettingError: unknown kind, or too few trips to learn from.
    """
    fingerprint = fingerprint_of(fit_inputs(run), kind)
    saved = _load_saved(_folder(run, kind), fingerprint) or _take_over(run, kind, fingerprint)
    if saved is not None:
        model, card = saved
        return Fit(kind, fingerprint, model, card["fit_seconds"], card)
    if window is None:
        window = Window.learnable(run.train_months)
    started = time.perf_counter()
    with prefix_steps(kind):
        model = fit_model(kind, window)
    return Fit(kind, fingerprint, model, time.perf_counter() - started)


def score_candidate(run: Run, fit: Fit) -> Scores:
    """Score a fitted model on the validation months; a saved one has its scores in its card."""
    if fit.card is not None:
        return Scores(fit.card["metrics"], fit.card["predictions_sha256"])
    with prefix_steps(fit.kind):
        log_step("score on the validation months")
    metrics, digest = score_model(fit.model, Window.scored(run.val_months))
    scores = Scores(metrics | score_without_suspects(fit.model, run.val_months), digest)
    rmse, mae = (scores.metrics["with_distance"][name] for name in ("rmse", "mae"))
    log.info("%s: RMSE %.4f, MAE %.4f minutes, fitted in %.1f s", fit.kind, rmse, mae, fit.seconds)
    return scores


def save_candidate(run: Run, fit: Fit, scores: Scores) -> Candidate:
    """Save a scored model with its card in the run's folder, and log it to MLflow once."""
    folder, card = _folder(run, fit.kind), fit.card
    if card is None:
        card = make_card(run, fit.model, scores.metrics, scores.predictions_sha256, fit.seconds)
        card = {**card, "fingerprint": fit.fingerprint}
        card = save_bundle(folder, fit.model, card, environment.signing_key())
    candidate = Candidate(fit.kind, fit.model, card, folder)
    run.parent_run()  # one that was deleted in MLflow is begun anew, without children
    logged = run.read().get("logged", {})
    child = logged.get(fit.fingerprint)
    if child is None or not tracking.is_active(run.client, child):
        run.update(logged={**logged, fit.fingerprint: _log_candidate(run, candidate)})
    return candidate


def score_without_suspects(model: DurationModel, months: Sequence[PreparedMonth]) -> dict[str, Any]:
    """Return `without_suspects`: as `score_model`, on rides without a proven fault.

    Empty when the months have none: the two scores are one then.
    """
    if not any(month.suspects for month in months):
        return {}
    window = Window(tuple(MonthPart.of(month, False) for month in months))
    return {"without_suspects": score_model(model, window)[0]} if len(window) else {}


def score_baselines(run: Run) -> pd.DataFrame:
    """Return RMSE, MAE and bias (minutes) of each lookup on the validation months.

    Kept in run.json: notebooks 02 and 03 both ask.
    """
    fingerprint = fingerprint_of(fit_inputs(run), "lookups")
    kept = run.read().get("lookups", {})
    if kept.get("fingerprint") != fingerprint:
        lookups = fit_baselines(Window.learnable(run.train_months))
        scores = score_points(predictors(lookups), Window.scored(run.val_months))
        kept = {"fingerprint": fingerprint, "scores": scores}
        run.update(lookups=kept)
    return pd.DataFrame.from_dict(kept["scores"], orient="index").rename_axis("model")


def compare_candidates(run: Run) -> pd.DataFrame:
    """Train what the run asks for and rank it; see `rank_candidates`."""
    return rank_candidates(run, train_candidates(run))


def rank_candidates(run: Run, candidates: Iterable[Candidate]) -> pd.DataFrame:
    """Rank candidates with the baselines, best RMSE first.

    The ranking and the winner are saved in `leaderboard.json`; a baseline never wins.
    """
    baselines = score_baselines(run).assign(is_baseline=True)
    ranked = {candidate.kind: candidate for candidate in candidates}
    models = pd.DataFrame([_row(c) for c in ranked.values()]).set_index("model")
    table = pd.concat([models.assign(is_baseline=False), baselines]).sort_values("rmse")
    winner = str(table.index[~table["is_baseline"].to_numpy(dtype=bool)][0])
    beats = bool(table.loc[winner, "rmse"] < baselines["rmse"].min())
    write_json(
        run.folder / RESULTS_FILE,
        {
            "fingerprints": _fingerprints(run),
            "winner": winner,
            "beats_baselines": beats,
            "table": json.loads(table.reset_index().to_json(orient="records")),
        },
    )
    tracking.log_run(
        run.client,
        run.parent_run(),
        # The winner's own under its child run's names: one column in MLflow's table.
        metrics={f"baseline.{n}.rmse": r for n, r in baselines["rmse"].items()}
        | {"winner.rmse": float(table.loc[winner, "rmse"])}
        | tracking.flatten_metrics(ranked[winner].metrics),
        tags={"winner": winner, "beats_baselines": str(beats)},
    )
    return table


def keep_longer_window(run: Run, words: str) -> None:
    """Keep what a longer window would gain beside the ranking; `run` shows it at its end."""
    path = run.folder / RESULTS_FILE
    write_json(path, {**read_json(path), "longer_window": words})


def winning_candidate(run: Run) -> tuple[Candidate, bool]:
    """Return the run's best candidate, and whether it beats every lookup.

    Trains and compares first when that has not been done in this run.
    """
    results = run.folder / RESULTS_FILE
    ranked = read_json(results) if results.exists() else None
    if ranked is None or ranked["fingerprints"] != _fingerprints(run):
        compare_candidates(run)
        ranked = read_json(results)
    return train_candidate(run, ranked["winner"]), ranked["beats_baselines"]


def _row(candidate: Candidate) -> dict[str, Any]:
    scores, unaided = (candidate.metrics[f"{w}_distance"] for w in ("with", "without"))
    clean = candidate.metrics.get("without_suspects", {}).get("with_distance")
    return {
        "model": candidate.kind,
        **{name: scores[name] for name in SHOWN_SCORES},
        "rmse_no_distance": unaided["rmse"],
        "mae_no_distance": unaided["mae"],
        "fit_seconds": candidate.card["fit_seconds"],
        **{f"{name}_without_suspects": clean[name] for name in ("rmse", "mae") if clean},
    }


def _fingerprints(run: Run) -> dict[str, str]:
    inputs = fit_inputs(run)
    return {kind: fingerprint_of(inputs, kind) for kind in run.settings.kinds}


def _folder(run: Run, kind: str) -> Path:
    return run.folder / "candidates" / kind


def _load_saved(folder: Path, fingerprint: str) -> tuple[DurationModel, dict[str, Any]] | None:
    if not (folder / CARD_FILE).exists():
        return None
    try:
        if load_card(folder).get("fingerprint") != fingerprint:
            return None
        return load_bundle(folder, environment.signing_key())
    except BundleError as error:
        log.warning("saved candidate %s is not usable, training it again: %s", folder.name, error)
        return None


def _take_over(
    run: Run, kind: str, fingerprint: str
) -> tuple[DurationModel, dict[str, Any]] | None:
    """Copy the same model from another run that has it whole; its card then says who fitted it."""
    if not run.takes_current:
        return None
    folder = _folder(run, kind)
    bundle = [
        (folder / name).relative_to(run.folder).as_posix() for name in (MODEL_FILE, CARD_FILE)
    ]
    for made in made_by_others(run):
        if not made.files.keys() >= set(bundle):
            continue
        # First what costs little: of most runs the fingerprint is another.
        saved = _load_saved(made.folder / "candidates" / kind, fingerprint)
        if saved is None or made.problem(bundle):
            continue
        model, card = saved
        try:
            copy_file(made.folder / bundle[0], folder / MODEL_FILE, card["model_sha256"])
        except (PipelineError, OSError) as error:  # somebody clears it away in this moment
            log.warning("%s of run %s is not taken: %s", kind, made.folder.name, error)
            continue
        return model, adopt(run, kind, card)
    return None


def adopt(run: Run, kind: str, card: dict[str, Any]) -> dict[str, Any]:
    """Write the card of a model that was copied from another run as this run's; return it.

    Args:
        card: as the other run wrote it; the new one says who fitted the model.
    """
    fitted_by = card.get("fitted_by", card["run_id"])
    log.info("%s: the same model was fitted by run %s", kind, fitted_by)
    own = {**card, "run_id": run.run_id, "fitted_by": fitted_by}
    return write_card(_folder(run, kind), own, environment.signing_key())


def _own_tags(candidate: Candidate) -> dict[str, str]:
    """What a model's run in MLflow says besides its parent; the commit is that of the fit."""
    card = candidate.card
    tags = {"model_kind": candidate.kind, "git_commit": card["git_commit"]}
    return tags | ({"fitted_by": card["fitted_by"]} if "fitted_by" in card else {})


def _log_candidate(run: Run, candidate: Candidate) -> str:
    """Log a candidate as a child run (parameters, tags, metrics, months, card); return its id."""
    client, parent = run.client, run.parent_run()
    child = tracking.start_run(client, candidate.kind, {**run.tags, **_own_tags(candidate)}, parent)
    tracking.log_run(
        client,
        child,
        params=candidate.card["parameters"],
        metrics=tracking.flatten_metrics(candidate.metrics)
        | {"fit_seconds": candidate.card["fit_seconds"]},
        tags={"predictions_sha256": candidate.card["predictions_sha256"]},
    )
    tracking.log_months(client, child, run.train_months, "training")
    tracking.log_months(client, child, run.val_months, "validation")
    client.log_artifact(child, str(candidate.folder / CARD_FILE))
    client.set_terminated(child)
    return child
