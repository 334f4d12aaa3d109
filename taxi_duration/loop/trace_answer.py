"""The links of the answer itself: what was asked and logged, by which model, in which role."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from taxi_duration import environment
from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.errors import BundleError
from taxi_duration.files import UNCHAINED, ChainedLine
from taxi_duration.live.deployment import HISTORY_FILE, Change
from taxi_duration.live.log_tables import BASE, LIVE
from taxi_duration.live.traffic_now import NO_TRAFFIC, Traffic, all_in_traffic
from taxi_duration.loop.evidence import (
    CHANGED,
    MISSING,
    MLFLOW,
    RECORDED,
    UNKNOWN,
    VERIFIED,
    Evidence,
    Link,
    compare,
    digest_of,
)
from taxi_duration.model.bundle import MODEL_FILE, load_bundle
from taxi_duration.registry.witness import history_tag

SAME_MINUTES = 1e-3  # float32 against the ride-by-ride path
# A service looks at deployment.json every 2 s, then loads and warms the new model: until that is
# done the one before answers. The largest model takes seconds; a busy machine some more.
CHANGE_SECONDS = 60.0
# An id begins with its time in milliseconds; the row's is taken when the answer is there, which
# for the largest array is seconds later.
ANSWER_SECONDS = 60.0
ID = re.compile(r"([0-9a-f]{12})[0-9a-f]{20}")
MINUTES = ("duration", "p10", "p50", "p90")
EXACT = ("support", "used_distance")


def answer_links(evidence: Evidence) -> Iterator[Link]:
    """Yield the links of the prediction, its feedback, its model's role, the answer, the shadow."""
    row = evidence.row
    yield _prediction_link(row)
    if row["true_duration"] is not None:
        yield _feedback_link(row)
    yield _deployment_link(evidence)
    yield _model_link(evidence)
    yield _answer_link(evidence)
    if row["shadow_model"] is not None:
        yield _shadow_link(evidence)


def _prediction_link(row: dict[str, Any]) -> Link:
    asked = f"zone {row['PULocationID']} to {row['DOLocationID']} at {row['pickup_at']}"
    miles = "" if row["trip_distance"] is None else f", {row['trip_distance']:g} miles"
    miles += "" if row["used_distance"] or not miles else ", which no ride between them can have"
    detail = (
        f"{asked}{miles}: {row['duration']:.2f} min ({row['p10']:.2f} to {row['p90']:.2f}), "
        f"{row['support']} past trips, by {row['arm']} {row['model']}"
    )
    if row["traceparent"] is not None:
        detail += f", in trace {row['traceparent']}"
    status, made = RECORDED, ID.fullmatch(row["prediction_id"])
    if made and abs(int(made[1], 16) / 1000 - row["asked_at"]) > ANSWER_SECONDS:
        status, detail = CHANGED, f"its id was made at another time than the row says; {detail}"
    return Link("prediction", row["prediction_id"], status, detail)


def _feedback_link(row: dict[str, Any]) -> Link:
    """It comes from the client: only its time can be checked."""
    early = row["received_at"] < row["asked_at"]
    detail = f"it took {row['true_duration']:.2f} min"
    detail += ", received before it was asked, or the clock was set back" if early else ""
    return Link("feedback", row["prediction_id"], CHANGED if early else RECORDED, detail)


# --- who served ------------------------------------------------------------------------------


def _deployment_link(evidence: Evidence) -> Link:
    """The change that gave the version the role in which it answered, from the history."""
    row = evidence.row
    name = f"{row['model']} as {row['arm']}"
    if not evidence.history:
        return Link("deployment", name, MISSING, f"{HISTORY_FILE} has no line")
    then = _at(evidence, row["asked_at"])
    if not then and _may_hold(evidence, row) is None:
        began = evidence.history[0][1].at
        return Link("deployment", name, MISSING, f"{HISTORY_FILE} begins later, at {began}")
    held = [i for i in then if _holds(evidence.history[i][1], row)]
    if not held and (may := _may_hold(evidence, row)) is not None:
        detail = (
            f"{may.action} at {may.at}: {may.reason}; a clock was set back: whether the answer was "
            "given after that change is not known"
        )
        return Link("deployment", name, UNKNOWN, detail)
    if not held:
        served = getattr(evidence.history[then[-1]][1], row["arm"], None)
        return Link("deployment", name, CHANGED,
                    f"{served.ref if served else 'nobody'} was {row['arm']} then")  # fmt: skip
    first = held[-1]
    while first and _holds(evidence.history[first - 1][1], row):
        first -= 1
    line, change = evidence.history[first]
    status, why = _copied(evidence, line, change)
    return Link("deployment", name, status, f"{change.action} at {change.at}: {change.reason}{why}")


def _at(evidence: Evidence, asked_at: float) -> list[int]:
    """Positions of the changes that were in force when the ride was asked, or just before."""
    starts = [change.when for _, change in evidence.history]
    ends = [*starts[1:], math.inf]
    return [i for i, (start, end) in enumerate(zip(starts, ends, strict=False))
            if start <= asked_at < end + CHANGE_SECONDS]  # fmt: skip


def _may_hold(evidence: Evidence, row: dict[str, Any]) -> Change | None:
    """A change that gave the version its role, of which a clock set back since hides the time.

    Until it is reached again the clock shows times before the change, after the change.
    """
    times = [change.when for _, change in evidence.history]
    for i, (_, change) in enumerate(evidence.history):
        shown = min([*times[i:], time.time()])
        ended = max(times[: i + 2]) if i + 1 < len(times) else math.inf
        if shown <= row["asked_at"] < ended + CHANGE_SECONDS and _holds(change, row):
            return change
    return None


