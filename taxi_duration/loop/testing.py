"""Testing a challenger: first in the shadow, then with a share of the rides."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration.evaluation.health import hold_reason, scored
from taxi_duration.evaluation.sequential_test import Outcome, judge, paired_gains, split_gains
from taxi_duration.live.deployment import set_challenger
from taxi_duration.loop.looking import look_at_champion
from taxi_duration.loop.monitor import DAY_SECONDS
from taxi_duration.loop.situation import Situation, Step, wait


def start_shadow(now: Situation) -> Step:
    """Let the challenger answer beside the champion, for the log alone."""
    if now.is_overtaken:
        return now.leave()
    set_challenger(now.challenger, f"passed the gate on {now.state.month}", shadow=True)
    why = f"its answers are logged beside those of {now.old_champion.ref}"
    after = now.enter("shadow")
    return Step(f"shadow {now.challenger.ref}", why, after, version=now.challenger)


def shadow(now: Situation) -> Step:
    """Look at the shadow answers whose truth has come in."""
    if not now.is_under_test:
        return now.leave()
    live, back = look_at_champion(now)
    if back is not None:
        return back
    if hold := hold_reason(now.world.live_rows(now.state.since)):
        return _wait_for_feedback(now, hold, {})
    outcome = _paired(now)
    why, numbers = _in_words(outcome), {"test": asdict(outcome)}
    if outcome.verdict == "better" and live.is_wrong:
        why = f"{why}; no time for an A/B test: {live.reasons[0].text}"
        return _trust(now, why, numbers)
    if outcome.verdict == "better":
        after = now.enter("start_ab", why=why, proven=True)
        return Step(f"try {now.challenger.ref}", why, after, numbers, now.challenger)
    if outcome.verdict == "worse" or outcome.blocks >= now.settings.max_shadow_blocks:
        return doubt(now, why, numbers)
    return _wait_for_feedback(now, why, numbers)


def start_ab(now: Situation) -> Step:
    """Let the challenger answer a share of the rides."""
    if now.is_overtaken:
        return now.leave()
    share = now.settings.ab_share
    set_challenger(now.challenger, now.state.why, ab_share=share, shadow=True)
    why = f"it answers {share:.0%} of the rides, so far: {now.state.why}"
    return Step(f"A/B-test {now.challenger.ref}", why, now.enter("ab"), version=now.challenger)


def ab(now: Situation) -> Step:
    """Look at what both arms answered to riders."""
    if not now.is_under_test:
        return now.leave()
    live, back = look_at_champion(now)
    if back is not None:
        return back
    if hold := hold_reason(now.world.live_rows(now.state.since)):
        return _wait_for_feedback(now, hold, {})
    outcome = _split(now)
    why, numbers = _in_words(outcome), {"test": asdict(outcome)}
    health = now.world.arm_health(now.challenger)
    if health.is_wrong and not live.is_wrong:  # riders need not wait for a whole week
        return doubt(now, health.reasons[0].text, {"arm": health.overall()})
    if outcome.verdict == "worse":
        return doubt(now, why, numbers)
    if outcome.verdict == "better":
        return _trust(now, why, numbers)
    if outcome.blocks >= now.settings.ab_blocks and _is_proven(now):
        return _trust(now, f"better in the shadow, and not worse for riders ({why})", numbers)
    return _wait_for_feedback(now, why, numbers)


def doubt(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    """Decide that the challenger is to be dropped."""
    after = now.enter("drop", why=why)
    return Step(f"doubt {now.challenger.ref}", why, after, numbers, now.challenger)


def _trust(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    after = now.enter("promote", why=why)
    return Step(f"trust {now.challenger.ref}", why, after, numbers, now.challenger)


def _wait_for_feedback(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    days = (now.world.now() - now.state.since) / DAY_SECONDS
    if days > now.settings.max_test_days:
        return doubt(now, f"{days:.0f} days without enough feedback; {why}", numbers)
    return wait(f"{now.challenger.ref} is being tested; {why}", numbers)


# --- what the feedback says --------------------------------------------------------------


def _is_proven(now: Situation) -> bool:
    """True when a shadow test spoke for the challenger, before the A/B test or beside it.

    One that an operator set went through none; riders who do not object are no proof.
    """
    return now.state.proven or _paired(now).verdict == "better"


def _paired(now: Situation) -> Outcome:
    """Judge on the champion's rides that the challenger answered in the shadow."""
    rows = _known(now)
    if len(rows):
        shadowed = rows["shadow_model_sha256"] == now.challenger.sha256
        rows = rows[shadowed & (rows["model_sha256"] == now.old_champion.sha256)]
    if not len(rows):
        return _nothing(now)
    theirs = _error(rows, "shadow_duration")
    gains = paired_gains(_days(rows), _error(rows), theirs, now.settings.min_block_trips)
    return judge(*gains, now.settings.alpha, now.settings.shadow_blocks)


def _split(now: Situation) -> Outcome:
    """Judge on the rides of both arms."""
    rows, digest = _known(now), now.challenger.sha256
    if len(rows):
        rows = rows[rows["model_sha256"].isin((now.old_champion.sha256, digest))]
    if not len(rows):
        return _nothing(now)
    theirs = (rows["model_sha256"] == digest).to_numpy()
    gains = split_gains(_days(rows), _error(rows), theirs, now.settings.min_block_trips)
    return judge(*gains, now.settings.alpha, now.settings.ab_blocks)


def _known(now: Situation) -> pd.DataFrame:
    """Rides since the stage began whose truth is scored; without columns when there are none."""
    return scored(now.world.live_rows(now.state.since))


def _nothing(now: Situation) -> Outcome:
    return judge(np.zeros(0), np.zeros(0), now.settings.alpha, 1)


def _days(rows: pd.DataFrame) -> np.ndarray:
    days: np.ndarray = rows["pickup_at"].to_numpy().astype("datetime64[D]")
    return days


def _error(rows: pd.DataFrame, answered: str = "duration") -> np.ndarray:
    """Absolute minutes, shape (n,)."""
    error: np.ndarray = np.abs((rows[answered] - rows["true_duration"]).to_numpy())
    return error


def _in_words(outcome: Outcome) -> str:
    if outcome.trips == 0:
        return "no feedback yet on a day that is over"
    return (
        f"{outcome.verdict} after {outcome.blocks} days and {outcome.trips:,} rides: nearer by "
        f"{outcome.gain_min:+.3f} min ({outcome.low_min:+.3f} to {outcome.high_min:+.3f}), "
        f"evidence {outcome.e_value:.3g}"
    )
