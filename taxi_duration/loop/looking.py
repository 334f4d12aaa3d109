"""Looking: is the champion well, and is a new month worth a new version?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from taxi_duration.domain.findings import LEVELS
from taxi_duration.domain.months import Month, format_months, parse_month
from taxi_duration.errors import (
    BadMonthError,
    BundleError,
    MonthNotPublishedError,
    SourceError,
    SourceUnreachableError,
    TripFileError,
)
from taxi_duration.evaluation.gain_words import gain_in_words
from taxi_duration.evaluation.health import Health
from taxi_duration.live.audit import record
from taxi_duration.loop.challenging import training_window
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.state import Stage
from taxi_duration.loop.world import Republished

UNKNOWN = Health("live log", "unknown", 0, 0, pd.DataFrame(), [], [])


def idle(now: Situation) -> Step:
    """Look at the champion and for new months; decide whether to act."""
    if now.deployment.challenger is not None:
        return _adopt(now)
    live, back = look_at_champion(now)
    if back is not None:
        return back
    try:
        return _look_at_months(now, live)
    except (SourceUnreachableError, SourceError, MonthNotPublishedError) as error:
        return wait(f"the source of months cannot be used: {error}", is_problem=True)


def look_at_champion(now: Situation) -> tuple[Health, Step | None]:
    """Look at the champion's live answers; the step is to go back or to wait, None to go on.

    Raises:
        BundleError: the champion or the one before it cannot be used.
    """
    try:
        _restore(now)
        live = now.world.live_health(now.champion)
    except BundleError as error:
        if now.deployment.previous is None:
            raise BundleError(f"{error}; `python pipeline.py doctor` says what mends it") from error
        now.world.check_bundle(now.deployment.previous)
        return UNKNOWN, _distrust(now, str(error), {})
    if live.hold is not None:
        return live, wait(live.hold, is_problem=True)
    return live, go_back(now, live)


def _restore(now: Situation) -> None:
    """Pull the champion's bundle again when it is gone from disk."""
    if now.world.restore_bundle(now.champion):
        why = "its bundle was gone from disk; it is that of the deployed digest again"
        record(
            f"pull {now.champion.ref}", why, key=f"pull:{now.champion.ref}:{now.world.now():.3f}"
        )


def _adopt(now: Situation) -> Step:
    """Take over a test or a baking that an operator began."""
    challenger = now.deployment.challenger
    assert challenger is not None
    versions = {"champion": now.champion, "challenger": challenger}
    if now.deployment.is_baking:
        why = f"{now.champion.ref} was promoted by somebody else; it bakes like any other"
        return Step(f"bake {now.champion.ref}", why, now.enter("baking", **versions))
    stage: Stage = "start_ab" if now.deployment.ab_share > 0 else "start_shadow"
    why = "somebody else made it challenger; it is judged like any other"
    return Step(f"adopt {challenger.ref}", why, now.enter(stage, why=why, **versions))


def _look_at_months(now: Situation, live: Health) -> Step:
    """Look for a month that no version has seen, and for one that was published anew."""
    known = now.world.months_of(now.champion)
    looked_at = [parse_month(now.state.looked_at)] if now.state.looked_at else []
    newest = max([*known, *looked_at])
    anew = now.world.fetch_republished(now.champion, known)
    anew = [found for found in anew if not _is_dealt_with(now, found)]
    month = judging_month(now, newest)
    if anew:
        return _learn_anew(now, anew, month or max(known))
    if month is None:
        worry = f"; the live log says {live.level}" if live.level != "ok" else ""
        why = f"no month after {newest} is published{worry}"
        return Step("nothing", why, None, {"live": live.overall()})
    return _judge_month(now, month, live)


def judging_month(now: Situation, after: Month) -> Month | None:
    """The newest published month after one, if there is a month to learn from before it.

    A backlog of older months is learned from, not judged one by one; months that are missing
    for good hide nothing that follows.
    """
    today = datetime.fromtimestamp(now.world.now(), UTC)
    last = Month(today.year, today.month).shift(-1)  # a month is published when it is over
    count = (last.year - after.year) * 12 + last.month - after.month
    newest_first = (last.shift(-i) for i in range(count))
    found = now.world.find_published(now.champion, newest_first)
    return next((month for month in found if training_window(now, month, 1)), None)


