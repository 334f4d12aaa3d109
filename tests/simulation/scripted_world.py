"""A world for the loop in which training and judging are drawn by chance, and cost nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from taxi_duration.chain.run_settings import RunSettings
from taxi_duration.domain.findings import Reason
from taxi_duration.domain.months import Month
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, PipelineError, SourceUnreachableError, TrackingError
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.gate import Check, Decision
from taxi_duration.evaluation.health import Health
from taxi_duration.evaluation.sequential_test import Outcome
from taxi_duration.evaluation.serving_checks import Finding
from taxi_duration.loop.situation import Situation
from taxi_duration.loop.tested_rides import Look
from taxi_duration.loop.world import Republished, World
from taxi_duration.timestamps import DAY_SECONDS

FIRST = Month(2021, 1)
EMPTY = pd.DataFrame()
REASONS = {
    "quiet": [],
    "worrying": [Reason("drift", "watch", "trips are longer")],
    "wrong": [Reason("error", "alarm", "MAE is twice the validation's")],
}
WELL = [Finding("answers", True, "both answer")]


def version(number: int) -> Version:
    """Return the version with this number."""
    return Version("green-duration", number, f"{number:064x}", "tlc")


class PlainHealth(Health):
    """A health whose figures are always the same."""

    def overall(self) -> dict[str, float]:
        return {"rows": 500.0, "mae": 3.0}


@dataclass
class Elsewhere:
    """What does not lie on the machine's disk: MLflow's store and the source of months.

    Args:
        months: that each version learned from and was judged by, by its number.
        by_run: the version that a run made, however often it was gone on with.
        published: months that can be had.
        logged: decisions that MLflow has.
    """

    months: dict[int, list[Month]] = field(
        default_factory=lambda: {key: [FIRST, FIRST.shift(1)] for key in (1, 2)}
    )
    by_run: dict[str, int] = field(default_factory=dict)
    published: list[Month] = field(default_factory=lambda: [FIRST.shift(i) for i in range(3)])
    logged: list[str] = field(default_factory=list)

    def make(self, run_id: str, months: list[Month]) -> Version:
        """Return the version of a run; the same run gives the same one."""
        number = self.by_run.setdefault(run_id, len(self.months) + 1)
        self.months.setdefault(number, months)
        return version(number)


class ScriptedWorld(World):
    """What each method is for stands at `World`.

    Args:
        elsewhere: outlives every process.
        chance: of what comes out.
        now: tells the time.
        calm: nothing breaks, and every test is decided as soon as it has rides.
    """

    def __init__(
        self, elsewhere: Elsewhere, chance: random.Random, now: Callable[[], float], calm: bool
    ) -> None:
        self.elsewhere, self.chance, self.now = elsewhere, chance, now  # type: ignore[method-assign]
        self.calm = calm

    def _breaks(self, error: Exception, share: float = 0.15) -> None:
        if not self.calm and self.chance.random() < share:
            raise error

    def _health(self, source: str, model: Version, *kinds: str) -> Health:
        reasons = REASONS[self.chance.choice(kinds)]
        return PlainHealth(source, model.ref, 500, 500, EMPTY, [], reasons)

    # --- months

    def months_of(self, version: Version) -> list[Month]:
        return self.elsewhere.months[version.number]

    def find_published(self, version: Version, months: Iterable[Month]) -> Iterator[Month]:
        self._breaks(SourceUnreachableError("no route"), 0.02)
        return (month for month in months if month in self.elsewhere.published)

    def fetch_republished(self, version: Version, months: Iterable[Month]) -> list[Republished]:
        return []

    def month_health(self, version: Version, month: Month) -> Health:
        return self._health(f"green {month}", version, "quiet", "worrying", "wrong")

    # --- the live log

    def live_health(self, champion: Version) -> Health:
        self._breaks(BundleError(f"{champion.ref} is damaged"), 0.02)
        kinds = ("quiet",) if self.calm else ("quiet", "quiet", "worrying", "wrong")
        return self._health("live log", champion, *kinds)

    def arm_health(self, challenger: Version) -> Health:
        return self._health("live log", challenger, "quiet", "quiet", "worrying")

    def live_rows(self, since: float, pair: tuple[Version, Version]) -> pd.DataFrame:
        raise AssertionError("`look` stands in for what reads them")

    def look(self, now: Situation, min_blocks: int) -> Look:
        """Stands for `tested_rides.look_at_rides`: rides come from when the stage began."""
        since = now.state.tested_since or now.state.since
        days = max(0, int((self.now() - since) / DAY_SECONDS))
        if days == 0:
            verdict = "undecided"
        elif self.calm:
            verdict = self.chance.choice(("better", "worse"))
        else:
            verdict = self.chance.choice(("better", "better", "worse", "undecided"))
        gain = {"better": 0.5, "worse": -0.5, "undecided": 0.0}[verdict]
        outcome = Outcome(verdict, gain, gain - 0.1, gain + 0.1, 25.0, 20.0, days, 200 * days, None)
        return Look(outcome, days, WELL)

    def compare_live(self, champion: Version, earlier: Version) -> tuple[Estimate, int]:
        gain = self.chance.choice((-1.0, 1.0))
        return Estimate(gain, gain - 0.1, gain + 0.1), 500

    # --- a challenger

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> Version:
        months = [*settings.train_months, *settings.val_months]
        return self._make(months, run_id, remember)

    def refit(
        self,
        judged: Version,
        months: list[Month],
        run_id: str | None,
        remember: Callable[[str], None],
    ) -> Version:
        return self._make(months, run_id, remember)

    def _make(
        self, months: list[Month], run_id: str | None, remember: Callable[[str], None]
    ) -> Version:
        self._breaks(TrackingError("MLflow is away"), 0.05)
        run_id = run_id or f"run-{self.now():.3f}"
        remember(run_id)
        self._breaks(PipelineError("03_multiple_models failed"))
        made = self.elsewhere.make(run_id, months)
        self._breaks(PipelineError("killed after it was registered"), 0.05)
        return made

    def gate(self, champion: Version | None, challenger: Version, month: Month) -> Decision:
        self._breaks(BundleError(f"{challenger.ref} is damaged"), 0.05)
        passed = self.chance.random() < (0.3 if self.calm else 0.8)
        return Decision(passed, 5000, 28, (Check("error", passed, "nearer by 0.5 min", {}),))

    def restore_bundle(self, version: Version) -> bool:
        return not self.calm and self.chance.random() < 0.02

    def check_bundle(self, version: Version) -> None:
        self._breaks(BundleError(f"{version.ref} is damaged"), 0.02)

    # --- MLflow

    def mirror(self) -> None:
        self._breaks(TrackingError("MLflow is away"))

    def log(self, line: dict[str, Any], version: Version | None) -> None:
        self._breaks(TrackingError("MLflow is away"), 0.05)
        if line["key"] not in self.elsewhere.logged:
            self.elsewhere.logged.append(line["key"])
