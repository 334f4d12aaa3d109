"""Releases a run's winner, step by step: save, check, register, deploy; and moves aliases."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.candidates import Candidate
from taxi_duration.chain.digests import keep_registered
from taxi_duration.chain.run import Run
from taxi_duration.data.window import Window
from taxi_duration.domain.version import Version, model_name
from taxi_duration.errors import BundleError, DeletedError, DeploymentError, TrackingError
from taxi_duration.evaluation.gate import Check
from taxi_duration.evaluation.release_checks import check_model, require_passed
from taxi_duration.live.audit import user_name
from taxi_duration.live.deployment import (
    Deployment,
    deploy_champion,
    deploy_first,
    drop_challenger,
    read_deployment,
    roll_back,
)
from taxi_duration.model.bundle import load_bundle, reference_of, save_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.registry import tracking
from taxi_duration.registry.aliases import set_alias
from taxi_duration.registry.versions import find_bundle, list_versions, register_bundle
from taxi_duration.registry.witness import copy_history
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
    validation = Window.scored(run.val_months)
    lookups = fit_baselines(Window.scored(run.train_months))
    checks = check_model(winner.model, validation, lookups, _newest_model(run))
    found = {check.name: {"passed": check.passed, "detail": check.detail} for check in checks}
    run.update(checks=found)
    return checks


def register_winner(run: Run, winner: Candidate, checks: list[Check]) -> dict[str, Any]:
    """Register the winner as the next version and return its card.

    Safe to repeat after a crash: the run keeps its version. Where the winner was taken from an
    earlier run, and the version that it became is whole, nothing is registered.

    Args:
        checks: as `check_release` gives them.
    Raises:
        ModelCheckError: a check failed; nothing is registered.
    """
    require_passed(checks)
    if known := _registered_before(run, winner):
        log.info("nothing is registered: %s:%s is this very model", known["name"], known["version"])
        return known
    card = register_bundle(run.client, run.parent_run(), run.settings.service, winner.folder)
    keep_registered(card)
    return card


def deploy_winner(run: Run, card: dict[str, Any], beats_baselines: bool) -> dict[str, Any]:
    """Deploy a registered version when it is the first that beats every lookup.

    Safe to repeat after a crash; what serves already is not replaced.

    Args:
        card: as `register_winner` gives it.
    Returns:
        `name`, `version`, `aliases`, `path`, `deployed`, `beats_lookups` and the run that it was
        `made_by`, also kept in run.json.
    """
    version = Version.of(card)
    deployed = beats_baselines and _deploy_first(run, version)
    registered = run.client.get_model_version(version.name, str(version.number))
    released = {
        "name": version.name,
        "version": version.number,
        "aliases": sorted(registered.aliases),
        "path": str(version.folder),
        "deployed": deployed,
        "beats_lookups": beats_baselines,
        "made_by": card["run_id"],
    }
    run.update(model=released)
    return released


def _registered_before(run: Run, winner: Candidate) -> dict[str, Any] | None:
    """Return the card of the version that holds the winner's very bytes, if it is whole."""
    if "fitted_by" not in winner.card:
        return None
    for version in list_versions(run.client, model_name(run.settings.service)):
        if version.sha256 != winner.card["model_sha256"]:
            continue
        registered = run.client.get_model_version(version.name, str(version.number))
        try:
            _, card = load_bundle(version.folder, environment.signing_key(), version.ref)
        except BundleError as error:
            log.warning("the same model is registered again: %s", error)
            continue
        if tracking.is_active(run.client, registered.run_id):
            return card
    return None


def _newest_model(run: Run) -> DurationModel | None:
    """The newest version's model to compare with; None when there is none to be trusted."""
    versions = list_versions(run.client, model_name(run.settings.service))
    if not versions:
        return None
    try:
        newest = versions[0]
        return load_bundle(newest.folder, environment.signing_key(), newest.ref)[0]
    except BundleError as error:  # damaged, or from before there was a signing key
        log.warning("not compared with the newest version: %s", error)
        return None


