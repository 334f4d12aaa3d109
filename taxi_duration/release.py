"""Releases a run's winner: registry, aliases, and the first deployment."""

from __future__ import annotations

from typing import Any

from taxi_duration import config
from taxi_duration.candidates import Candidate
from taxi_duration.deployment import deploy_champion, read_deployment
from taxi_duration.registry import register_bundle, set_alias
from taxi_duration.runs import Run


def release_winner(run: Run, winner: Candidate, beats_baselines: bool) -> dict[str, Any]:
    """Register the winner and, as the first that beats every lookup, deploy it.

    Safe to repeat after a crash: the run keeps its version.

    Returns:
        `name`, `version`, `aliases`, `path` and `deployed`, also kept in run.json.
    """
    card = register_bundle(run.client, run.parent_run(), run.settings.service, winner.folder)
    deployed = beats_baselines and _deploy_first(run, card)
    registered = run.client.get_model_version(card["name"], str(card["version"]))
    released = {
        "name": card["name"],
        "version": card["version"],
        "aliases": sorted(registered.aliases),
        "path": str(config.models_dir() / card["name"] / str(card["version"])),
        "deployed": deployed,
    }
    run.update(model=released)
    return released


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
