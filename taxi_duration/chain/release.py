"""Releases a run's winner: registry, aliases, and the first deployment."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.candidates import Candidate
from taxi_duration.chain.run import Run
from taxi_duration.data.prepared import concat_trips
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version, model_name
from taxi_duration.errors import BundleError, TrackingError
from taxi_duration.evaluation.release_checks import check_model, require_passed
from taxi_duration.live.deployment import deploy_champion, read_deployment, roll_back
from taxi_duration.model.bundle import load_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.registry import tracking
from taxi_duration.registry.aliases import set_alias
from taxi_duration.registry.versions import find_bundle, list_versions, register_bundle
from taxi_duration.training.baselines import fit_baselines

log = logging.getLogger(__name__)


def release_winner(run: Run, winner: Candidate, beats_baselines: bool) -> dict[str, Any]:
    """Register the winner and, as the first that beats every lookup, deploy it.

    Safe to repeat after a crash: the run keeps its version.

    Returns:
        `name`, `version`, `aliases`, `path` and `deployed`, also kept in run.json.
    Raises:
        ModelCheckError: the model fails a check; nothing is registered.
    """
    run.update(checks=_check_winner(run, winner))
    version = Version.of(
        register_bundle(run.client, run.parent_run(), run.settings.service, winner.folder)
    )
    deployed = beats_baselines and _deploy_first(run, version)
    registered = run.client.get_model_version(version.name, str(version.number))
    released = {
        "name": version.name,
        "version": version.number,
        "aliases": sorted(registered.aliases),
        "path": str(version.folder),
        "deployed": deployed,
    }
    run.update(model=released)
    return released


def _check_winner(run: Run, winner: Candidate) -> dict[str, Any]:
    """Check the model before it is registered; return what was found, by check.

    Raises:
        ModelCheckError: a check failed.
    """
    train, validation = concat_trips(run.train_months), concat_trips(run.val_months)
    lookups = fit_baselines(Rides.from_frame(train), train["duration"].to_numpy())
    checks = check_model(winner.model, validation, lookups, _newest_model(run))
    require_passed(checks)
    return {check.name: {"passed": check.passed, "detail": check.detail} for check in checks}


def _newest_model(run: Run) -> DurationModel | None:
    """The newest version's model to compare with; None when there is none to be trusted."""
    versions = list_versions(run.client, model_name(run.settings.service))
    if not versions:
        return None
    try:
        return load_bundle(versions[0].folder, environment.signing_key())[0]
    except BundleError as error:  # damaged, or from before there was a signing key
        log.warning("not compared with the newest version: %s", error)
        return None


def _deploy_first(run: Run, version: Version) -> bool:
    """Deploy a version when nothing of its service serves yet; True when it serves."""
    reason = f"first model that beats the lookups (run {run.run_id})"
    serves = (read_deployment() or deploy_champion(version, reason)).champion == version
    if serves:
        set_alias(run.client, version.name, "champion", version.number)
    return serves


def promote_version(client: Any, reference: str, reason: str) -> Version:
    """Make a registered version the champion and return it.

    Its bundle is checked as the service would, so that what cannot serve is not promoted.

    Args:
        reference: `NAME:VERSION`, `NAME:ALIAS` or `NAME@sha256:…`.
        reason: goes to the history.
    Raises:
        NotFoundError, SettingError: there is no such version.
        BundleError: its bundle is damaged or not signed as it must be.
    """
    _, card = load_bundle(find_bundle(client, reference), environment.signing_key())
    champion = deploy_champion(Version.of(card), reason).champion
    _mirror_or_warn(client)
    return champion


def roll_back_version(client: Any, reason: str) -> Version:
    """Put the champion before the present one back and return it.

    It needs no registry: a bad model can be taken back while the tracking server is away.

    Raises:
        NotFoundError: nothing was before it.
    """
    champion = roll_back(reason).champion
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
    name = deployment.champion.name
    aliases = client.get_registered_model(name).aliases
    for role in ("champion", "challenger"):
        version: Version | None = getattr(deployment, role)
        if str(aliases.get(role)) == str(version and version.number):
            continue
        if version is not None:
            set_alias(client, name, role, version.number)
        else:
            with suppress(MlflowException):  # it may be gone already
                set_alias(client, name, role, None)
