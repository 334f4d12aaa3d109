"""Testing a challenger: first in the shadow, then with a share of the rides.

Both versions answer every ride of a test, so its errors are always compared on the same rides.
The A/B test adds what only real serving shows: see `evaluation/serving_checks.py`.
"""

from __future__ import annotations

from typing import Any

from taxi_duration.live.deployment import set_challenger
from taxi_duration.loop.looking import look_at_champion
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.tested_rides import Look, look_at_rides
from taxi_duration.timestamps import DAY_SECONDS


def start_shadow(now: Situation) -> Step:
    """Let the challenger answer beside the champion, for the log alone."""
    if now.is_overtaken:
        return now.leave()
    reason = now.state.why or f"passed the gate on {now.state.month}"
    set_challenger(now.challenger, reason, seen=now.deployment)
    why = f"its answers are logged beside those of {now.old_champion.ref}"
    after = now.enter("shadow", ab_share=0.0, tested_since=now.world.now())
    return Step(f"shadow {now.challenger.ref}", why, after, version=now.challenger)


def shadow(now: Situation) -> Step:
    """Look at the shadow answers whose truth has come in."""
    if not now.is_under_test:
        return now.leave()
    live, back = look_at_champion(now)
    if back is not None or (back := _follow(now)) is not None:
        return back
    look = look_at_rides(now, now.settings.shadow_blocks)
    if (halted := _halt(now, look)) is not None:
        return halted
    is_better = look.outcome.verdict == "better" and look.is_well_served
    if is_better and live.is_wrong:
        why = f"{look.why}; no time for an A/B test: {live.reasons[0].text}"
        return _trust(now, why, look.numbers)
    no_worse = _is_newer(now) and _is_no_worse(now, look, now.settings.shadow_blocks)
    if is_better or no_worse:
        after = now.enter("start_ab", why=look.why, proven=True)
        return Step(f"try {now.challenger.ref}", look.why, after, look.numbers, now.challenger)
    return _wait_for_feedback(now, look, now.settings.max_shadow_blocks)


def start_ab(now: Situation) -> Step:
    """Let the challenger answer a share of the rides: the usual one, or that of an operator."""
    if not now.is_under_test:
        return now.leave()
    share = now.deployment.ab_share or now.settings.ab_share
    set_challenger(now.challenger, now.state.why, ab_share=share, seen=now.deployment)
    why = f"it answers {share:.0%} of the rides; {now.state.why}"
    after = now.enter("ab", ab_share=share)
    return Step(f"A/B-test {now.challenger.ref}", why, after, version=now.challenger)


def ab(now: Situation) -> Step:
    """Look at how the challenger does while it answers riders."""
    if not now.is_under_test:
        return now.leave()
    live, back = look_at_champion(now)
    if back is not None or (back := _follow(now)) is not None:
        return back
    settings = now.settings
    look = look_at_rides(now, settings.ab_blocks)
    if (halted := _halt(now, look)) is not None:
        return halted
    health = now.world.arm_health(now.challenger)
    if health.is_wrong and not live.is_wrong:  # riders need not wait for a whole week
        return doubt(now, health.reasons[0].text, {"arm": health.overall()})
    if look.is_well_served and look.blocks >= settings.ab_blocks:
        if look.outcome.verdict == "better":
            return _trust(now, look.why, look.numbers)
        if now.state.proven and _is_no_worse(now, look, settings.ab_blocks):
            margin = f"not worse for riders by {_margin(now):g} min"
            return _trust(now, f"proven in the shadow, and {margin} ({look.why})", look.numbers)
    return _wait_for_feedback(now, look, settings.max_ab_blocks)


def _is_no_worse(now: Situation, look: Look, blocks: int) -> bool:
    """True when the whole interval of the gain lies above the loss that is allowed for."""
    sure = look.blocks >= blocks and look.outcome.low_min > -_margin(now)
    return look.is_well_served and sure and look.outcome.verdict != "worse"


def _is_newer(now: Situation) -> bool:
    """True for the loop's own challenger: it passed the gate on a month, and is newer."""
    return now.state.month is not None


def _margin(now: Situation) -> float:
    return now.settings.newer_margin_min if _is_newer(now) else now.settings.max_worse_min


def doubt(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    """Decide that the challenger is to be dropped."""
    after = now.enter("drop", why=why)
    return Step(f"doubt {now.challenger.ref}", why, after, numbers, now.challenger)


def _trust(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    after = now.enter("promote", why=why)
    return Step(f"trust {now.challenger.ref}", why, after, numbers, now.challenger)


def _follow(now: Situation) -> Step | None:
    """Begin the stage anew where somebody gave the challenger another share, or no shadow."""
    share = now.deployment.ab_share
    if now.deployment.shadow and share == now.state.ab_share:
        return None
    why = f"somebody else gave it {share:.0%} of the rides"
    after = now.enter("start_ab" if share else "start_shadow", why=why)
    return Step(f"test {now.challenger.ref} anew", why, after, version=now.challenger)


def _halt(now: Situation, look: Look) -> Step | None:
    """Doubt a challenger that is badly served; wait while its errors cannot be believed."""
    if look.failed is not None:
        return doubt(now, look.failed.text, look.numbers)
    return None if look.hold is None else _wait(now, look)


def _wait_for_feedback(now: Situation, look: Look, max_blocks: int) -> Step:
    """Wait for more, unless it is worse or was undecided in the time that it had."""
    undecided = look.outcome.verdict == "undecided" and look.blocks >= max_blocks
    if look.outcome.verdict == "worse" or undecided:
        return doubt(now, look.why, look.numbers)
    return _wait(now, look)


def _wait(now: Situation, look: Look) -> Step:
    days = (now.world.now() - now.state.since) / DAY_SECONDS
    if days > now.settings.max_test_days:
        return doubt(now, f"no decision in {days:.0f} days; {look.why}", look.numbers)
    why = f"{now.challenger.ref} is being tested; {look.why}"
    return wait(why, look.numbers, is_problem=look.hold is not None)
