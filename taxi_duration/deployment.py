"""What serves: deployment.json with champion and challenger, and the history of who served."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from taxi_duration import config
from taxi_duration.errors import NotFoundError
from taxi_duration.files import read_json, write_json

DEPLOYMENT_FILE = "deployment.json"
HISTORY_FILE = "history.jsonl"


def read_deployment() -> dict[str, Any] | None:
    """Return the content of deployment.json, None when nothing is deployed yet."""
    path = config.deployment_dir() / DEPLOYMENT_FILE
    return read_json(path) if path.exists() else None


def deploy_champion(card: dict[str, Any], reason: str) -> dict[str, Any]:
    """Make a registered version the champion, effective as soon as the service looks.

    Args:
        card: the version's card; `name`, `version` and `model_sha256` are taken from it.
        reason: goes to the history.
    """
    folder = config.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        return _replace(folder, _entry(card), reason, action="promote")


def roll_back(reason: str) -> dict[str, Any]:
    """Put the champion before the present one back.

    Raises:
        NotFoundError: nothing is deployed, or nothing was before it.
    """
    folder = config.deployment_dir()
    current = read_deployment()
    if current is None or current.get("previous") is None:
        raise NotFoundError("there is no earlier champion to roll back to")
    with FileLock(folder / ".lock"):
        return _replace(folder, current["previous"], reason, action="rollback")


def read_history() -> list[dict[str, Any]]:
    """Return who served when, oldest first."""
    path = config.deployment_dir() / HISTORY_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _entry(card: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": card["name"],
        "version": card["version"],
        "model_sha256": card["model_sha256"],
        "data_source": card["data_source"],
    }


def _replace(folder: Path, champion: dict[str, Any], reason: str, action: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    before = read_deployment() or {}
    record = {"at": now, "action": action, "champion": champion, "reason": reason}
    # The history is written first: a crash in between leaves a line too many, never one too few.
    with (folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    deployment = {
        "updated": now,
        "champion": champion,
        "challenger": None,
        "ab_share": 0.0,
        "shadow": False,
        "previous": before.get("champion"),
    }
    write_json(folder / DEPLOYMENT_FILE, deployment)
    return deployment
