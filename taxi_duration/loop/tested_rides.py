"""The rides of a test: what both versions answered to them, and how they were served."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration.evaluation.gain_words import gain_in_words
from taxi_duration.evaluation.health import hold_reason, scored
from taxi_duration.evaluation.sequential_test import Outcome, judge, paired_gains
from taxi_duration.evaluation.serving_checks import (
    Finding,
    check_answers,
    check_failures,
    check_latency,
    check_split,
)
from taxi_duration.loop.situation import Situation
from taxi_duration.timestamps import DAY_SECONDS

# A service looks twice a second and loads the bundle: rides of its first seconds say nothing.
TAKE_UP_SECONDS = 5.0


@dataclass(frozen=True)
class Look:
    """What the rides say since the stage began.

    Args:
        outcome: of the sequential test on the rides that both answered since the test began.
        blocks: days of the present stage alone.
        findings: of how they were served.
        hold: why nothing may be decided on these errors, None when something may.
    """

    outcome: Outcome
    blocks: int
    findings: list[Finding]
    hold: str | None = None

    @property
    def failed(self) -> Finding | None:
        """What ends the test, whatever the errors are."""
        return next((found for found in self.findings if found.passed is False), None)

    @property
    def is_well_served(self) -> bool:
        """True when nothing of the serving speaks against believing the errors."""
        return all(found.passed for found in self.findings)

    @property
    def why(self) -> str:
        """In words, with what is not clear yet."""
        if self.hold is not None:
            return self.hold
        unclear = [found.text for found in self.findings if found.passed is None]
        return "; ".join([_in_words(self.outcome), *unclear])

    @property
    def numbers(self) -> dict[str, Any]:
        """For the audit trail."""
        serving = {found.name: {"passed": found.passed, "text": found.text}
                   for found in self.findings}  # fmt: skip
        return {"test": asdict(self.outcome), "serving": serving}


def look_at_rides(now: Situation, min_blocks: int) -> Look:
    """Look at the rides that champion or challenger answered.

    Errors are compared since the test began: in shadow and A/B test alike both versions answer
    every ride. How they serve is looked at since the stage began; split and latency while both
    answer riders.

    Args:
        min_blocks: days before which the errors decide nothing.
    """
    pair = (now.old_champion, now.challenger)
    since = now.state.tested_since or now.state.since
    rows = now.world.live_rows(since, pair)
    if len(rows):
        rows = rows[rows["model_sha256"].isin([version.sha256 for version in pair])]
    stage = rows
    if since < now.state.since and len(rows):
        stage = rows[rows["asked_at"] >= now.state.since]
    hold = hold_reason(rows)
    believed, of_stage = (part if hold is None else part.iloc[:0] for part in (rows, stage))
    blocks = _judge(now, of_stage, min_blocks).blocks
    return Look(_judge(now, believed, min_blocks), blocks, _check(now, stage), hold)


def _is_paired(now: Situation, rows: pd.DataFrame) -> np.ndarray:
    """True where the version that did not answer the rider answered in the shadow."""
    champion, challenger = now.old_champion.sha256, now.challenger.sha256
    other = np.where(rows["model_sha256"] == champion, challenger, champion)
    paired: np.ndarray = rows["shadow_model_sha256"].to_numpy() == other
    return paired


def _judge(now: Situation, rows: pd.DataFrame, min_blocks: int) -> Outcome:
    rows = scored(rows)  # a day's true durations are looked at as a whole, so before the pairs
    if len(rows):
        rows = rows[_is_paired(now, rows)]
    if not len(rows):
        return judge(np.zeros(0), np.zeros(0), now.settings.alpha, 1)
    theirs = (rows["model_sha256"] == now.challenger.sha256).to_numpy()
    given, shadow = _error(rows, "duration"), _error(rows, "shadow_duration")
    champion, challenger = np.where(theirs, shadow, given), np.where(theirs, given, shadow)
    day = rows["pickup_at"].to_numpy().astype("datetime64[D]")
    gains = paired_gains(day, champion, challenger, now.settings.min_block_trips)
    return judge(*gains, now.settings.alpha, min_blocks)


def _error(rows: pd.DataFrame, answered: str) -> np.ndarray:
    """Absolute minutes, shape (n,)."""
    error: np.ndarray = np.abs((rows[answered] - rows["true_duration"]).to_numpy())
    return error


def _check(now: Situation, rows: pd.DataFrame) -> list[Finding]:
    """Check how the rides were served, from the moment on that services took the test up."""
    settings = now.settings
    if not len(rows):
        return [Finding("answers", None, "no ride yet")]
    paired, failed = _is_paired(now, rows), rows["failed_as"].notna().to_numpy()
    taken_up = rows["asked_at"].to_numpy()[paired | failed]
    if not len(taken_up):
        waited = now.world.now() - now.state.since > DAY_SECONDS
        ignored = waited and len(rows) >= settings.min_check_rides
        text = f"no service answers with {now.challenger.ref}"
        return [Finding("answers", False if ignored else None, text)]
    late = (rows["asked_at"] >= taken_up.min() + TAKE_UP_SECONDS).to_numpy()
    rows, paired, failed = rows[late], paired[late], failed[late]
    if len(rows) < settings.min_check_rides:
        text = f"{len(rows):,} of {settings.min_check_rides} rides to see how it serves"
        return [Finding("answers", None, text)]
    theirs = (rows["model_sha256"] == now.challenger.sha256).to_numpy()
    found = [
        check_failures(int((failed & ~theirs).sum()), len(rows), settings.max_failure_share),
        check_answers(int(paired.sum()), len(rows), settings.min_answer_share),
    ]
    return [*found, *_check_arms(now, rows, theirs)] if now.deployment.ab_share else found


def _check_arms(now: Situation, rows: pd.DataFrame, theirs: np.ndarray) -> list[Finding]:
    """Check the split between the arms, and the time that each takes."""
    settings, share = now.settings, now.deployment.ab_share
    met = theirs | (rows["failed_as"] == "challenger").to_numpy()
    # A ride that is asked again meets the same arm: it says nothing more about the split.
    first = ~(rows["ride_id"].notna() & rows["ride_id"].duplicated()).to_numpy()
    split = check_split(int(met[first].sum()), int(first.sum()), share, settings.min_split_p)
    took = rows["latency_ms"].astype("float64").to_numpy()
    timed = ~np.isnan(took)
    ours, their = took[timed & ~met], took[timed & theirs]
    if min(len(ours), len(their)) < settings.min_check_rides:
        text = f"{min(len(ours), len(their)):,} of {settings.min_check_rides} rides of each arm"
        return [split, Finding("latency", None, f"{text} to see how long it takes")]
    return [
        split,
        check_latency(ours, their, settings.max_latency_ratio, settings.free_latency_ms),
    ]


def _in_words(outcome: Outcome) -> str:
    if outcome.trips == 0:
        return "no feedback yet on a day that is over"
    return (
        f"{outcome.verdict} after {outcome.blocks} days and {outcome.trips:,} rides: "
        f"{gain_in_words(outcome.gain_min, outcome.low_min, outcome.high_min)}, "
        f"evidence {outcome.e_value:.3g}"
    )
