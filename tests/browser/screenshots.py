"""Write pictures of the pages to docs/, with the deployed model and rides of a real month.

`make screenshots` (it needs Chromium): nothing of it gets into the live log. The rides are those
of the first days of the months that the model was validated on, with their true durations.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import requests
from browser import Browser, missing, open_browser
from PIL import Image
from service import running_service

from taxi_duration import environment
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import Month, parse_months
from taxi_duration.domain.rides import local_time
from taxi_duration.domain.version import Version
from taxi_duration.errors import TaxiError
from taxi_duration.live.deployment import deploy_champion, read_deployment, set_challenger
from taxi_duration.loop.replay import replay_months, ride_of
from taxi_duration.model.bundle import load_card

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
RIDES = 4_000
DAYS = 9  # enough to measure drift
FROM, TO, HOUR, MILES = 74, 138, "08:30", 5.2
LOOKS = {"": (1200, 900, False), "-dark": (1200, 900, True), "-phone": (390, 844, False)}
TRAFFIC_SECONDS = 24


def main() -> int:
    """Take all pictures."""
    deployment = read_deployment()
    if missing() or deployment is None:
        print(missing() or "nothing is deployed; `make run` comes first", file=sys.stderr)
        return 1
    champion = deployment.champion
    card = load_card(champion.folder)
    trips = first_days(card)
    with tempfile.TemporaryDirectory() as folder:
        move_to(Path(folder))
        deploy_champion(champion, "the champion")
        challenge(champion)
        judge()  # the test of the challenger begins
        with running_service() as address:
            replay_months(card["val_data"], address, card["service"], DAYS, RIDES)
            judge()
            with open_browser(address, Path(folder) / "profile") as browser:
                for suffix, (width, height, dark) in LOOKS.items():
                    browser.size(width, height, dark)
                    browser.touch(width < 600)
                    take_reach(browser, DOCS / f"reach{suffix}.png")
                    take_ride(browser, DOCS / f"page{suffix}.png")
                    take_monitor(browser, address, trips, DOCS / f"monitor{suffix}.png")
                    for page in ("reach", "page", "monitor"):
                        shrink(DOCS / f"{page}{suffix}.png")
    return 0


def shrink(path: Path) -> None:
    """Keep 256 colours of a picture, rare ones too: the file becomes half as large."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    few.save(path, optimize=True)


def first_days(card: dict[str, Any]) -> pd.DataFrame:
    """The first days of the validation months."""
    months = parse_months(card["val_data"])
    trips = prepare_months(card["service"], months[:1])[0].trips()
    start = pd.Timestamp(f"{months[0]}-01")
    return trips[trips["pickup_at"].between(start, start + pd.Timedelta(days=DAYS))]


def move_to(home: Path) -> None:
    """Use models and months as they are, and a log and a deployment of our own."""
    models, data = environment.models_dir(), environment.data_dir()
    (home / "data").mkdir()
    for name in ("raw", "prepared", "sample"):
        (home / "data" / name).symlink_to(data / name)
    os.environ |= {
        "TAXI_HOME": str(home), "DATA_DIR": str(home / "data"), "MODELS_DIR": str(models),
        "DEPLOYMENT_DIR": str(home / "deployment"), "LOG_URL": "",
    }  # fmt: skip


def challenge(champion: Version) -> None:
    """Test the newest other version beside the champion, where there is one."""
    folders = champion.folder.parent.iterdir()
    others = [f for f in folders if f.name.isdecimal() and int(f.name) != champion.number]
    if others:
        newest = max(others, key=lambda folder: int(folder.name))
        challenger = Version.of(load_card(newest))
        set_challenger(challenger, "the newest other version", ab_share=0.2, shadow=True)


def judge() -> None:
    """Let the loop look at the log, for a verdict and a decision to show."""
    from taxi_duration.loop.pipeline_world import PipelineWorld
    from taxi_duration.loop.turn import take_turn

    class World(PipelineWorld):
        """Looks and judges; trains nothing, and has no registry to keep up to date."""

        def find_published(self, version: Version, months: Iterable[Month]) -> Iterator[Month]:
            return iter(())

        def mirror(self) -> None:
            pass

        def log(self, line: dict[str, Any], version: Version | None) -> None:
            pass

    try:
        take_turn(World((), say=print), say=print)
    except TaxiError as error:
        print(f"no verdict to show: {error}", file=sys.stderr)


def next_monday() -> str:
    """Its morning in New York: a start that can still be advised on."""
    today = local_time(None).date()
    return f"{today + timedelta(days=7 - today.weekday())}T{HOUR}"


def take_reach(browser: Browser, path: Path) -> None:
    """How far one gets from a zone."""
    browser.open_ride(f"?from={FROM}&when={next_monday()}")
    browser.wait(lambda: browser.text("reach-says"))
    browser.picture(path)
    print(path.name)


def take_ride(browser: Browser, path: Path) -> None:
    """A ride with its reasons."""
    browser.open_ride(f"?from={FROM}&to={TO}&when={next_monday()}&miles={MILES}")
    browser.submit()
    browser.wait(lambda: browser.element("day").is_displayed())
    browser.run("document.getElementById('why').open = true")
    browser.picture(path)
    print(path.name)


def take_monitor(browser: Browser, address: str, trips: pd.DataFrame, path: Path) -> None:
    """The monitor while rides are asked for."""
    browser.open("/monitor")
    done = threading.Event()
    traffic = threading.Thread(target=ask_for_ever, args=(address, trips, done))
    traffic.start()
    done.wait(TRAFFIC_SECONDS)
    done.set()
    traffic.join()
    browser.picture(path)
    print(path.name)


def ask_for_ever(address: str, trips: pd.DataFrame, done: threading.Event) -> None:
    """Ask for a ride, pause, ask for the next."""
    for i, trip in enumerate(trips.sample(frac=1, random_state=7).itertuples()):
        if done.wait(0.02 + 0.06 * (i // 100 % 2)):
            return
        requests.post(f"{address}/predict", json=ride_of(trip), timeout=60).raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
