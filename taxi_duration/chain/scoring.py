"""Batch scoring: months in, a Parquet file of answers out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from taxi_duration import environment
from taxi_duration.chain.candidates import score_without_suspects
from taxi_duration.data.prepared import concat_trips, prepare_months
from taxi_duration.domain.months import check_available, check_service, format_months, parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version, model_name
from taxi_duration.evaluation.metrics import evaluate
from taxi_duration.files import atomic_path
from taxi_duration.model.bundle import load_bundle, reference_of
from taxi_duration.model.made_with import other_versions
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import find_bundle, list_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredMonths:
    """What was scored, how right it was (minutes), and where the answers are.

    `without_suspects` is the same of the rides without a proven fault, None when all are.
    """

    model: str
    rows: int
    metrics: dict[str, Any]
    path: Path
    without_suspects: dict[str, Any] | None = None


def score_months(
    data: str, service: str = "green", reference: str | None = None, out: str | None = None
) -> ScoredMonths:
    """Answer every trip of some months and write trips and answers to Parquet.

    Args:
        data: month tag, range or list.
        service: green, yellow, fhv or fhvhv.
        reference: model to use; the service's champion, else its newest, when None.
        out: file to write; a name in data/scored made of service, months and model when None.
    Raises:
        TaxiError: a month, the reference or the bundle is not usable.
    """
    service, months = check_service(service), parse_months(data)
    check_available(service, months)
    folder = find_bundle(tracking.connect(), reference or _default_reference(service))
    model, card = load_bundle(folder, environment.signing_key(), reference_of(folder))
    version = Version.of(card)
    if others := other_versions(card["libraries"]):
        log.warning("%s: %s", version.ref, others)
    prepared = prepare_months(service, months)
    trips = concat_trips(prepared)
    rides = Rides.from_frame(trips)
    answers = model.answer(rides)
    scored = trips.assign(
        predicted=answers.duration, p10=answers.p10, p50=answers.p50, p90=answers.p90,
        support=answers.support, used_distance=answers.used_distance,
        model=pd.Categorical([version.ref]).repeat(len(trips)),
    )  # fmt: skip
    path = Path(out) if out else _default_path(service, format_months(months), version)
    with atomic_path(path) as part:
        scored.to_parquet(part, index=False)
    metrics = evaluate(trips["duration"].to_numpy(), answers, rides)
    clean = score_without_suspects(model, prepared).get("without_suspects", {})
    return ScoredMonths(version.ref, len(trips), metrics, path, clean.get("with_distance"))


def _default_reference(service: str) -> str:
    """The champion; the newest version while none was good enough to serve."""
    name = model_name(service)
    served = any("champion" in row.aliases for row in list_versions(tracking.connect(), name))
    return f"{name}:{'champion' if served else 'latest'}"


def _default_path(service: str, months: str, version: Version) -> Path:
    stem = f"{service}_{months.replace(':', '_')}-by-{version.name}-{version.number}"
    return environment.data_dir() / "scored" / f"{stem}.parquet"