def _is_dealt_with(now: Situation, found: Republished) -> bool:
    """True for a change of bytes that was dealt with; older releases kept the new digest alone."""
    return not {_change_of(found), found.after}.isdisjoint(now.state.republished)


def _change_of(found: Republished) -> str:
    # From what to what: a source may go back to bytes that it had before.
    return f"{found.before}:{found.after}"


def _learn_anew(now: Situation, anew: list[Republished], month: Month) -> Step:
    """Months that the champion knows have other bytes now: retrain if it learned from them."""
    names = format_months([found.month for found in anew])
    done = (*now.state.republished, *(_change_of(found) for found in anew))
    numbers = {"republished": {str(f.month): [f.before, f.after] for f in anew}}
    what = f"the source has published {names} anew"
    if not any(found.learned for found in anew):
        why = f"{what}; {now.champion.ref} only judged by it: the next version learns from it"
        return Step(f"keep {names} anew", why, now.enter("idle", republished=done), numbers)
    after = now.enter(
        "train", month=str(month), window=now.settings.window_months, champion=now.champion,
        republished=done,
    )  # fmt: skip
    why = f"{what}; {now.champion.ref} learned from the old bytes"
    return Step(f"retrain on {names} anew", why, after, numbers)


def _judge_month(now: Situation, month: Month, live: Health) -> Step:
    """Decide whether a new month is worth a new version."""
    champion, settings = now.champion, now.settings
    try:
        health = now.world.month_health(champion, month)
    except (BadMonthError, TripFileError) as error:  # it stays bad: the next one is waited for
        return Step(f"give up on {month}", str(error), now.enter("idle", looked_at=str(month)))
    last = max(now.world.months_of(champion))
    age = (month.year - last.year) * 12 + month.month - last.month
    numbers = {"month": health.overall(), "live": live.overall(), "age_months": age}
    if health.columns:
        numbers["columns"] = health.columns
    worst = max((health, live), key=lambda found: LEVELS.index(found.level))
    if not worst.is_worrying and age < settings.max_age_months:
        why = f"{champion.ref} answers {month} as well as its validation month{_columns(health)}"
        after = now.enter("idle", looked_at=str(month))
        return Step(f"not worth it {month}", why, after, numbers)
    why = (
        f"{worst.source}: {worst.level}, {worst.reasons[0].text}"
        if worst.is_worrying
        else f"{champion.ref} is {age} months old"
    )
    why += _columns(health)
    alarmed = worst.level == "alarm"
    window = settings.alarm_window_months if alarmed else settings.window_months
    after = now.enter("train", month=str(month), window=window, champion=champion)
    return Step(f"retrain on the months before {month}", why, after, numbers)


def _columns(health: Health) -> str:
    """The worst finding about the month's columns, for the decision's text."""
    if not health.columns:
        return ""
    more = f" and {len(health.columns) - 1} more" if len(health.columns) > 1 else ""
    return f"; its columns say: {health.columns[0]}{more}"


def go_back(now: Situation, live: Health) -> Step | None:
    """Decide to roll back: the live answers are wrong, and the earlier version's were not."""
    previous = now.deployment.previous
    if not live.is_wrong or previous is None:
        return None
    gain, rides = now.world.compare_live(now.champion, previous)
    enough = now.settings.min_rollback_gain_share * live.overall()["mae"]
    if gain.low <= 0 or gain.value < enough:
        return None
    why = (
        f"{live.reasons[0].text}; {previous.ref} is {gain_in_words(gain.value)} "
        f"on the same {rides:,} rides"
    )
    numbers = {"live": live.overall(), "gain_min": gain._asdict(), "rides": rides}
    return _distrust(now, why, numbers)


def _distrust(now: Situation, why: str, numbers: dict[str, Any]) -> Step:
    after = now.enter(
        "roll_back", champion=now.champion, challenger=now.deployment.previous, why=why
    )
    return Step(f"distrust {now.champion.ref}", why, after, numbers, now.champion)