def _deploy_first(run: Run, version: Version) -> bool:
    """Deploy a version when nothing of its service serves yet; True when it serves."""
    reason = f"first model that beats the lookups (run {run.run_id})"
    serves = (read_deployment() or deploy_first(version, reason)).champion == version
    if serves:
        mirror_aliases(run.client)
    return serves


def promote_version(client: Any, reference: str, reason: str) -> tuple[Version, Version | None]:
    """Make a registered version the champion; it answers every rider then.

    A test ends with that, also when the version was the champion already. The champion before
    stays in the shadow, as after a promotion of the loop.

    Its bundle is checked as the service would, so that what cannot serve is not promoted.

    Args:
        reference: `NAME:VERSION`, `NAME:ALIAS` or `NAME@sha256:…`.
        reason: goes to the history.
    Returns:
        The champion, and the other version whose test ended, if there was one.
    Raises:
        NotFoundError, SettingError: there is no such version.
        BundleError: its bundle is damaged or not signed as it must be.
    """
    folder = find_bundle(client, reference)
    _, card = load_bundle(folder, environment.signing_key(), reference_of(folder))
    version, tested = Version.of(card), _under_test()
    deploy_by_hand(version, reason)
    mirror_or_warn(client)
    return version, tested if tested != version else None


def deploy_by_hand(version: Version, reason: str) -> Deployment:
    """Let a version answer every rider because a person says so; safe to repeat."""
    who = user_name()
    deployment = deploy_champion(version, reason, bake=True, who=who)
    if deployment.challenger is not None and not deployment.is_baking:  # it was champion already
        return drop_challenger(f"{version.ref} is to answer every rider: {reason}", who)
    return deployment


def _under_test() -> Version | None:
    try:
        deployment = read_deployment()
    except DeploymentError:  # a promotion writes it anew
        return None
    if deployment is None or deployment.is_baking:
        return None
    return deployment.challenger


def roll_back_version(reason: str, client: Any = None) -> Version:
    """Put the champion before the present one back and return it.

    It needs no registry: a bad model can be taken back while the tracking server is away.

    Args:
        reason: goes to the history.
        client: MlflowClient; connected to after the deed when None.
    Raises:
        NotFoundError: nothing was before it.
    """
    champion = roll_back(reason, who=user_name()).champion
    mirror_or_warn(client)
    return champion


def mirror_or_warn(client: Any = None) -> None:
    """Mirror the aliases; the deployment is done already, and stands without them."""
    try:
        with tracking.needed():
            mirror_aliases(client or tracking.connect())
    except TrackingError as error:
        log.warning(
            "deployment.json is changed and serves; the registry's aliases are not, the next "
            "promote, rollback or auto will do it: %s",
            error,
        )


def mirror_aliases(client: Any) -> None:
    """Point `champion` and `challenger` at what deployment.json names; remove what it does not.

    A version that was deleted in MLflow serves on from its bundle, and has no alias there.
    MLflow gets the digests of the history's new lines too.
    """
    deployment: Deployment | None = None
    # Somebody may change the deployment, and mirror that, before this has set its aliases.
    while deployment != (deployment := read_deployment()):
        if deployment is not None:
            _mirror(client, deployment)


def _mirror(client: Any, deployment: Deployment) -> None:
    for role in ("champion", "challenger"):
        try:
            _mirror_alias(client, deployment.champion.name, role, getattr(deployment, role))
        except DeletedError as error:
            log.warning("there is no alias %s: %s", role, error)
    with suppress(DeletedError):  # said above
        copy_history(client, deployment.champion.name)


def _mirror_alias(client: Any, name: str, role: str, version: Version | None) -> None:
    number = version.number if version else None
    if str(client.get_registered_model(name).aliases.get(role)) == str(number):
        return
    try:
        if number is not None:
            client.get_model_version(name, str(number))  # raises before the change is noted
    except DeletedError:
        set_alias(client, name, role, None)  # better none than that of another version
        raise
    set_alias(client, name, role, number)
