"""Keeps a backtest in a folder: fitted models, and after each month where it stands.

A killed backtest goes on at the month it was in, and two backtests of the same months with
another publication delay share their fits. Files are pickles of this program's own objects,
read back from the folder that it wrote them to.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.json import encode

from taxi_duration import environment
from taxi_duration.data.window import Window
from taxi_duration.files import code_digest, sha256_file, write_bytes
from taxi_duration.live import traffic_level
from taxi_duration.loop.settings import AutoSettings
from taxi_duration.loop.simulated_world import Fit, SimulatedWorld
from taxi_duration.model.atlas import atlas_sources
from taxi_duration.model.duration_model import DurationModel


@dataclass(frozen=True)
class Keeper:
    """A folder of fits, shared by all backtests, and the state of one of them.

    Args:
        folder: made when missing.
        key: of this backtest; another one when months, settings or code are others.
        say: prints a line of progress.
    """

    folder: Path
    key: str
    say: Callable[[str], None]

    @property
    def home(self) -> Path:
        """Where the loop of this backtest keeps its deployment."""
        return self.folder / self.key

    def keeping(self, fit: Fit) -> Fit:
        """Return the same fit, looked up when it was done before."""

        def kept(kind: str, window: Window) -> DurationModel:
            path = self.folder / "fits" / f"{_digest_fit(kind, window)}.pickle"
            if path.exists():
                model: DurationModel = pickle.loads(path.read_bytes())
                return model
            self.say(f"  fitting {kind} on {len(window):,} trips")
            model = fit(kind, window)
            write_bytes(path, pickle.dumps(model))
            return model

        return kept

    def save(self, world: SimulatedWorld, rows: list[dict[str, Any]]) -> None:
        """Write down that these months are lived through."""
        files = {path.name: path.read_bytes() for path in environment.deployment_dir().iterdir()}
        state = {"world": world.snapshot(), "rows": rows, "deployment": files}
        write_bytes(self.home / "state.pickle", pickle.dumps(state))

    def load(self, world: SimulatedWorld) -> list[dict[str, Any]]:
        """Put a world where an earlier process left it; return the rows of its months."""
        path = self.home / "state.pickle"
        folder = environment.deployment_dir()
        shutil.rmtree(folder, ignore_errors=True)  # it may have gone on after the last save
        if not path.exists():
            return []
        state = pickle.loads(path.read_bytes())
        for name, content in state["deployment"].items():
            write_bytes(folder / name, content)
        world.restore(state["world"])
        rows: list[dict[str, Any]] = state["rows"]
        return rows


def backtest_key(digests: Iterable[str], settings: AutoSettings, *choices: object) -> str:
    """Return what names a backtest: months' digests, settings, other choices, and the code."""
    loop = sorted(Path(__file__).parent.glob("*.py"))
    parts = [*digests, encode(settings).decode(), *map(str, choices), code_digest()]
    traffic = sorted(Path(traffic_level.__file__).parent.glob("traffic_*"))
    parts += [sha256_file(path) for path in (*loop, *traffic)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _digest_fit(kind: str, window: Window) -> str:
    digest = hashlib.sha256(f"{kind} {code_digest()} {atlas_sources()}".encode())
    for rides, minutes in window.batches():
        for column in (*vars(rides).values(), minutes):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:24]
