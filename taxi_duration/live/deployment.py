"""What is deployed: deployment.json with champion and challenger, and the history of changes.

`deployment.json` decides, and is replaced atomically; `history.jsonl` is append-only, with one line
per change, chained to the line before. Repeating a command changes nothing and adds no line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, to_builtins
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.errors import (
    ContentError,
    DeploymentError,
    NotFoundError,
    OvertakenError,
    SettingError,
)
from taxi_duration.files import (
    ChainedLine,
    append_json_line,
    read_chain,
    read_json,
    typed,
    write_json,
)
from taxi_duration.live.audit import record
from taxi_duration.timestamps import iso_now

logger = logging.getLogger(__name__)

DEPLOYMENT_FILE = "deployment.json"
HISTORY_FILE = "history.jsonl"
MAX_DEPLOYMENT_BYTES = 1 << 20  # usually some 5,000
MAX_EARLIER = 20  # champions that rollbacks can reach

Share = Annotated[float, Meta(ge=0, le=1)]


class Deployment(Struct, frozen=True):
    """Which versions serve, and in which roles.

    Args:
        champion: answers every ride that the challenger does not.
        challenger: the version under test, if there is one.
        ab_share: the share of rides that the challenger answers, 0 to 1.
        shadow: both answer every ride; the answer that the rider does not get is only logged.
        earlier: champions before the present one, oldest first.
        updated: when the file was last changed, ISO.
    """

    champion: Version
    challenger: Version | None = None
    ab_share: Share = 0.0
    shadow: bool = False
    earlier: tuple[Version, ...] = ()
    updated: str = ""

    @property
    def previous(self) -> Version | None:
        """The champion that a rollback puts back."""
        return self.earlier[-1] if self.earlier else None

    @property
    def is_baking(self) -> bool:
        """True while the previous champion answers in shadow, to return if it is more accurate."""
        is_earlier = self.challenger is not None and self.challenger == self.previous
        return is_earlier and self.shadow and self.ab_share == 0

    def as_dict(self) -> dict[str, Any]:
        """Return the content of deployment.json."""
        fields = to_builtins(self)
        names = ("updated", "champion", "challenger", "ab_share", "shadow")
        previous = to_builtins(self.previous)
        return {n: fields[n] for n in names} | {"previous": previous, "earlier": fields["earlier"]}


class Change(Struct, frozen=True):
    """A line of the history: who serves from `at` (ISO) on, and why."""

    at: str
    action: str
    champion: Version
    challenger: Version | None
    ab_share: Share
    shadow: bool
    reason: str

    @property
    def when(self) -> float:
        """Unix seconds."""
        return datetime.fromisoformat(self.at).timestamp()


def read_deployment(folder: Path | None = None) -> Deployment | None:
    """Return what deployment.json says, None when nothing is deployed yet.

    Args:
        folder: that holds it; the configured one when None.
    Raises:
        DeploymentError: the file exists but cannot be read or is not valid.
    """
    path = (folder or environment.deployment_dir()) / DEPLOYMENT_FILE
    try:
        content = read_json(path, MAX_DEPLOYMENT_BYTES)
        # The first releases kept one earlier champion, as `previous`.
        if isinstance(content, dict) and "earlier" not in content and content.get("previous"):
            content["earlier"] = [content["previous"]]
        return typed(content, Deployment)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        remedy = "`python pipeline.py promote NAME:VERSION` or `rollback` writes it anew"
        if isinstance(error, OSError) or path.is_dir():  # no file takes a folder's place
            remedy = "a file that this user can read and write must lie there, or nothing"
        raise DeploymentError(f"{DEPLOYMENT_FILE} cannot be read ({error}); {remedy}") from error


def deploy_champion(
    champion: Version,
    reason: str,
    bake: bool = False,
    who: str | None = None,
    seen: Deployment | None = None,
) -> Deployment:
    """Make a registered version the champion; the service takes it within two seconds.

    A running test was against the old champion and ends. Promoting the champion changes nothing.

    Args:
        champion: the version.
        reason: goes to the history.
        bake: let the previous champion answer in shadow until the loop has decided between them.
        who: the person who asked for it, for a line in the audit trail; None when the caller
            has recorded the decision.
        seen: what the decision was made on; None: whatever it is now. This and `who` are the same
            for the other changes.
    Raises:
        OvertakenError: the deployment is another than the one that was seen.
    """

    def change(now: Deployment | None) -> Deployment:
        if now is None:
            return _alone(champion, ())
        if now.champion == champion:
            return now
        alone = _alone(champion, (*now.earlier, now.champion))
        return replace(alone, challenger=now.champion, shadow=True) if bake else alone

    return _apply("promote", reason, change, who, seen)


def deploy_first(version: Version, reason: str) -> Deployment:
    """Make a version the champion where nothing is deployed; return what is deployed then.

    Another process may deploy its own at the same moment: one of the two does, and stays.

    Args:
        version, reason: as in `deploy_champion`.
    """
    return _apply("promote", reason, lambda now: now or _alone(version, ()), None, None)


def set_challenger(
    challenger: Version,
    reason: str,
    ab_share: float = 0.0,
    shadow: bool = True,
    who: str | None = None,
    seen: Deployment | None = None,
) -> Deployment:
    """Test a version beside the champion, in place of any other challenger.

    Args:
        challenger: the version.
        reason: goes to the history.
        ab_share: share of rides that it answers, 0 to 1.
        shadow: let both answer every ride, one of them for the log alone; the loop cannot judge
            without it, and turns it on.
        who, seen: as in `deploy_champion`.
    Raises:
        NotFoundError: there is no champion to test it against.
        SettingError: the share is not within 0 to 1, or the version is the champion.
    """
    if not 0 <= ab_share <= 1:
        raise SettingError(f"the A/B share is {ab_share!r}; it must be a number from 0 to 1")

    def change(now: Deployment | None) -> Deployment:
        if now is None:
            raise NotFoundError("nothing is deployed; a challenger needs a champion to beat")
        if now.champion == challenger:
            raise SettingError(f"{challenger.ref} is the champion, it cannot challenge itself")
        return replace(now, challenger=challenger, ab_share=float(ab_share), shadow=shadow)

    return _apply("challenge", reason, change, who, seen)


def drop_challenger(
    reason: str, who: str | None = None, seen: Deployment | None = None
) -> Deployment:
    """End the test; the champion answers alone.

    Raises:
        NotFoundError: nothing is deployed.
    """

    def change(now: Deployment | None) -> Deployment:
        if now is None:
            raise NotFoundError("nothing is deployed; there is no challenger to drop")
        return now if now.challenger is None else _alone(now.champion, now.earlier)

    return _apply("drop", reason, change, who, seen)


def roll_back(reason: str, who: str | None = None, seen: Deployment | None = None) -> Deployment:
    """Put the previous champion back; another rollback goes one further back.

    Rollbacks never return to the version rolled back from: promote it if it is wanted again.
    A challenger is dropped too, so that one known model answers everything.

    Raises:
        NotFoundError: nothing is deployed, or there is no earlier champion.
    """

    def change(now: Deployment | None) -> Deployment:
        if now is None or now.previous is None:
            raise NotFoundError("there is no earlier champion to roll back to")
        return _alone(now.previous, now.earlier[:-1])

    return _apply("rollback", reason, change, who, seen)


def read_history() -> list[Change]:
    """Return the changes, oldest first; a line cut by a crash is left out."""
    return [change for _, change in history_lines()]


def history_lines() -> list[tuple[ChainedLine, Change]]:
    """Return the changes with their lines in the hash chain; invalid lines are left out."""
    changes = []
    for line in read_chain(environment.deployment_dir() / HISTORY_FILE):
        with suppress(ContentError, ValueError):  # another format, or no valid time
            change = typed(line.record, Change, HISTORY_FILE)
            datetime.fromisoformat(change.at)
            changes.append((line, change))
    return changes


def who_serves() -> dict[str, str]:
    """Return role and start of each serving version as text, by `name:version`."""
    deployment = read_deployment()
    if deployment is None:
        return {}
    share = deployment.ab_share if deployment.challenger else 0.0
    bakes = deployment.is_baking
    parts = {deployment.champion: f"champion, {1 - share:.0%}{' (baking)' if bakes else ''}"}
    if deployment.challenger:
        does = [f"{share:.0%}"] if share or not deployment.shadow else []
        does += ["shadow"] if deployment.shadow else []
        role = "earlier champion" if bakes else "challenger"
        parts[deployment.challenger] = f"{role}, {' and '.join(does)}"
    return {
        version.ref: f"{part} since {_since(version, deployment)}"
        for version, part in parts.items()
    }


def _since(version: Version, deployment: Deployment) -> str:
    """Return since when the version has had its role and share without a break, ISO, seconds."""
    role = "champion" if version == deployment.champion else "challenger"
    since = deployment.updated
    for line in reversed(read_history()):
        if (getattr(line, role), line.ab_share) != (version, deployment.ab_share):
            break
        since = line.at
    return since[:19]


def _alone(champion: Version, earlier: tuple[Version, ...]) -> Deployment:
    """Return a deployment of one champion and no challenger."""
    return Deployment(champion, earlier=earlier[-MAX_EARLIER:])


def _apply(
    action: str,
    reason: str,
    change: Callable[[Deployment | None], Deployment],
    who: str | None,
    seen: Deployment | None,
) -> Deployment:
    """Read, change and write under one lock; write nothing when nothing changes.

    A damaged file is written anew in any case.
    """
    from filelock import FileLock  # the service, which only reads, does not have it

    folder = environment.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        now, is_damaged = _read_or_recover()
        if seen is not None and now != seen:
            raise OvertakenError("who serves was changed by somebody else in the meantime")
        wanted = change(now)
        if wanted == now and not is_damaged:
            return now
        if who is not None:
            _record_request(who, action, reason, now, wanted)
        at = iso_now()
        wanted = replace(wanted, updated=at)
        # The history first: a crash in between leaves a line too many, never one too few.
        line = Change(
            at, action, wanted.champion, wanted.challenger, wanted.ab_share, wanted.shadow, reason
        )
        append_json_line(folder / HISTORY_FILE, to_builtins(line))
        write_json(folder / DEPLOYMENT_FILE, wanted.as_dict())
        return wanted


def _record_request(
    who: str, action: str, reason: str, now: Deployment | None, wanted: Deployment
) -> None:
    """Record a person's request in the audit trail; the key keeps repeats to one line."""
    about = {"challenge": wanted.challenger, "drop": now and now.challenger}.get(action)
    ref = (about or wanted.champion).ref
    began = now.updated if now else None
    record(f"{action} {ref}", reason, key=f"{action}:{ref}:{began}:{reason}", who=who)


def _read_or_recover() -> tuple[Deployment | None, bool]:
    """Return the deployment, and whether the file is damaged and the history was taken instead.

    Raises:
        DeploymentError: the file exists but cannot be read from disk now, or a folder is there.
    """
    try:
        return read_deployment(), False
    except DeploymentError as error:
        path = environment.deployment_dir() / DEPLOYMENT_FILE
        if isinstance(error.__cause__, OSError) or path.is_dir():
            raise
        logger.warning("%s; the history is taken instead", error)
    champions: list[Version] = []
    for line in read_history():
        if line.action == "rollback" and champions[-2:-1] == [line.champion]:
            champions.pop()
        elif [line.champion] != champions[-1:]:
            champions.append(line.champion)
    return (_alone(champions[-1], tuple(champions[:-1])) if champions else None), True
