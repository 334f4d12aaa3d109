"""The links of what stands behind the model: trails, card, run and its files, source months."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.commit import UNKNOWN as NO_COMMIT
from taxi_duration.chain.run import RUN_FILE
from taxi_duration.data.parts import month_digest
from taxi_duration.files import BROKEN, UNCHAINED, ChainedLine, read_json
from taxi_duration.live.audit import AUDIT_FILE
from taxi_duration.live.deployment import HISTORY_FILE
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
    said_by,
)
from taxi_duration.model.atlas import ATLAS_FILE, atlas_path
from taxi_duration.model.bundle import CARD_FILE, card_digest
from taxi_duration.registry.tracking import flatten_metrics
from taxi_duration.registry.versions import card_facts
from taxi_duration.registry.witness import AUDIT_TAG, history_tag

ROLES = {"train": "training", "validation": "validation"}  # as the card and as MLflow says


def trail_links(evidence: Evidence) -> Iterator[Link]:
    """Yield MLflow's silence, when it cannot be asked, and the links of history and audit trail."""
    if evidence.silence:
        yield Link("MLflow", "store", UNKNOWN, evidence.silence)
    yield _history_link(evidence)
    yield _audit_link(evidence)


def _history_link(evidence: Evidence) -> Link:
    """Every line follows the one before, and all that MLflow knows are there."""
    lines = [line for line, _ in evidence.history]
    known = dict(evidence.mlflow.history) if evidence.mlflow else {}
    if not lines:
        detail = f"no line is there; {MLFLOW} knows {len(known)}"
        return Link("history", HISTORY_FILE, MISSING, detail)
    if broken := _broken(lines):
        return Link("history", HISTORY_FILE, CHANGED, broken)
    here = {history_tag(change.at): line.sha256 for line, change in evidence.history}
    other = [tag for tag, sha256 in known.items() if here.get(tag, sha256) != sha256]
    if other:
        detail = f"{MLFLOW} knows {len(other)} of its {len(lines)} lines otherwise"
        return Link("history", HISTORY_FILE, CHANGED, detail)
    if lost := sorted(known.keys() - here.keys()):
        detail = f"{MLFLOW} knows {len(lost)} lines more, the last {lost[-1]}"
        return Link("history", HISTORY_FILE, MISSING, detail)
    copied = known.keys() & here.keys()
    old = sum(line.tie == UNCHAINED for line, change in evidence.history
              if history_tag(change.at) not in copied)  # fmt: skip
    if old:
        detail = f"{old} lines are from before lines were chained"
        return Link("history", HISTORY_FILE, UNKNOWN, detail)
    return Link("history", HISTORY_FILE, VERIFIED, f"{len(lines)} lines, each tied to the last")


def _audit_link(evidence: Evidence) -> Link:
    """Every line follows the one before, and the version's is there as MLflow knows it."""
    lines, kept = evidence.audit, evidence.kept
    tags = (evidence.mlflow.tags if evidence.mlflow else None) or {}
    known = tags.get(AUDIT_TAG)
    if broken := _broken(lines):
        return Link("audit", AUDIT_FILE, CHANGED, broken)
    if not kept:
        status = MISSING if known else UNKNOWN
        detail = f"no line about {evidence.row['model']}"
        detail += f"; {MLFLOW} knows one" if known else "; it was registered before there were any"
        return Link("audit", AUDIT_FILE, status, detail)
    if known and known not in [line.sha256 for line in kept]:
        detail = f"{MLFLOW} knows another line about {evidence.row['model']}"
        return Link("audit", AUDIT_FILE, CHANGED, detail)
    last = kept[-1].record
    return Link("audit", AUDIT_FILE, VERIFIED, f"{last.get('what')} at {last.get('at')}")


def _broken(lines: list[ChainedLine]) -> str:
    """Where a chain is broken; empty when it is not."""
    broken = [str(line.number) for line in lines if line.tie == BROKEN]
    where = f"line {broken[0]}" if len(broken) == 1 else f"lines {', '.join(broken)}"
    return f"{where}: the line before is not the one that stood there" if broken else ""


# --- card and run ----------------------------------------------------------------------------


def card_links(evidence: Evidence, card: dict[str, Any]) -> Iterator[Link]:
    """Yield the links of the card, of the version in MLflow and of the run that it names."""
    yield _card_link(evidence, card)
    if evidence.mlflow:
        yield _version_link(evidence, card)
    yield from _logged_links(evidence, card)


