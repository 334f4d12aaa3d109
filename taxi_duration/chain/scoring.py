"""Batch scoring: months in, a Parquet file of answers out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.answered import alone_at, forget_answers, write_answered
from taxi_duration.data.addresses import WRITTEN, check_address
from taxi_duration.data.prepared import PreparedMonth, prepare_months
from taxi_duration.data.remote import open_source, with_retries
from taxi_duration.data.window import MonthPart
from taxi_duration.domain.months import (
    Month,
    check_available,
    check_service,
    format_months,
    parse_months,
)
from taxi_duration.domain.version import Version, model_name
from taxi_duration.errors import SettingError, SourceError, SourceUnreachableError
from taxi_duration.evaluation.metrics import answer_figures
from taxi_duration.files import code_digest
from taxi_duration.model.bundle import load_bundle, reference_of
from taxi_duration.model.made_with import other_versions
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import find_bundle, list_versions

log = logging.getLogger(__name__)


# Shelves whose code decides what is answered, and what is summed of it.
MONTHS_TEXT = 100  # characters of a file's name, which has 255 with all that is added
ANSWERING = ("domain", "data", "model", "evaluation")


@dataclass(frozen=True)
class ScoredMonths:
    """What was scored, how right it was (minutes), and where the answers are.

    `without_suspects` is the same of the rides without a proven fault, None when all are.
    """

    model: str
    rows: int
    metrics: dict[str, Any]
    path: Path | str
    without_suspects: dict[str, Any] | None = None


def score_months(
    data: str,
    service: str = "green",
    reference: str | None = None,
    out: str | Path | None = None,
    to: str | None = None,
) -> ScoredMonths:
    """Answer every trip of some months and write trips and answers to Parquet.

    A run that was killed goes on with the row group where it was, when it is started again.

    Args:
        data: month tag, range or list.
        service: green, yellow, fhv or fhvhv.
        reference: model to use; the service's champion, else its newest, when None.
        out: file to write; a name in data/scored made of service, months and model when None.
        to: address to send the file to, such as `s3://bucket/key`; it does not stay here then.
    Raises:
        SettingError: both `out` and `to` are given.
        AtWorkError: another process scores to the same file.
        TaxiError: a month, the reference, the bundle or the address is not usable.
    """
    _check_place(out, to)
    service, months = check_service(service), parse_months(data)
    check_available(service, months)
    folder = find_bundle(tracking.connect(), reference or _default_reference(service))
    model, card = load_bundle(folder, environment.signing_key(), reference_of(folder))
    version = Version.of(card)
    if others := other_versions(card["libraries"]):
        log.warning("%s: %s", version.ref, others)
    prepared = prepare_months(service, months)
    path = Path(out) if out else _default_path(service, months, version, to)
    groups = [group for month in prepared for group in MonthPart.of(month, True).groups()]
    with alone_at(path):
        sums = write_answered(model, groups, _about(version, prepared), path)
        where = send_file(path, to) if to else path
        forget_answers(path)
    clean = answer_figures(sums[1]) if any(m.suspects for m in prepared) and sums[1].any() else None
    metrics = answer_figures(sums[0])
    return ScoredMonths(version.ref, metrics["rows"], metrics, where, clean)


def _check_place(out: str | Path | None, to: str | None) -> None:
    if out and to:
        raise SettingError("--out and --to are both given: the file goes to one place")
    if to:
        check_address("--to", to, WRITTEN)


def _about(version: Version, months: Sequence[PreparedMonth]) -> dict[str, str]:
    """What the file's key-value metadata says: which model answered which months."""
    sources = [
        {"month": str(m.raw.month), "file": m.raw.path.name, "sha256": m.raw.sha256,
         "prepared": m.trips_path.stem}
        for m in months
    ]  # fmt: skip
    return {
        "model": version.ref,
        "model_sha256": version.sha256,
        "months": json.dumps(sources),
        "code_sha256": code_digest(ANSWERING),
    }


def send_file(path: Path, to: str) -> str:
    """Send a file to an address, whole or not at all, and remove it here; return the address.

    Raises:
        SourceError: it cannot be sent.
    """
    try:
        if with_retries(to, _put, path, to) is None:
            raise SourceError("no such bucket or folder, or it may not be written to")
    except (SourceError, SourceUnreachableError) as error:
        raise SourceError(f"--to {to}: {error}") from error
    finally:
        path.unlink()
    return to


def _put(path: Path, to: str) -> bool:
    files, name = open_source(to)
    files.put_file(str(path), name)
    return True


def _default_reference(service: str) -> str:
    """The champion; the newest version while none was good enough to serve."""
    name = model_name(service)
    served = any("champion" in row.aliases for row in list_versions(tracking.connect(), name))
    return f"{name}:{'champion' if served else 'latest'}"


def _default_path(service: str, months: list[Month], version: Version, to: str | None) -> Path:
    text = format_months(months)
    if len(text) > MONTHS_TEXT:
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        text = f"{months[0]}_to_{months[-1]}_{len(months)}_months_{digest}"
    stem = f"{service}_{text.replace(':', '_')}-by-{version.name}-{version.number}"
    if to:  # a name of its own: an answered file that lies here is not touched
        stem = f"{hashlib.sha256(to.encode()).hexdigest()[:16]}-{stem}"
    return environment.data_dir() / "scored" / f"{stem}.parquet"
