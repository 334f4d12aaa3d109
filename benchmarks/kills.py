"""`kill -9` of the real commands at random moments: does the next one finish what was begun?

    python benchmarks/kills.py chain --times 50
    python benchmarks/kills.py auto --times 30

Each time a fresh home gets the command, the command gets a SIGKILL at a moment drawn from the
time that an undisturbed one takes, and the same is asked for once more, undisturbed. What it
leaves must be what the undisturbed one left. The built-in sample is used, small.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from taxi_duration import environment
from taxi_duration.chain.run import RUN_FILE
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Rides
from taxi_duration.live.audit import read_audit
from taxi_duration.live.deployment import read_deployment
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.monitor import load_version
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.state import read_state
from taxi_duration.model.bundle import load_bundle
from taxi_duration.registry import tracking

PROJECT = Path(__file__).resolve().parent.parent
NAME = "green-duration"
DAYS, A_DAY = 28, 40  # of feedback: enough for the shadow, the A/B test and the rollback
LATER = 86_400.0  # such rides are asked after every step of the turn that reads them


@dataclass(frozen=True)
class Story:
    """A home before a command, the command, and what an undisturbed one leaves."""

    title: str
    before: Path
    arguments: list[str]
    seconds: float
    left: dict[str, Any]


def command(home: Path, *arguments: str) -> subprocess.Popen:
    """Start a command on a home, as a user would."""
    settings = {"TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000"}
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "pipeline.py"), *arguments],
        env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(home: Path, *arguments: str) -> str:
    """Run a command to its end and return what it said; a failure ends everything."""
    process = command(home, *arguments)
    said = process.communicate()[0]
    if process.returncode:
        sys.exit(f"pipeline.py {' '.join(arguments)} ended with {process.returncode}:\n{said}")
    return said


def kill_after(home: Path, seconds: float, *arguments: str) -> bool:
    """Start a command, kill -9 it after so long; False when it was over before."""
    process = command(home, *arguments)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


def what_is_left(home: Path) -> dict[str, Any]:
    """What must be the same however often the work was killed, read as the next command would."""
    os.environ |= {"TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000"}
    folders = sorted((environment.models_dir() / NAME).iterdir())
    cards = [load_bundle(folder, None)[1] for folder in folders]
    registered = tracking.connect().search_model_versions(f"name='{NAME}'")
    deployment = read_deployment()
    keys = Counter(line["key"] for line in read_audit() if line["key"])
    return {
        "versions": sorted(int(version.version) for version in registered),
        "bundles": [card["version"] for card in cards],
        "predictions": [card["predictions_sha256"] for card in cards],
        "champion": deployment.champion.number,
        "challenger": deployment.challenger and deployment.challenger.number,
        "stage": read_state().stage,
        "decisions": sorted(line["what"] for line in read_audit() if line["key"]),
        "written twice": [key for key, times in keys.items() if times > 1],
        "months cut": [str(path) for path in home.glob("data/*/*.parquet") if is_cut(path)],
    }


def is_cut(path: Path) -> bool:
    """Whether a Parquet file lacks its end."""
    return path.read_bytes()[-4:] != b"PAR1"


def live(home: Path, shares: dict[str, float], shadow: bool, spoiled: bool = False) -> None:
    """Put rides of March with their truth into the log, as the service would have logged them.

    Args:
        shares: of the rides by role, `champion` and `challenger`.
        shadow: both answer every ride.
        spoiled: the champion's answers are three times too long.
    """
    os.environ |= {"TAXI_HOME": str(home), "DATA": "sample", "SAMPLE_ROWS": "4000"}
    deployment = read_deployment()
    (march,) = prepare_months("green", [Month(2021, 3)])
    trips = march.trips()
    day = trips["pickup_at"].dt.day
    trips = trips[day <= DAYS].groupby(day[day <= DAYS]).head(A_DAY).reset_index(drop=True)
    rides = Rides.from_frame(trips)
    roles = {"champion": deployment.champion, "challenger": deployment.challenger}
    answers = {r: load_version(v)[0].answer(rides) for r, v in roles.items() if v}
    minutes = ("duration", "p10", "p50", "p90")
    drawn = np.random.default_rng(0).choice(list(shares), len(trips), p=list(shares.values()))
    rows, shadows, feedback = [], [], []
    for i, trip in enumerate(trips.itertuples()):
        asked_at = time.time() + LATER + i / 10  # most come when the services have the test
        role, key = str(drawn[i]), f"{time.time_ns()}-{i}"
        said = {k: float(getattr(answers[role], k)[i]) * (3 if spoiled else 1) for k in minutes}
        rows.append({
            **said, "prediction_id": key, "ride_id": None, "asked_at": asked_at,
            "PULocationID": trip.PULocationID, "DOLocationID": trip.DOLocationID,
            "pickup_at": trip.pickup_at.isoformat(timespec="seconds"), "arm": role,
            "trip_distance": float(trip.trip_distance), "support": 50, "used_distance": True,
            "model": roles[role].ref, "model_sha256": roles[role].sha256, "latency_ms": 1.0,
        })  # fmt: skip
        feedback.append({"prediction_id": key, "duration": float(trip.duration)})
        if shadow:
            other = "champion" if role == "challenger" else "challenger"
            beside = {k: float(getattr(answers[other], k)[i]) for k in minutes}
            shadows.append({"prediction_id": key, "model": roles[other].ref,
                            "model_sha256": roles[other].sha256, **beside})  # fmt: skip
    log = open_log()
    log.add(rows, shadows)
    log.add_feedback(feedback)
    log.close()


def undisturbed(title: str, before: Path, after: Path, *arguments: str) -> Story:
    """Let a command do its work on a copy of a home, and note what it leaves."""
    if before.exists():
        shutil.copytree(before, after)
    started = time.perf_counter()
    finish(after, *arguments)
    seconds = time.perf_counter() - started
    print(f"{title}: {seconds:.1f} s undisturbed", flush=True)
    return Story(title, before, list(arguments), seconds, what_is_left(after))


def kill_often(
    stories: list[Story], times: int, seed: int, again: Callable[[Path, Story], list[str]]
) -> int:
    """Kill each story's command in turn and finish it; return how many ended otherwise.

    Args:
        again: arguments that finish what was killed on a home.
    """
    moments, wrong = random.Random(seed), 0
    for number in range(times):
        story = stories[number % len(stories)]
        killed, tries = False, 0
        while not killed:  # one that was over before is tried again
            home = story.before.parent / f"kill-{number}-{tries}"
            if story.before.exists():
                shutil.copytree(story.before, home)
            moment, tries = moments.uniform(0, story.seconds), tries + 1
            killed = kill_after(home, moment, *story.arguments)
            if not killed:
                shutil.rmtree(home)
        if not is_over(home, story):
            finish(home, *again(home, story))
        left = what_is_left(home)
        differs = {k: (v, left[k]) for k, v in story.left.items() if left[k] != v}
        wrong += bool(differs)
        print(f"{number + 1:>3} {story.title}, killed after {moment:4.1f} s: "
              f"{differs or 'the same'}", flush=True)  # fmt: skip
        shutil.rmtree(home, ignore_errors=True)  # a kernel that is about to end may still write
    return wrong


def is_over(home: Path, story: Story) -> bool:
    """Whether the killed one had done everything: `auto` would go on with the next month."""
    return story.arguments == ["auto"] and what_is_left(home) == story.left


def resume(home: Path, story: Story) -> list[str]:
    """Go on with the run that was begun; begin anew when there is none yet."""
    runs = [path.parent.name for path in home.glob(f"runs/*/{RUN_FILE}")]
    return ["run", "--resume", runs[0]] if runs else story.arguments


def chain_story(folder: Path) -> list[Story]:
    """The chain on an empty home: months, notebooks, registry, deployment."""
    return [undisturbed("chain", folder / "nothing", folder / "first",
                        "run", "--model", "LR")]  # fmt: skip


def auto_stories(folder: Path) -> list[Story]:
    """Three turns: from a month to the shadow, from there to the promotion, and back."""
    base, shadowed, promoted = folder / "first", folder / "shadowed", folder / "promoted"
    finish(base, "run", "--model", "LR")
    trained = undisturbed("auto: train, gate, shadow", base, shadowed, "auto")
    share = auto_settings().ab_share
    live(shadowed, {"champion": 1 - share, "challenger": share}, shadow=True)
    tested = undisturbed("auto: A/B-test, promote, bake", shadowed, promoted, "auto")
    live(promoted, {"champion": 1.0}, shadow=False, spoiled=True)
    back = undisturbed("auto: roll back", promoted, folder / "back", "auto")
    return [trained, tested, back, tested, back]  # training is long, the others change more


@click.command()
@click.argument("what", type=click.Choice(["chain", "auto"]))
@click.option("--times", default=50, show_default=True, help="Kills.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(what: str, times: int, seed: int) -> None:
    """Print a line for every kill; the exit code is 1 when one left something else."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        stories = (chain_story if what == "chain" else auto_stories)(Path(folder))
        for story in stories:
            print(f"{story.title} leaves {story.left}", flush=True)
        again = resume if what == "chain" else lambda _, story: story.arguments
        wrong = kill_often(stories, times, seed, again)
    print(f"{times} kills, {wrong} of them left something else")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
