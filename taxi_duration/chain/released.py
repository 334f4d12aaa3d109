"""Says in words what a run has registered, who serves, and what to do about it."""

from __future__ import annotations

from typing import Any

from taxi_duration.errors import DeploymentError
from taxi_duration.live.deployment import Deployment, read_deployment


def registered_text(info: dict[str, Any]) -> str:
    """Say what became of a run's winner, from its run.json and the deployment as it is now."""
    model = info["model"]
    ref = f"{model['name']}:{model['version']}"
    is_new = model.get("made_by", info["run_id"]) == info["run_id"]
    serving = _serving()
    if serving is not None and serving.champion.ref == ref:
        if is_new:
            return f"registered {ref} (champion): it serves"
        return f"nothing new to register: {ref} is this very model, is current and serves"
    what = f"registered {ref}" if is_new else f"nothing new to register: {ref} is this very model"
    promote = f"`python pipeline.py promote {ref}`"
    if serving is None:
        why = "" if model["beats_lookups"] else ": it does not beat every lookup"
        return f"{what}; nothing serves{why}. {promote} lets it serve all the same"
    tested = serving.challenger is not None and serving.challenger.ref == ref
    still = f"{serving.champion.ref} still serves"
    if tested:
        return f"{what}, which is under test; {still}. {promote} lets it serve now"
    return f"{what}; {still}. {promote} lets it serve instead"


def _serving() -> Deployment | None:
    try:
        return read_deployment()
    except DeploymentError:
        return None
