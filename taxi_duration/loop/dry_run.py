"""What the next turn would do, and why: the very same turn, taken on a copy.

All that a turn may write lies in a temporary home: deployment, bundles and months are copied or
linked there, the prediction log is opened read-only, and what cannot be tried without doing it
(downloading, training, judging, pulling) ends the turn with its name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.run_settings import RunSettings
from taxi_duration.data.sources import without_downloads
from taxi_duration.domain.months import Month, format_months
from taxi_duration.domain.version import Version
from taxi_duration.errors import WouldActError
from taxi_duration.evaluation.gate import Decision
from taxi_duration.live.audit import read_audit
from taxi_duration.live.log_engine import read_only_address
from taxi_duration.loop.pausing import PAUSE_FILE, read_pause
from taxi_duration.loop.pipeline_world import PipelineWorld
from taxi_duration.loop.turn import take_turn
from taxi_duration.registry.pull_bundle import is_gone

NEVER_EDITED = (".parquet", ".gz", ".csv", ".bin")  # files so named are linked, others copied


@dataclass(frozen=True)
class DryTurn:
    """What a turn would do.

    Args:
        said: a line for each step, `what: why`; the last one ends the turn.
        lines: that it would leave in the audit trail.
    """

    said: list[str]
    lines: list[dict[str, Any]]


class DryWorld(PipelineWorld):
    """The real world, only looked at."""

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> Version:
        how = f"go on with run {run_id}" if run_id else f"train {settings.model}"
        raise WouldActError(f"{how}: on {settings.train_data}, to be judged on {settings.val_data}")

    def gate(self, champion: Version | None, challenger: Version, month: Month) -> Decision:
        against = f" against {champion.ref}" if champion else ""
        raise WouldActError(f"judge {challenger.ref}{against} on {month}")

    def refit(
        self,
        judged: Version,
        months: list[Month],
        run_id: str | None,
        remember: Callable[[str], None],
    ) -> Version:
        raise WouldActError(f"fit {judged.ref} again, on {format_months(months)}")

    def restore_bundle(self, version: Version) -> bool:
        if is_gone(version):
            raise WouldActError(f"pull {version.ref}: its bundle is gone from disk")
        return False

    def mirror(self) -> None:
        """Aliases stay."""

    def log(self, line: dict[str, Any], version: Version | None) -> None:
        """Nothing is logged to MLflow."""


def dry_run() -> DryTurn:
    """Take the next turn on a copy, as if the loop were not paused; nothing here changes.

    Raises:
        TaxiError: the turn would fail with it.
    """
    with copy_of_home():
        return turn_on_copy()


def turn_on_copy() -> DryTurn:
    """As `dry_run`, in a home that is a copy already; the turn changes that."""
    said: list[str] = []
    with without_downloads():
        (environment.deployment_dir() / PAUSE_FILE).unlink(missing_ok=True)
        before = len(read_audit())
        world = DryWorld((), say=lambda _: None)
        try:
            take_turn(world, say=said.append)
        except WouldActError as act:
            said.append(str(act))
        finally:
            world.prediction_log.close()
        return DryTurn(said, read_audit()[before:])


def say_dry_run(say: Callable[[str], None]) -> None:
    """Say what the next turn would do, in words; raises as `dry_run`."""
    pause = read_pause()
    if pause is not None:
        say(f"{pause.text}; a turn does nothing until it is resumed")
    say("the next turn would say, and nothing was changed:")
    for line in dry_run().said:
        say(f"  {line}")


@contextmanager
def copy_of_home() -> Iterator[None]:
    """Use a copy of the home for a while, in which a turn may do what it likes."""
    data = environment.data_dir()
    places = (
        (environment.deployment_dir(), "deployment", "*"),
        (environment.models_dir(), "models", "*/*/*"),
        (environment.runs_dir(), "runs", "*/run.json"),
        (data / "raw", "data/raw", "*"),
        (data / "prepared", "data/prepared", "*"),
        (data / "sample", "data/sample", "*/*"),
        (environment.live_dir(), "data/live", "*.json"),
    )
    # Their defaults lie in the home; no message is sent, and MLflow is not there.
    unset = ("DATA_DIR", "MODELS_DIR", "DEPLOYMENT_DIR", "MLFLOW_TRACKING_URI", "NOTIFY_URLS")
    log = read_only_address(environment.log_url())
    archive = str(environment.log_archive(environment.log_url()))
    with tempfile.TemporaryDirectory() as folder:
        for source, name, pattern in places:
            _overlay(source, Path(folder, name), pattern)
        home = {
            "TAXI_HOME": folder,
            "LOG_URL": log,
            "LOG_ARCHIVE": archive,
            **dict.fromkeys(unset, ""),
        }
        with environment.temporary(**home):
            yield


def _overlay(source: Path, target: Path, pattern: str) -> None:
    for path in source.glob(pattern):
        here = target / path.relative_to(source)
        here.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # a temporary file of somebody who writes just now
            if path.name.endswith(NEVER_EDITED):
                here.symlink_to(path)
            elif path.is_file():
                shutil.copyfile(path, here)