def _holds(change: Change, row: dict[str, Any]) -> bool:
    """True when the version has its role by this change."""
    version: Version | None = getattr(change, row["arm"], None)
    return version is not None and (version.ref, version.sha256) == (
        row["model"], row["model_sha256"],
    )  # fmt: skip


def _copied(evidence: Evidence, line: ChainedLine, change: Change) -> tuple[str, str]:
    """Whether MLflow has the same line."""
    if evidence.mlflow:
        known = evidence.mlflow.history.get(history_tag(change.at))
        if known is None:
            return UNKNOWN, f"; {MLFLOW} has no copy of this line"
        same = known == line.sha256
        return (VERIFIED, "") if same else (CHANGED, f"; {MLFLOW} knows this line otherwise")
    return (
        (UNKNOWN, "; from before lines were chained") if line.tie == UNCHAINED else (VERIFIED, "")
    )


# --- the model -------------------------------------------------------------------------------


def _model_link(evidence: Evidence) -> Link:
    """The model's bytes now against the digest in the log and all other records of it."""
    mlflow = evidence.mlflow
    tags = (mlflow.tags if mlflow else None) or {}
    said = {"the log": evidence.row["model_sha256"]}
    said |= evidence.said(MODEL_FILE, tags.get("model_sha256"))
    if evidence.card:
        said["the card"] = evidence.card["model_sha256"]
    name = f"{evidence.row['model']} {MODEL_FILE}"
    return compare("model", name, digest_of(evidence.folder / MODEL_FILE), said)


def _answer_link(evidence: Evidence) -> Link:
    """Ask the model the same again: all of the logged answer must come out."""
    row = evidence.row
    return _ask_again("answer", row, row["model"], row["model_sha256"], "", (*MINUTES, *EXACT))


def _shadow_link(evidence: Evidence) -> Link:
    """Ask the model that answered in the shadow too; it must have been under test then."""
    row = evidence.row
    ref, sha256 = row["shadow_model"], row["shadow_model_sha256"]
    versions = [
        value
        for i in _at(evidence, row["asked_at"])
        for value in structs.asdict(evidence.history[i][1]).values()
        if isinstance(value, Version)
    ]
    if evidence.history and (ref, sha256) not in [(v.ref, v.sha256) for v in versions]:
        detail = f"by {ref}, which had no part in what served then"
        return Link("shadow", row["prediction_id"], CHANGED, detail)
    return _ask_again("shadow", row, ref, sha256, "shadow_", MINUTES)


def _ask_again(
    kind: str, row: dict[str, Any], ref: str, sha256: str, prefix: str, names: tuple[str, ...]
) -> Link:
    """A link of the answer that a version gives now against the one that was logged.

    Args:
        ref, sha256: the version.
        prefix: of the logged fields.
        names: the fields to compare.
    """
    name, _, number = ref.partition(":")
    try:
        model, card = load_bundle(bundle_folder(name, number), environment.signing_key(), ref)
        if card["model_sha256"] != sha256:
            raise BundleError(f"models/{name}/{number} holds another model")
    except BundleError as error:
        return Link(kind, row["prediction_id"], UNKNOWN, f"cannot be repeated: {error}")
    # Older releases gave riders what a linear model said, also beyond the limits of a trip.
    if SHORTEST_MINUTES <= row[f"{prefix}duration"] <= LONGEST_MINUTES:
        model = model.for_riders()
    try:
        answers = model.answer(Rides.from_dicts([{**row, "pickup_datetime": row["pickup_at"]}]))
    except (ValueError, IndexError, OverflowError) as error:  # no ride that was ever answered
        return Link(kind, row["prediction_id"], CHANGED, f"no such ride can be asked: {error}")
    traffic = Traffic(*(row[prefix + name] for name in LIVE))
    given = answers if traffic == NO_TRAFFIC else all_in_traffic(answers, traffic)
    again = {field: getattr(given, field)[0] for field in names}
    again |= {f"base_{field}": getattr(answers, field)[0] for field in MINUTES}
    names += tuple(f for f in BASE if row[prefix + f] is not None)
    other = [f for f in names if not _same(f, again[f], row[prefix + f])]
    if not other:
        detail = f"asked again, {ref} says the same {again['duration']:.3f} min{_said_of(traffic)}"
        return Link(kind, row["prediction_id"], VERIFIED, detail)
    now = ", ".join(f"{f} {again[f]:.6g} (logged {row[prefix + f]:.6g})" for f in other)
    # The hours' conditions may have been corrected since; the card says that they were used.
    status = UNKNOWN if card.get("extra_features") else CHANGED
    return Link(kind, row["prediction_id"], status, f"asked again, {ref} says {now}")


def _said_of(traffic: Traffic) -> str:
    if traffic == NO_TRAFFIC:
        return ""
    stretch = f"{traffic.low:g} below and {traffic.high:g} above its middle"
    return f", times {traffic.factor:g} for the traffic, its interval stretched by {stretch}"


def _same(field: str, again: Any, logged: Any) -> bool:
    if field in EXACT:
        return bool(again == logged)
    return bool(abs(again - logged) <= SAME_MINUTES)
