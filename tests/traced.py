"""A small world with a traced answer, and ways to tamper with it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from taxi_duration import environment
from taxi_duration.chain.refit import refit_version
from taxi_duration.chain.release import mirror_aliases
from taxi_duration.chain.run import new_run
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version
from taxi_duration.files import read_json
from taxi_duration.live.deployment import read_deployment, set_challenger
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.monitor import load_version
from taxi_duration.loop.trace import Trace
from taxi_duration.model.bundle import load_bundle, load_card, write_card
from taxi_duration.registry import tracking

NAME = "green-duration"
RIDE = {"PULocationID": 74, "DOLocationID": 41, "trip_distance": 1.5}
PICKUP = "2021-03-01T08:30:00"


def make_world(home: Path) -> tuple[str, str]:
    """Add a challenger and its shadow, feedback and a stray; return an answer's id of each arm."""
    champion, challenger = read_deployment().champion, refit(home)
    set_challenger(challenger, "test", shadow=True)
    mirror_aliases(tracking.connect())
    now = time.time() + 3600  # long after the changes: nobody is still loading the challenger
    first, second, stray = (f"{int(now * 1000):012x}{pair * 10}" for pair in ("ab", "cd", "ef"))
    row, shadow = logged(champion, first, now), logged(challenger, first, now)
    log = open_log()
    names = ("prediction_id", "model", "model_sha256", "duration", "p10", "p50", "p90")
    log.add(
        [
            {**row, "prediction_id": stray, "duration": 1.0},
            row,
            {**shadow, "prediction_id": second, "arm": "challenger"},
        ],
        [{name: shadow[name] for name in names}],
    )
    log.add_feedback([{"prediction_id": first, "duration": 9.5, "received_at": now + 600}])
    log.close()
    return first, second


def refit(home: Path) -> Version:
    """Register version 1 once more, fitted also on its validation month, as the loop does."""
    model, card = load_bundle(home / "models" / NAME / "1")
    run = new_run(check_settings("2021-01", "2021-02", "LR"))
    return Version.of(refit_version(run, model, card, parse_months("2021-01:2021-02")))


def logged(version: Version, prediction_id: str, asked_at: float) -> dict[str, Any]:
    """The row of a version's answer."""
    answer = load_version(version)[0].answer(
        Rides.from_dicts([{**RIDE, "pickup_datetime": PICKUP}])
    )
    minutes = {k: float(getattr(answer, k)[0]) for k in ("duration", "p10", "p50", "p90")}
    return {
        **RIDE, **minutes, "prediction_id": prediction_id, "ride_id": None, "asked_at": asked_at,
        "pickup_at": PICKUP, "support": int(answer.support[0]), "used_distance": True,
        "model": version.ref, "arm": "champion", "model_sha256": version.sha256, "latency_ms": 1.0,
    }  # fmt: skip


def found(trace: Trace) -> dict[str, str]:
    """The status of every link that is not as it should be."""
    return {
        f"{link.kind} {link.name}": link.status
        for link in trace.links
        if link.status not in ("verified", "recorded")
    }


# --- tampering -------------------------------------------------------------------------------


def card_of(home: Path) -> dict[str, Any]:
    return load_card(home / "models" / NAME / "1")


def forge_card(home: Path, **changes: Any) -> dict[str, Any]:
    """Give version 1 a card with other fields."""
    return write_card(home / "models" / NAME / "1", {**card_of(home), **changes}, None)


def forge_month(home: Path, **changes: Any) -> None:
    """Change what the card says of its training month."""
    months = card_of(home)["months"]
    forge_card(home, months={**months, "train": [{**months["train"][0], **changes}]})


def forge_row(home: Path, table: str, field: str, value: Any) -> None:
    """Change the log's rows of a table in its database."""
    connection = sqlite3.connect(home / "data" / "live" / "predictions.db")
    with connection:
        connection.execute(f"UPDATE {table} SET {field} = ?", (value,))
    connection.close()


def run_folder(home: Path) -> Path:
    """Folder of the chain's run, which made version 1."""
    (path,) = home.glob("runs/*/report.html")
    return path.parent


def month_file(home: Path, month: str) -> Path:
    (path,) = home.glob(f"data/sample/*/green_tripdata_{month}.parquet")
    return path


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lines_of(home: Path, name: str) -> list[dict[str, Any]]:
    text = (home / "deployment" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def put_lines(home: Path, name: str, lines: list[dict[str, Any]], chained: bool) -> None:
    """Write a trail; with a consistent chain when asked."""
    before, written = "", []
    for line in lines:
        if chained:
            line = {**line, "sha256_before": before}
        written.append(json.dumps(line))
        before = hashlib.sha256(written[-1].encode()).hexdigest()
    (home / "deployment" / name).write_text("".join(f"{line}\n" for line in written))


def forge_line(home: Path, name: str, number: int, chained: bool, **changes: Any) -> None:
    """Change fields of one line of a trail."""
    lines = lines_of(home, name)
    lines[number] = {**lines[number], **changes}
    put_lines(home, name, lines, chained)


def entry(version: Version) -> dict[str, Any]:
    """A version as it stands in the files."""
    return to_builtins(version)


def version_tag(name: str, value: str) -> None:
    tracking.connect().set_model_version_tag(NAME, "1", name, value)


def child_run(home: Path) -> str:
    """Id of the model's run in MLflow."""
    (run_id,) = read_json(run_folder(home) / "run.json")["logged"].values()
    return run_id


def registered_bundle(home: Path) -> Path:
    """Folder of the bundle that MLflow keeps of version 1."""
    sha256 = card_of(home)["model_sha256"]
    models = environment.tracking_dir().rglob("model.bin")
    (path,) = [p for p in models if hashlib.sha256(p.read_bytes()).hexdigest() == sha256]
    return path.parent


def moved(at: float, seconds: float) -> str:
    """A time so many seconds later, as the history has it."""
    when = datetime.fromtimestamp(at, UTC) + timedelta(seconds=seconds)
    return when.isoformat(timespec="milliseconds")
