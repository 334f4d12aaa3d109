"""Carries out what was decided; each act may be repeated after a crash.

Each changes the deployment that it was decided on, and no other.
"""

from __future__ import annotations

from taxi_duration.errors import BundleError
from taxi_duration.live.deployment import deploy_champion, drop_challenger
from taxi_duration.live.deployment import roll_back as put_previous_back
from taxi_duration.loop.situation import Situation, Step
from taxi_duration.loop.testing import doubt


def promote(now: Situation) -> Step:
    """Make the challenger the champion; the one before stays in the shadow."""
    is_done = now.champion == now.challenger  # by a turn that was killed after it
    if not (is_done or now.is_under_test):
        return now.leave()
    try:
        now.world.check_bundle(now.challenger)
    except BundleError as error:
        return doubt(now, str(error), {})
    deploy_champion(now.challenger, now.state.why, bake=True, seen=now.deployment)
    what = f"promote {now.challenger.ref}"
    return Step(what, now.state.why, now.bake(), version=now.challenger)


def drop(now: Situation) -> Step:
    """End the test; the champion answers alone."""
    if now.deployment.challenger == now.challenger:
        drop_challenger(now.state.why, seen=now.deployment)
    what = f"drop {now.challenger.ref}"
    return Step(what, now.state.why, now.done(), version=now.challenger)


def roll_back(now: Situation) -> Step:
    """Put the earlier champion back; it may be there already after a crash."""
    if not now.is_overtaken:
        put_previous_back(now.state.why, seen=now.deployment)
    what = f"roll back {now.old_champion.ref} to {now.challenger.ref}"
    return Step(what, now.state.why, now.done(), version=now.old_champion)
