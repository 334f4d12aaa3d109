"""Digests of what a run made, kept in the audit trail and in MLflow as soon as they are final."""

from __future__ import annotations

import logging
from typing import Any

from taxi_duration.chain.candidates import RESULTS_FILE
from taxi_duration.chain.report import REPORT_FILE
from taxi_duration.chain.run import RUN_FILE, Run
from taxi_duration.domain.version import Version
from taxi_duration.errors import DeletedError
from taxi_duration.files import sha256_file
from taxi_duration.live.audit import audit_lines, record, user_name
from taxi_duration.model.bundle import CARD_FILE, MODEL_FILE, card_digest
from taxi_duration.registry.witness import keep_files

log = logging.getLogger(__name__)

# What is final when a run is done. Its log goes on, and the winner's bundle is in models/.
FINAL = (RUN_FILE, "*.ipynb", RESULTS_FILE, "plots/*.png", REPORT_FILE)


def keep_registered(card: dict[str, Any]) -> None:
    """Keep the digests of a version's bundle and months in the audit trail.

    Safe to repeat: a version has one such line.

    Args:
        card: as registered.
    """
    version = Version.of(card)
    digests = {MODEL_FILE: version.sha256, CARD_FILE: card_digest(card)}
    months = [month for role in card["months"].values() for month in role]
    record(
        f"register {version.ref}",
        f"made by run {card['run_id']}",
        key=f"register {version.ref} {version.sha256}",
        who=f"run ({user_name()})",
        sha256=digests | {month["file"]: month["sha256"] for month in months},
    )


def keep_finished(run: Run) -> None:
    """Keep the digests of a finished run's files in the audit trail and on its version in MLflow.

    Safe to repeat: a line that is there stays as it is, and MLflow gets what it says. A run that
    registered nothing (also because the same model was there), or whose version was deleted in
    MLflow, has no version to keep them for.
    """
    info = run.read()
    if "model" not in info or info["model"].get("made_by", run.run_id) != run.run_id:
        return
    name, number = info["model"]["name"], str(info["model"]["version"])
    try:
        sha256 = run.client.get_model_version(name, number).tags["model_sha256"]
    except DeletedError as error:
        log.warning("the files of run %s are not recorded: %s", run.run_id, error)
        return
    paths = [path for pattern in FINAL for path in sorted(run.folder.glob(pattern))]
    line = record(
        f"finish run {run.run_id}",
        f"made {name}:{number}",
        key=f"finish {name}:{number} {sha256} {info['finished']}",
        who=f"run ({user_name()})",
        sha256={path.relative_to(run.folder).as_posix(): sha256_file(path) for path in paths},
    )
    kept = next(each for each in audit_lines() if each.record.get("key") == line["key"])
    keep_files(run.client, name, number, line["sha256"], kept.sha256)
