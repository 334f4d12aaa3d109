"""Releases a run's winner, step by step: save, check, register, deploy; and moves aliases."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.candidates import Candidate
from taxi_duration.chain.run import Run
from taxi_duration.data.prepared import concat_trips
from taxi_duration.domain.references import model_name
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import BundleError, TrackingError
from taxi_duration.evaluation.gate import Check
from taxi_duration.evaluation.release_checks import check_model, require_passed
from taxi_duration.live.deployment import deploy_champion, read_deployment, roll_back
from taxi_duration.model.bundle import load_bundle, reference_of, save_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.registry import tracking
from taxi_duration.registry.aliases import set_alias
from taxi_duration.registry.versions import find_bundle, list_versions, register_bundle
from taxi_duration.training.baselines import fit_baselines

log = logging.getLogger(__name__)


def save_winner(winner: Candidate) -> Path:
    """Make sure that the winner's whole bundle lies in its folder, and return the folder.

    It was saved when it was trained; written again it might have other bytes, and the digest
    in the card and in MLflow would be another model's. So only what is damaged is written.
    """
    try:
        _, card = load_bundle(winner.folder, environment.signing_key())
        whole = card["model_sha256"] == winner.card["model_sha256"]
    except BundleError as error:
        log.warning("the winner is saved again: %s", error)
        whole = False
    if not whole:
        save_bundle(winner.folder, winner.model, winner.card, environment.signing_key())
    return winner.folder


def check_release(run: Run, winner: Candidate) -> list[Check]:
    """Return the checks that the winner must pass before it may be registered, and keep them.

    Nothing is refused here, so that all of them can be looked at; `register_winner` refuses.
    """
    train, validation = concat_trips(run.train_months), concat_trips(run.val_months)
    lookups = fit_baselines(Rides.from_frame(train), train["duration"].to_numpy())
    checks = check_model(winner.model, validation, lookups, _newest_model(run))
    found = {check.name: {"passed": check.passed, "detail": check.detail} for check in checks}
    run.update(checks=found)
    return checks


def register_winner(run: Run, winner: Candidate, checks: list[Check]) -> dict[str, Any]:
    """Register the winner as the next version and return its card.

    Safe to repeat after a crash: the run keeps its version.

    Args:
        checks: as `check_release` gives them.
    Raises:
        ModelCheckError: a check failed; nothing is registered.
    """
    require_passed(checks)
    return register_bundle(run.client, run.parent_run(), run.settings.service, winner.folder)


def deploy_winner(run: Run, card: dict[str, Any], beats_baselines: bool) -> dict[str, Any]:
    """Deploy a registered version when it is the first that beats every lookup.

    Safe to repeat after a crash; what serves already is not replaced.

    Args:
        card: as `register_winner` gives it.
    Returns:
        `name`, `version`, `aliases`, `path` and `deployed`, also kept in run.json.
    """
    deployed = beats_baselines and _deploy_first(run, card)
    registered = run.client.get_model_version(card["name"], str(card["version"]))
    released = {
        "name": card["name"],
        "version": card["version"],
        "aliases": sorted(registered.aliases),
        "path": str(environment.models_dir() / card["name"] / str(card["version"])),
        "deployed": deployed,
    }
    run.update(model=released)
    return released


def _newest_model(run: Run) -> DurationModel | None:
    """The newest version's model to compare with; None when there is none to be trusted."""
    versions = list_versions(run.client, model_name(run.settings.service))
    if not versions:
        return None
    folder = environment.models_dir() / versions[0]["name"] / str(versions[0]["version"])
    try:
        return load_bundle(folder, environment.signing_key(), reference_of(folder))[0]
    except BundleError as error:  # damaged, or from before there was a signing key
        log.warning("not compared with the newest version: %s", error)
        return None


def _deploy_first(run: Run, card: dict[str, Any]) -> bool:
    """Deploy a version when nothing of its service serves yet; True when it serves."""
    current = read_deployment()
    if current is None:
        deploy_champion(card, reason=f"first model that beats the lookups (run {run.run_id})")
        current = read_deployment()
    champion = current["champion"]
    serves = (champion["name"], champion["version"]) == (card["name"], card["version"])
    if serves:
        set_alias(run.client, card["name"], "champion", card["version"])
    return serves


def promote_version(client: Any, reference: str, reason: str) -> dict[str, Any]:
    """Make a registered version the champion and return its card.

    Its bundle is checked as the service would, so that what cannot serve is not promoted.

    Args:
        reference: `NAME:VERSION`, `NAME:ALIAS` or `NAME@sha256:…`.
        reason: goes to the history.
    Raises:
        NotFoundError, SettingError: there is no such version.
        BundleError: its bundle is damaged or not signed as it must be.
    """
    folder = find_bundle(client, reference)
    card = load_bundle(folder, environment.signing_key(), reference_of(folder))[1]
    deploy_champion(card, reason)
    _mirror_or_warn(client)
    return card


def roll_back_version(client: Any, reason: str) -> dict[str, Any]:
    """Put the champion before the present one back; return its entry in deployment.json.

    It needs no registry: a bad model can be taken back while the tracking server is away.

    Raises:
        NotFoundError: nothing was before it.
    """
    champion = roll_back(reason)["champion"]
    _mirror_or_warn(client)
    return champion


def _mirror_or_warn(client: Any) -> None:
    """Mirror the aliases; the deployment is done already, and stands without them."""
    try:
        with tracking.needed():
            mirror_aliases(client)
    except TrackingError as error:
        log.warning(
            "deployment.json is changed and serves; the registry's aliases are not, the next "
            "promote, rollback or auto will do it: %s",
            error,
        )


def mirror_aliases(client: Any) -> None:
    """Point `champion` and `challenger` at what deployment.json names; remove what it does not."""
    from mlflow.exceptions import MlflowException

    deployment = read_deployment()
    if deployment is None:
        return
    name = deployment["champion"]["name"]
    aliases = client.get_registered_model(name).aliases
    for role in ("champion", "challenger"):
        entry = deployment[role]
        version = str(entry["version"]) if entry else None
        if str(aliases.get(role)) == str(version):
            continue
        with suppress(MlflowException if version is None else ()):  # it may be gone already
            set_alias(client, name, role, version)