def _card_link(evidence: Evidence, card: dict[str, Any]) -> Link:
    mlflow = evidence.mlflow
    said = evidence.said(CARD_FILE, ((mlflow.tags if mlflow else None) or {}).get("card_sha256"))
    if mlflow and mlflow.card_sha256:
        said[f"{MLFLOW}'s copy"] = mlflow.card_sha256
    signed = "signed, " if card.get("signature") and environment.signing_key() else ""
    more = f"; {signed}{card['model_kind']} of {card['created']}, run {card['run_id']}"
    if card["model_sha256"] != evidence.row["model_sha256"]:
        more += f"; it describes another model ({card['model_sha256'][:12]}…)"
        return Link("card", evidence.row["model"], CHANGED, more.removeprefix("; "))
    return compare("card", evidence.row["model"], card_digest(card), said, more)


def _version_link(evidence: Evidence, card: dict[str, Any]) -> Link:
    """MLflow's own version: its tags, its run and its copy of the model."""
    mlflow, ref = evidence.mlflow, evidence.row["model"]
    if mlflow is None or mlflow.tags is None:
        return Link("version", ref, MISSING, f"{MLFLOW} has no such version (any more)")
    said = {name: (str(value), mlflow.tags.get(name)) for name, value in card_facts(card).items()}
    if mlflow.parent:
        said["run_id"] = (card["run_id"], mlflow.parent.tags.get("run_id"))
    differs = _differences({name: pair for name, pair in said.items() if pair[1] is not None})
    if mlflow.model_sha256 not in (None, evidence.row["model_sha256"]):
        differs.append(f"its copy of the model has SHA-256 {mlflow.model_sha256[:16]}…")
    if differs:
        return Link("version", ref, CHANGED, f"{MLFLOW} says otherwise: {', '.join(differs)}")
    lost = [what for what, there in (("run", mlflow.parent), ("bundle", mlflow.model_sha256))
            if there is None]  # fmt: skip
    if lost:
        return Link("version", ref, MISSING, f"{MLFLOW} has lost its {' and '.join(lost)}")
    unsaid = [name for name, (_, there) in said.items() if there is None]
    if unsaid:
        return Link("version", ref, UNKNOWN, f"{MLFLOW} does not say its {', '.join(unsaid)}")
    return Link(
        "version", ref, VERIFIED, f"{MLFLOW}'s tags, run and copy of the model are the same"
    )


def _logged_links(evidence: Evidence, card: dict[str, Any]) -> Iterator[Link]:
    """Parameters, metrics and commit of the card against those that were logged as it was made."""
    commit, _, dirty = card["git_commit"].partition("-")
    code = f"git {commit[:12]}{', changed since' if dirty else ''}"
    libraries = ", ".join(f"{name} {version}" for name, version in card["libraries"].items())
    parameters = {name: str(value) for name, value in card["parameters"].items()}
    metrics = flatten_metrics(card["metrics"])
    shown = ", ".join(f"{name}={value}" for name, value in parameters.items())
    score = f"RMSE {card['metrics']['with_distance']['rmse']:.4f} minutes"
    settings = f"train {card['train_data']}, validate {card['val_data']}"
    rows: list[tuple[str, str, Mapping[str, Any], str]] = [
        ("parameters", card["model_kind"], parameters, f"{settings}; {shown}"),
        ("metrics", card["model_kind"], metrics, score),
        ("code", code, {"git_commit": card["git_commit"]}, libraries),
    ]
    child = evidence.mlflow.child if evidence.mlflow else None
    logged: list[Mapping[str, Any]] = (
        [child.parameters, child.metrics, child.tags] if child else [{}, {}, {}]
    )
    for (kind, name, ours, detail), theirs in zip(rows, logged, strict=True):
        if evidence.mlflow is None:
            yield Link(kind, name, UNKNOWN, detail)
        elif child is None:
            yield Link(kind, name, MISSING, f"{MLFLOW} has no run of it (any more); {detail}")
        else:
            differs = _differences({key: (value, theirs.get(key)) for key, value in ours.items()})
            more = f"{MLFLOW} logged otherwise: {', '.join(differs)}; " if differs else ""
            status = CHANGED if differs else VERIFIED
            if kind == "code" and commit == NO_COMMIT and not differs:
                status, more = RECORDED, "no commit was known when it was made; "
            yield Link(kind, name, status, more + detail)


