"""What serves: deployment.json with champion and challenger, and the history of who served.

`deployment.json` is the truth, replaced in one step; `history.jsonl` has a line for every
change and is only ever added to. Repeating a command changes nothing and adds no line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.domain.references import name_of
from taxi_duration.errors import DeploymentError, NotFoundError, SettingError
from taxi_duration.files import append_json_line, read_json, read_json_lines, write_json

logger = logging.getLogger(__name__)

DEPLOYMENT_FILE = "deployment.json"
HISTORY_FILE = "history.jsonl"
MAX_EARLIER = 20  # champions that can be gone back through
ENTRY_FIELDS = ("name", "version", "model_sha256", "data_source")

Deployment = dict[str, Any]


def read_deployment() -> Deployment | None:
    """Return the content of deployment.json, None when nothing is deployed yet.

    `champion` and `challenger` have `name`, `version`, `model_sha256` and `data_source`;
    `previous` is the champion that a rollback puts back, the last of `earlier`.

    Raises:
        DeploymentError: the file is there and does not say who serves.
    """
    path = environment.deployment_dir() / DEPLOYMENT_FILE
    if not path.exists():
        return None
    try:
        deployment = read_json(path)
        for field in ENTRY_FIELDS:
            deployment["champion"][field]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DeploymentError(
            f"{DEPLOYMENT_FILE} cannot be read ({error!r}); "
            "`python pipeline.py promote NAME:VERSION` or `rollback` writes it anew"
        ) from error
    return deployment


def deploy_champion(card: dict[str, Any], reason: str) -> Deployment:
    """Make a registered version the champion, effective as soon as the service looks.

    A challenger was tested against the old champion, so its test ends here. Promoting what
    already is champion changes nothing.

    Args:
        card: the version's card; `name`, `version` and `model_sha256` are taken from it.
        reason: goes to the history.
    """
    champion = _entry(card)

    def change(now: Deployment | None) -> Deployment | None:
        if now is None:
            return _alone(champion, [])
        if now["champion"] == champion:
            return None
        return _alone(champion, [*_earlier(now), now["champion"]])

    return _apply("promote", reason, change)


def set_challenger(
    card: dict[str, Any], reason: str, ab_share: float = 0.0, shadow: bool = False
) -> Deployment:
    """Test a version beside the champion; replaces another challenger and its shares.

    Args:
        card: the challenger's card.
        reason: goes to the history.
        ab_share: share of rides that it answers, 0 to 1.
        shadow: let it answer the champion's rides too, for the log alone.
    Raises:
        NotFoundError: there is no champion to test it against.
        SettingError: the share is outside 0 to 1, or it is the champion itself.
    """
    if not 0 <= ab_share <= 1:
        raise SettingError(f"the A/B share is {ab_share!r}; it must be a number from 0 to 1")
    challenger = _entry(card)

    def change(now: Deployment | None) -> Deployment | None:
        if now is None:
            raise NotFoundError("nothing is deployed; a challenger needs a champion to beat")
        if now["champion"] == challenger:
            raise SettingError(f"{name_of(challenger)} is the champion, it cannot challenge itself")
        wanted = {"challenger": challenger, "ab_share": float(ab_share), "shadow": bool(shadow)}
        return None if wanted.items() <= now.items() else {**now, **wanted}

    return _apply("challenge", reason, change)


def drop_challenger(reason: str) -> Deployment | None:
    """End the test; the champion answers alone. Returns None when nothing is deployed."""

    def change(now: Deployment | None) -> Deployment | None:
        if now is None or now["challenger"] is None:
            return None
        return _alone(now["champion"], _earlier(now))

    return _apply("drop", reason, change)


def roll_back(reason: str) -> Deployment:
    """Put the champion before the present one back; a second rollback goes one further back.

    The version rolled back from is not gone back to: promote it when it is wanted again.
    A challenger leaves too, so that after trouble one known model answers everything.

    Raises:
        NotFoundError: nothing is deployed, or nothing was before it.
    """

    def change(now: Deployment | None) -> Deployment:
        if now is None or not _earlier(now):
            raise NotFoundError("there is no earlier champion to roll back to")
        *earlier, champion = _earlier(now)
        return _alone(champion, earlier)

    return _apply("rollback", reason, change)


def read_history() -> list[dict[str, Any]]:
    """Return who served when, oldest first; a line cut by a crash is left out."""
    return read_json_lines(environment.deployment_dir() / HISTORY_FILE)


def who_serves() -> dict[str, str]:
    """Return what each serving version does and since when, by `name:version`."""
    deployment = read_deployment()
    if deployment is None:
        return {}
    share, shadow = deployment["ab_share"], deployment["shadow"]
    parts = {"champion": f"champion, {1 - share:.0%}"}
    if deployment["challenger"]:
        parts["challenger"] = "challenger, shadow" if shadow else f"challenger, {share:.0%}"
    return {
        name_of(deployment[role]): f"{part} since {_since(role, deployment)}"
        for role, part in parts.items()
    }


def _since(role: str, deployment: Deployment) -> str:
    """When the version took its role and share without a break, to the second."""
    since = deployment["updated"]
    for line in reversed(read_history()):
        if any(line.get(key) != deployment[key] for key in (role, "ab_share")):
            break
        since = line["at"]
    return since[:19]


def _entry(card: dict[str, Any]) -> dict[str, Any]:
    return {field: card[field] for field in ENTRY_FIELDS}


def _earlier(now: Deployment) -> list[dict[str, Any]]:
    """Champions before the present one, oldest first."""
    return now.get("earlier") or ([now["previous"]] if now.get("previous") else [])


def _alone(champion: dict[str, Any], earlier: list[dict[str, Any]]) -> Deployment:
    """A deployment of one champion and no challenger."""
    earlier = earlier[-MAX_EARLIER:]
    return {
        "champion": champion,
        "challenger": None,
        "ab_share": 0.0,
        "shadow": False,
        "previous": earlier[-1] if earlier else None,
        "earlier": earlier,
    }


def _apply(
    action: str, reason: str, change: Callable[[Deployment | None], Deployment | None]
) -> Any:
    """Read, change and write under one lock; a change of None leaves everything as it is."""
    from filelock import FileLock  # only who deploys needs it; the service just reads

    folder = environment.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        now = _read_or_recover()
        deployment = change(now)
        if deployment is None:
            return now
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        deployment = {"updated": at, **{k: v for k, v in deployment.items() if k != "updated"}}
        # The history is written first: a crash in between leaves a line too many, never one
        # too few.
        _add_history(folder, at, action, deployment, reason)
        write_json(folder / DEPLOYMENT_FILE, deployment)
        return deployment


def _read_or_recover() -> Deployment | None:
    """Return the deployment; where an editor or a disk spoiled it, as the history has it."""
    try:
        return read_deployment()
    except DeploymentError as error:
        logger.warning("%s; the history is taken instead", error)
    champions: list[dict[str, Any]] = []
    for line in read_history():
        if line["action"] == "rollback" and champions[-2:-1] == [line["champion"]]:
            champions.pop()
        elif [line["champion"]] != champions[-1:]:
            champions.append(line["champion"])
    return _alone(champions[-1], champions[:-1]) if champions else None


def _add_history(folder: Path, at: str, action: str, deployment: Deployment, reason: str) -> None:
    served = ("champion", "challenger", "ab_share", "shadow")
    record = {"at": at, "action": action, **{k: deployment[k] for k in served}, "reason": reason}
    append_json_line(folder / HISTORY_FILE, record)
