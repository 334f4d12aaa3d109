"""What MLflow records of versions, to check cards, runs and history by; and how to read it.

Everything is written when it is final and read again by `trace`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taxi_duration import environment
from taxi_duration.errors import BundleError, DeletedError, RegistryError, TrackingError
from taxi_duration.files import sha256_file
from taxi_duration.live.deployment import history_lines
from taxi_duration.model.bundle import MODEL_FILE, card_digest, load_card
from taxi_duration.registry import tracking
from taxi_duration.registry.pull_bundle import download_bundle

log = logging.getLogger(__name__)

FILES_TAG, AUDIT_TAG = "run_files", "audit_sha256"  # of a version
HISTORY_TAG = "history."  # of a registered model, followed by the line's time


@dataclass(frozen=True)
class Logged:
    """A run as MLflow has it: its parameters, metrics and tags."""

    parameters: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class Witness:
    """What MLflow says of a version; None or empty: it does not know (any more).

    Args:
        tags: the version's.
        parent, child: the run of the notebooks, and the one of the version's kind in it; a
            version that was fitted once more has its own run alone, which is both.
        months: by role (`training`, `validation`) and month: `sha256`, `url` and row counts.
        history: the history's digests, by `history_tag`.
        model_sha256, card_sha256: of the bundle that was registered.
    """

    tags: dict[str, str] | None = None
    parent: Logged | None = None
    child: Logged | None = None
    months: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    history: dict[str, str] = field(default_factory=dict)
    model_sha256: str | None = None
    card_sha256: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """Digests of the run's files by name; none when the tag holds something else."""
        try:
            said = json.loads((self.tags or {}).get(FILES_TAG, "{}"))
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}


def copy_history(client: Any, name: str) -> None:
    """Keep the digest of every line of the history in MLflow, on the registered model.

    What MLflow knows already is never replaced: a history that was rewritten contradicts it.

    Args:
        client: MlflowClient.
        name: of the registered model.
    """
    known = client.get_registered_model(name).tags
    for line, change in history_lines():
        tag = history_tag(change.at)
        if tag not in known:
            client.set_registered_model_tag(name, tag, line.sha256)
        elif known[tag] != line.sha256:
            log.warning("history.jsonl is not as MLflow knows it: line %d differs", line.number)


def history_tag(at: str) -> str:
    """Return the tag of the history's line of this time, in letters that MLflow allows."""
    return HISTORY_TAG + at[:23].replace("-", "").replace(":", "")


def keep_files(
    client: Any, name: str, number: str, files: dict[str, str], audit_sha256: str
) -> None:
    """Keep the digests of a finished run's files on the version that it made.

    Args:
        client: MlflowClient.
        name, number: the version that the run made.
        files: SHA-256 by name.
        audit_sha256: digest of the audit trail's line that says the same.
    """
    for tag, value in ((FILES_TAG, json.dumps(files)), (AUDIT_TAG, audit_sha256)):
        client.set_model_version_tag(name, number, tag, value)


def ask_mlflow(name: str, number: str, kind: str) -> Witness:
    """Return what MLflow knows of a version.

    Args:
        name, number: of the version, as the prediction was logged.
        kind: of its model, such as XGB.
    Raises:
        TrackingError: the store does not answer; says why, in one line.
    """
    folder = environment.tracking_dir()
    if not environment.tracking_server() and not (folder / "mlflow.db").exists():
        raise TrackingError(f"MLflow's store {folder.name}/ is not there")
    try:
        return _ask(tracking.connect(), name, number, kind)
    except (ValueError, KeyError) as error:  # what it has there is not ours
        raise TrackingError(f"MLflow's store says what nobody understands: {error}") from error


def _ask(client: Any, name: str, number: str, kind: str) -> Witness:
    model = _or_none(client.get_registered_model, name)
    registered = _or_none(client.get_model_version, name, number)
    history = {k: v for k, v in (model.tags if model else {}).items() if k.startswith(HISTORY_TAG)}
    if registered is None:
        return Witness(history=history)
    parent = _or_none(client.get_run, registered.run_id)
    if parent is None or parent.info.lifecycle_stage == "deleted":
        return Witness(registered.tags, None, None, {}, history, *_bundle(name, number))
    return Witness(
        registered.tags,
        _logged(parent),
        _child(client, parent, kind),
        {_month_of(each): _facts_of(each) for each in parent.inputs.dataset_inputs},
        history,
        *_bundle(name, number),
    )


def _or_none(ask: Callable[..., Any], *args: str) -> Any:
    """What MLflow answers; None when it says that there is no such thing."""
    try:
        return ask(*args)
    except DeletedError:
        return None


def _logged(run: Any) -> Logged:
    return Logged(run.data.params, run.data.metrics, run.data.tags)


def _child(client: Any, parent: Any, kind: str) -> Logged | None:
    """The run of this kind; of several (the months changed meanwhile) the newest."""
    if parent.data.params:  # a model's; the run of notebooks has none
        return _logged(parent)
    ours = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' AND tags.model_kind = '{kind}'"
    found = client.search_runs([parent.info.experiment_id], ours, max_results=1)
    return _logged(found[0]) if found else None


def _month_of(entry: Any) -> tuple[str, str]:
    (role,) = (tag.value for tag in entry.tags if tag.key == "mlflow.data.context")
    return role, entry.dataset.name.rpartition("_")[2]


def _facts_of(entry: Any) -> dict[str, Any]:
    """What `tracking.log_months` wrote of a month."""
    address = json.loads(entry.dataset.source)["url"]
    url = address if entry.dataset.source_type == "http" else None
    return {**json.loads(entry.dataset.profile), "url": url}


def _bundle(name: str, number: str) -> tuple[str | None, str | None]:
    """Digests of bin and card that were registered; None when they are gone or unreadable."""
    with TemporaryDirectory() as folder:
        try:
            bundle = download_bundle(name, number, Path(folder))
            card = {**load_card(bundle), "name": name, "version": int(number)}
        except (BundleError, RegistryError) as error:
            log.info("%s", error)
            return None, None
        return sha256_file(bundle / MODEL_FILE), card_digest(card)