def _differences(said: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Name the values that differ."""
    return [
        f"{name} {str(there)[:60]} (the card: {str(here)[:60]})"
        for name, (here, there) in said.items()
        if not _equal(here, there)
    ]


def _equal(here: Any, there: Any) -> bool:
    if isinstance(here, float) and isinstance(there, float):
        return math.isclose(here, there, rel_tol=1e-9) or (math.isnan(here) and math.isnan(there))
    return bool(here == there)


def file_links(evidence: Evidence, card: dict[str, Any]) -> Iterator[Link]:
    """Yield the links of the run's folder: run.json, executed notebooks, figures, report."""
    folder = environment.runs_dir() / card["run_id"]
    in_mlflow = evidence.mlflow.files if evidence.mlflow else {}
    kept = said_by([each for each in evidence.kept if str(each.record["key"]).startswith("finish")])
    if not folder.is_dir():
        known = len(in_mlflow.keys() | kept.keys())
        detail = f"its folder was removed; the digests of {known} files are known"
        yield Link("run", card["run_id"], MISSING, detail)
        return
    said = evidence.said(RUN_FILE, in_mlflow.get(RUN_FILE))
    found = digest_of(folder / RUN_FILE)
    yield compare("run", RUN_FILE, found, said, f"; run {card['run_id']}")
    noted = _noted(folder)
    for name in sorted((in_mlflow.keys() | kept.keys() | noted.keys()) - {RUN_FILE}):
        said = evidence.said(name, in_mlflow.get(name))
        if name in noted:
            said[RUN_FILE] = noted[name]
        kind = "notebook" if name.endswith(".ipynb") else "file"
        yield compare(kind, name, digest_of(folder / name), said)


def _noted(folder: Path) -> dict[str, str | None]:
    """Digests of executed notebooks as run.json has them; the first releases noted none."""
    try:
        notebooks = read_json(folder / RUN_FILE)["notebooks"]
        return {f"{name}.ipynb": entry.get("sha256") for name, entry in notebooks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # a link of its own says so


# --- what it learned from --------------------------------------------------------------------


def source_links(evidence: Evidence, card: dict[str, Any]) -> Iterator[Link]:
    """Yield the links of what the model learned from: months, atlas, the hours' conditions."""
    yield from _beside_links(card)
    for role, context in ROLES.items():
        months = {month["month"]: month for month in card["months"][role]}
        logged = evidence.mlflow.months if evidence.mlflow else {}
        read = {month: facts for (r, month), facts in logged.items() if r == context}
        if not months and not read:
            yield Link(f"{role} month", "–", MISSING, "the card names none")
        for month in sorted(months.keys() | read.keys()):
            if month in months:
                yield _month_link(evidence, role, months[month], read.get(month))
            else:
                detail = f"{MLFLOW} knows that it was read, the card does not name it"
                yield Link(f"{role} month", month, MISSING, detail)


def _beside_links(card: dict[str, Any]) -> Iterator[Link]:
    """What the model knows beside its months: the atlas, and the user's file of conditions."""
    if atlas := card.get("atlas"):
        same = digest_of(atlas_path()) == atlas["sha256"]
        here = "" if same else "; another is in use now, the model holds its own copy"
        detail = f"SHA-256 {atlas['sha256']}{here}; made of {len(atlas['months'])} earlier months"
        yield Link("atlas", ATLAS_FILE, VERIFIED if same else RECORDED, detail)
    if extra := card.get("extra_features"):
        # The file goes on with every hour, so its bytes of then need not be there any more.
        detail = f"{', '.join(extra['columns'])}; SHA-256 {extra['sha256']}"
        yield Link("conditions", str(extra["file"]), RECORDED, detail)


def _month_link(
    evidence: Evidence, role: str, month: dict[str, Any], logged: dict[str, Any] | None
) -> Link:
    """A source month's bytes now against what the card, MLflow and the audit trail say."""
    found = _month_digest(month)
    said = evidence.said(month["file"], logged["sha256"] if logged else None)
    reasons = ", ".join(f"{code} {n:,}" for code, n in month["reasons"].items() if n)
    where = month["url"] or f"data/{_folder(month)}/{month['file']}"
    more = f"; {where}; {month['rows_read']:,} rows, {month['rows_kept']:,} kept ({reasons})"
    if found is None:
        more = f"; `pipeline.py data` for this month gets it again{more}"
    link = compare(
        f"{role} month", month["month"], found, {"the card": month["sha256"], **said}, more
    )
    names = ("url", "rows_read", "rows_kept", "reasons")
    differs = _differences({n: (month[n], logged[n]) for n in names} if logged else {})
    if differs:
        return link._replace(
            status=CHANGED, detail=f"{MLFLOW} says {', '.join(differs)}; {link.detail}"
        )
    return link


def _month_digest(month: dict[str, Any]) -> str | None:
    """The file's digest now, None without one; of several samples that of the one that was read."""
    folder = environment.data_dir() / _folder(month)
    paths: list[Path] = [folder / month["file"], *sorted(folder.glob(f"*/{month['file']}"))]
    first = None
    for path in paths:
        found = month_digest(path) if path.exists() else None
        if found == month["sha256"]:
            return found
        first = first or found
    return first


def _folder(month: dict[str, Any]) -> str:
    return "sample" if month["data_source"] == "sample" else "raw"
