"""From one answer back to the bytes it was learned from, every digest checked now.

Prediction -> version and digest -> run and executed notebooks -> parameters, commit, libraries
-> source months with address, SHA-256 and row accounting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from taxi_duration import environment
from taxi_duration.chain.run import RUN_FILE
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import BundleError, NotFoundError
from taxi_duration.files import read_json, sha256_file
from taxi_duration.live.deployment import read_history
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.model.atlas import ATLAS_FILE, atlas_path
from taxi_duration.model.bundle import MODEL_FILE, load_bundle, load_card

VERIFIED, MISMATCH, MISSING, RECORDED = "verified", "MISMATCH", "missing", "recorded"
SAME_MIN = 1e-3  # float32 against the ride-by-ride path


class Link(NamedTuple):
    """One thing in the chain: what it is, what is known of it, and whether it still is so.

    `status` is verified, MISMATCH, missing, or recorded: said then, with nothing to check it by.
    """

    kind: str
    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class Trace:
    """The chain behind one prediction."""

    prediction: dict[str, Any]
    card: dict[str, Any] | None
    links: list[Link]

    @property
    def is_verified(self) -> bool:
        """True when every digest that was recorded is that of the bytes that lie there now."""
        return all(link.status in (VERIFIED, RECORDED) for link in self.links)


def trace_prediction(prediction_id: str, prediction_log: PredictionLog) -> Trace:
    """Follow a prediction to its source months.

    Works for every version that is kept in models/, deployed or not.

    Raises:
        NotFoundError: the log has no such prediction.
    """
    prediction = prediction_log.find(prediction_id)
    if prediction is None:
        raise NotFoundError(f"prediction {prediction_id} is not in the log")
    name, _, version = prediction["model"].partition(":")
    folder = environment.models_dir() / name / version
    links = [_prediction_link(prediction), *_serving_links(prediction)]
    try:
        card = load_card(folder, environment.signing_key(), prediction["model"])
    except BundleError as error:
        return Trace(
            prediction, None, [*links, Link("card", prediction["model"], MISSING, str(error))]
        )
    links += [
        _model_link(prediction, folder),
        _answer_link(prediction, folder),
        _card_link(prediction, card),
        *_run_links(card),
        _code_link(card),
        *_beside_links(card),
        *(_month_link(role, month) for role, months in card["months"].items() for month in months),
    ]
    return Trace(prediction, card, links)


def _prediction_link(row: dict[str, Any]) -> Link:
    asked = f"zone {row['PULocationID']} to {row['DOLocationID']} at {row['pickup_at']}"
    miles = "" if row["trip_distance"] is None else f", {row['trip_distance']:g} miles"
    truth = "" if row["true_duration"] is None else f", it took {row['true_duration']:.2f}"
    detail = (
        f"{asked}{miles}: {row['duration']:.2f} min ({row['p10']:.2f} to {row['p90']:.2f}), "
        f"{row['support']} past trips, by {row['arm']} {row['model']}{truth}"
    )
    return Link("prediction", row["prediction_id"], RECORDED, detail)


def _serving_links(row: dict[str, Any]) -> Iterator[Link]:
    """The change that gave the version the role in which it answered, from the history."""
    found, held = None, False
    for line in read_history():
        if datetime.fromisoformat(line["at"]).timestamp() > row["asked_at"]:
            break
        entry = line.get(row["arm"])
        holds = bool(entry) and entry["model_sha256"] == row["model_sha256"]
        if holds and not held:
            found = line
        held = holds
    if found:
        detail = f"{found['action']} at {found['at']}: {found['reason']}"
        yield Link("deployment", f"{row['model']} as {row['arm']}", RECORDED, detail)


def _model_link(row: dict[str, Any], folder: Path) -> Link:
    """The model's bytes now against what the answer was logged with."""
    status, detail = _compare(folder / MODEL_FILE, row["model_sha256"])
    return Link("model", f"{row['model']} {MODEL_FILE}", status, detail)


def _answer_link(row: dict[str, Any], folder: Path) -> Link:
    """Ask the model the same again: the logged answer must come out."""
    try:
        model, _ = load_bundle(folder, environment.signing_key(), row["model"])
    except BundleError as error:
        return Link("answer", row["prediction_id"], MISMATCH, f"cannot be repeated: {error}")
    ride = Rides.from_dicts([{**row, "pickup_datetime": row["pickup_at"]}])
    again = float(model.answer(ride).duration[0])
    same = abs(again - row["duration"]) <= SAME_MIN
    detail = f"asked again, the model says {again:.3f} min, logged were {row['duration']:.3f}"
    return Link("answer", row["prediction_id"], VERIFIED if same else MISMATCH, detail)


