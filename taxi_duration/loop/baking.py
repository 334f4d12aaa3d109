"""Baking: a new champion serves, the one before answers in the shadow and may take over again.

The errors are compared on the same rides, whatever the champion's card promises, so that one
with an honest card and bad answers does not stay.
"""

from __future__ import annotations

from typing import Any

from taxi_duration.live.deployment import drop_challenger
from taxi_duration.loop.looking import look_at_champion
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.tested_rides import look_at_rides
from taxi_duration.timestamps import DAY_SECONDS


def bake(now: Situation) -> Step:
    """Look at the shadow answers of the champion before."""
    if not (now.is_under_test and now.deployment.is_baking):
        return now.leave()
    live, back = look_at_champion(now)
    if back is not None:
        return back
    champion, earlier = now.old_champion, now.challenger
    # A version that served well before may come back on any day: no whole week is waited for.
    look = look_at_rides(now, min_blocks=1)
    if look.outcome.verdict == "better" and look.is_well_served:
        after = now.enter("roll_back", why=look.why)
        return Step(f"distrust {champion.ref}", look.why, after, look.numbers, champion)
    why = f"{earlier.ref} against it: {look.why}"
    days = max((now.world.now() - now.state.since) / DAY_SECONDS, look.outcome.blocks)
    looks_worse = look.outcome.gain_min > now.settings.max_worse_min
    longer = looks_worse or look.hold is not None
    most = now.settings.max_bake_days if longer else now.settings.bake_days
    if look.outcome.verdict == "worse" or days >= most:
        return _end(now, why, look.numbers)
    if look.failed is not None:
        return _end(now, f"{earlier.ref} cannot be compared: {look.failed.text}", look.numbers)
    if live.is_wrong:  # and the earlier version is not better: a new one may be
        return _end(now, f"{live.reasons[0].text}; {why}", look.numbers)
    return wait(f"{champion.ref} is baking; {why}", look.numbers)


def end_baking(now: Situation) -> Step:
    """Let the champion answer alone."""
    if now.is_under_test and now.deployment.is_baking:
        drop_challenger(now.state.why, seen=now.deployment)
    what = f"baked {now.old_champion.ref}"
    return Step(what, now.state.why, now.done(), version=now.old_champion)


def _end(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    after = now.enter("end_baking", why=why)
    return Step(f"keep {now.old_champion.ref}", why, after, numbers, now.old_champion)
