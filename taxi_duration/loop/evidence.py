"""What a prediction is traced with: the log's row, the card, and who recorded their digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from taxi_duration import environment
from taxi_duration.domain.version import bundle_folder
from taxi_duration.errors import BundleError, TrackingError
from taxi_duration.files import ChainedLine, sha256_file
from taxi_duration.live.audit import audit_lines, lines_about
from taxi_duration.live.deployment import Change, history_lines
from taxi_duration.model.bundle import CARD_FILE, load_card
from taxi_duration.registry.witness import Witness, ask_mlflow

# From the worst to the best: a trace is what its worst link is. `recorded` is as good as
# verified: nothing could contradict it.
CHANGED, MISSING, UNKNOWN = "CHANGED", "missing", "unknown"
VERIFIED, RECORDED = "verified", "recorded"
AUDIT, MLFLOW = "the audit trail", "MLflow"  # who recorded digests


class Link(NamedTuple):
    """One thing in the chain: what it is, what is known of it, and whether it still is so.

    `status` is verified (all recorded digests agree), CHANGED (one differs), missing, unknown
    (none was recorded, or cannot be read), or recorded (logged, with nothing to check it by).
    """

    kind: str
    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class Evidence:
    """All that the links of one prediction are made of.

    Args:
        row: of the prediction log.
        card: None when it cannot be read; `problem` then says why.
        mlflow: None when the store cannot be asked; `silence` then says why.
        audit, history: the lines of the two trails.
    """

    row: dict[str, Any]
    card: dict[str, Any] | None
    problem: Link | None
    mlflow: Witness | None
    silence: str
    audit: list[ChainedLine]
    history: list[tuple[ChainedLine, Change]]

    @property
    def folder(self) -> Path:
        """Of the version's bundle."""
        name, _, number = self.row["model"].partition(":")
        return bundle_folder(name, number)

    @property
    def kept(self) -> list[ChainedLine]:
        """The audit trail's lines about the version."""
        return lines_about(self.audit, self.row["model"], self.row["model_sha256"])

    @property
    def digests(self) -> dict[str, str] | None:
        """What the audit trail says of the version and its run's files; None when nothing."""
        return said_by(self.kept) or None

    def said(self, name: str, in_mlflow: str | None) -> dict[str, str | None]:
        """Return who could know a file's digest, and the digest recorded there; None for none.

        Who cannot be asked at all is left out: that is a link of its own.
        """
        said: dict[str, str | None] = {}
        if self.mlflow:
            said[MLFLOW] = in_mlflow
        if self.digests:
            said[AUDIT] = self.digests.get(name)
        return said


def collect(row: dict[str, Any]) -> Evidence:
    """Gather what can be known of a prediction now."""
    name, _, number = row["model"].partition(":")
    card, problem = None, None
    try:
        card = load_card(bundle_folder(name, number), environment.signing_key(), row["model"])
    except BundleError as error:
        there = (bundle_folder(name, number) / CARD_FILE).exists()
        problem = Link("card", row["model"], CHANGED if there else MISSING, str(error))
    mlflow, silence = None, ""
    try:
        mlflow = ask_mlflow(name, number, card["model_kind"] if card else "")
    except TrackingError as error:
        silence = str(error)
    return Evidence(row, card, problem, mlflow, silence, audit_lines(), history_lines())


def compare(
    kind: str, name: str, found: str | None, said: dict[str, str | None], more: str = ""
) -> Link:
    """Return a link of a digest.

    Args:
        found: SHA-256 as it is now; None when there is no such file.
        said: by who recorded it, as `Evidence.said`.
        more: for the end of the detail.
    """
    against = [who for who, digest in said.items() if digest not in (None, found)]
    silent = [who for who, digest in said.items() if digest is None]
    if found is None:
        status, detail = MISSING, "it is not there"
        if against:
            detail += f"; {_and(against)} knew SHA-256 {str(said[against[0]])[:16]}…"
    elif against:
        digest = str(said[against[0]])
        status = CHANGED
        detail = f"SHA-256 is {found[:16]}…, {_and(against)} knew {digest[:16]}…"
    elif silent or not said:
        status = UNKNOWN
        detail = f"SHA-256 {found}; {_and(silent) or 'nobody'} has no digest of it"
    else:
        status, detail = VERIFIED, f"SHA-256 {found}, as {_and(list(said))} knew"
    return Link(kind, name, status, detail + more)


def said_by(lines: list[ChainedLine]) -> dict[str, str]:
    """Return the digests in lines of the audit trail, by what they are of; the last ones win."""
    found: dict[str, str] = {}
    for line in lines:
        said = line.record.get("sha256")
        found |= said if isinstance(said, dict) else {}
    return found


def digest_of(path: Path) -> str | None:
    """Return a file's SHA-256 as it is now, None when it is not there."""
    return sha256_file(path) if path.is_file() else None


def _and(names: list[str]) -> str:
    *first, last = names or [""]
    return f"{', '.join(first)} and {last}" if first else last