def _card_link(row: dict[str, Any], card: dict[str, Any]) -> Link:
    same = card.get("model_sha256") == row["model_sha256"]
    signed = "signed, " if card.get("signature") and environment.signing_key() else ""
    detail = f"{signed}{card['model_kind']} of {card['created']}, run {card['run_id']}"
    if not same:
        detail += f"; it describes another model ({str(card.get('model_sha256'))[:12]}…)"
    return Link("card", row["model"], VERIFIED if same else MISMATCH, detail)


def _run_links(card: dict[str, Any]) -> Iterator[Link]:
    """The run's folder and its executed notebooks; runs/ may be cleaned, the card stays."""
    folder = environment.runs_dir() / card["run_id"]
    if not (folder / RUN_FILE).exists():
        yield Link(
            "run", card["run_id"], RECORDED, "its folder was removed; the card stands for it"
        )
        return
    parameters = ", ".join(f"{k}={v}" for k, v in card["parameters"].items())
    settings = f"train {card['train_data']}, validate {card['val_data']}"
    yield Link("run", card["run_id"], RECORDED, f"{settings}; {parameters}")
    for name, entry in read_json(folder / RUN_FILE)["notebooks"].items():
        yield _notebook_link(folder / f"{name}.ipynb", entry.get("sha256"))


def _notebook_link(path: Path, recorded: str | None) -> Link:
    """An executed notebook's bytes now against what the run noted when it was done."""
    status, detail = _compare(path, recorded) if recorded else (RECORDED, "executed")
    return Link("notebook", path.name, status, f"{detail}, in {path.parent.name}/")


def _code_link(card: dict[str, Any]) -> Link:
    libraries = ", ".join(f"{name} {version}" for name, version in card["libraries"].items())
    commit, _, dirty = card["git_commit"].partition("-")
    name = f"git {commit[:12]}{', changed since' if dirty else ''}"
    return Link("code", name, RECORDED, libraries)


def _beside_links(card: dict[str, Any]) -> Iterator[Link]:
    """What the model knows beside its months: the atlas, and the user's file of conditions."""
    if atlas := card.get("atlas"):
        same = sha256_file(atlas_path()) == atlas["sha256"]
        here = "" if same else "; the package has another now, the model holds its own copy"
        detail = f"SHA-256 {atlas['sha256']}{here}; made of {len(atlas['months'])} earlier months"
        yield Link("atlas", ATLAS_FILE, VERIFIED if same else RECORDED, detail)
    if extra := card.get("extra_features"):
        # The file goes on with every hour, so its bytes of then need not be there any more.
        detail = f"{', '.join(extra['columns'])}; SHA-256 {extra['sha256']}"
        yield Link("conditions", str(extra["file"]), RECORDED, detail)


def _month_link(role: str, month: dict[str, Any]) -> Link:
    """A source month's bytes now against what the card recorded."""
    status, detail = _compare(_month_path(month), month["sha256"])
    if status == MISSING:
        detail += "; `pipeline.py data` for this month gets it again"
    reasons = ", ".join(f"{code} {n:,}" for code, n in month["reasons"].items() if n)
    where = month["url"] or f"data/{_folder(month)}/{month['file']}"
    detail += f"; {where}; {month['rows_read']:,} rows, {month['rows_kept']:,} kept ({reasons})"
    return Link(f"{role} month", month["month"], status, detail)


def _month_path(month: dict[str, Any]) -> Path:
    """Where the file lies; of samples of several sizes the one that was read."""
    folder = environment.data_dir() / _folder(month)
    found = [folder / month["file"], *sorted(folder.glob(f"*/{month['file']}"))]
    there = [path for path in found if path.exists()]
    same = [path for path in there if sha256_file(path) == month["sha256"]]
    return (same or there or found)[0]


def _folder(month: dict[str, Any]) -> str:
    return "sample" if month["data_source"] == "sample" else "raw"


def _compare(path: Path, recorded: str) -> tuple[str, str]:
    """Digest the file as it is now."""
    if not path.exists():
        return MISSING, f"SHA-256 {recorded[:16]}… was recorded, the file is not there"
    found = sha256_file(path)
    if found != recorded:
        return MISMATCH, f"SHA-256 is {found[:16]}…, recorded was {recorded[:16]}…"
    return VERIFIED, f"SHA-256 {found}"
