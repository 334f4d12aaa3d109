"""Aliases, as Docker's tags: words that move from version to version; every move is kept.

MLflow says where an alias points now; `aliases.jsonl` has a line for every change that was made
with this deployment folder, and is only ever added to. Who served when is in `history.jsonl`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from filelock import FileLock

from taxi_duration import environment
from taxi_duration.domain.references import check_alias, parse_reference
from taxi_duration.errors import SettingError
from taxi_duration.files import append_json_line, read_json_lines
from taxi_duration.live.audit import user_name
from taxi_duration.registry.versions import find_version
from taxi_duration.timestamps import iso_now

ALIAS_FILE = "aliases.jsonl"


class AliasChange(NamedTuple):
    """Which version an alias points at and pointed at before; None: at none."""

    name: str
    alias: str
    version: int | None
    before: int | None


def tag_version(client: Any, reference: str, alias: str) -> AliasChange:
    """Let an alias mean a version; it may have meant another before.

    Args:
        client: MlflowClient.
        reference: `NAME:VERSION`, `NAME:ALIAS` or `NAME@sha256:…`.
        alias: such as `stable`.
    Raises:
        SettingError: the reference is not understood, or the alias is not a user's to give.
        NotFoundError: there is no such version.
    """
    check_alias(alias)
    version = find_version(client, reference)
    return set_alias(client, version.name, alias, version.number)


def untag_version(client: Any, reference: str) -> AliasChange:
    """Take an alias away; the version that it meant stays.

    Args:
        client: MlflowClient.
        reference: `NAME:ALIAS`.
    Raises:
        SettingError: it is not an alias, or not a user's to take.
        NotFoundError: there is no such alias.
    """
    ref = parse_reference(reference)
    if ref.alias is None:
        raise SettingError(
            f"{reference} is not an alias; write NAME:ALIAS, such as green-duration:stable "
            "(versions are kept for ever)"
        )
    check_alias(ref.alias)
    find_version(client, reference)
    return set_alias(client, ref.name, ref.alias, None)


def set_alias(client: Any, name: str, alias: str, version: int | None) -> AliasChange:
    """Point an alias at a version, or remove it when the version is None; keep the change.

    Asking for what is so already changes nothing and adds no line.
    """
    folder = environment.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".aliases.lock"):
        before = client.get_registered_model(name).aliases.get(alias)
        change = AliasChange(name, alias, version, int(before) if before else None)
        if change.version == change.before:
            return change
        # Written first: a crash in between leaves a line too many, never one too few.
        at = iso_now()
        append_json_line(folder / ALIAS_FILE, {"at": at, "who": user_name(), **change._asdict()})
        if change.version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(change.version))
        return change


def read_alias_history() -> list[dict[str, Any]]:
    """Return every change of an alias, oldest first: `at`, `who` and those of `AliasChange`.

    A line cut by a crash is left out.
    """
    return read_json_lines(environment.deployment_dir() / ALIAS_FILE)
