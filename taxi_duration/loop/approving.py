"""Approval (`AUTO_APPROVE=manual`): what would reach riders waits until a person approves it.

What waits lies in `deployment/approval.json`. While it waits the test goes on: every turn judges
again: a challenger that turns out worse is dropped, a champion that is wrong is rolled back.
An approval is for one step of one version, and ends with it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.errors import NotFoundError, SettingError
from taxi_duration.files import read_typed, remove_file, write_json
from taxi_duration.live.audit import record, user_name
from taxi_duration.loop.looking import look_at_champion
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.state import Stage, State, read_state
from taxi_duration.loop.testing import doubt
from taxi_duration.timestamps import DAY_SECONDS, iso_now

APPROVAL_FILE = "approval.json"
# Stages that bring a challenger to riders, in words. Shadow answers reach nobody, and a
# rollback brings back what riders had.
ASKED_FOR: dict[Stage, str] = {"start_ab": "A/B-test", "promote": "promote"}


class Approval(Struct, frozen=True):
    """What waits for approval, or has it.

    Args:
        stage: that is asked for.
        serial: of the state in which that stage acts; no other decision has it.
        version: the challenger.
        why: the loop decided for it.
        since: when it was first asked for, ISO.
        who, at: who approved it and when; None while it waits.
    """

    stage: Stage
    serial: int
    version: Version
    why: str
    since: str
    who: str | None = None
    at: str | None = None

    @property
    def what(self) -> str:
        """The act, as the audit trail names it."""
        return f"{ASKED_FOR[self.stage]} {self.version.ref}"

    @property
    def is_ahead(self) -> bool:
        """True while it waits since a time that has not come: a clock was ahead."""
        return self.who is None and self.since > iso_now()


# --- in a turn ---------------------------------------------------------------------------


def before_act(now: Situation) -> Step | None:
    """Return the step instead of an act that nobody approved; None when it may be done."""
    asked = _ask(now, now.state, now.state.why)
    if asked is None:
        return None
    _, back = look_at_champion(now)
    return back or _wait(now, asked, {})


def after_decision(now: Situation, step: Step) -> Step:
    """Return the step, or, while approval is missing, one that waits for it."""
    after = step.state and replace(step.state, serial=now.state.serial + 1)
    asked = _ask(now, after, step.why) if after else None
    if asked is not None:
        return _wait(now, asked, step.numbers)
    if after is None or after.stage not in ASKED_FOR:
        _withdraw(now.state)
    return step


def _ask(now: Situation, after: State, why: str) -> Approval | None:
    """Return what a person still has to approve before this state acts, None when nothing.

    Asked for the first time it is written down, with a line in the audit trail.
    """
    if after.stage not in ASKED_FOR or after.challenger is None or not environment.needs_approval():
        return None
    given = now.deployment.ab_share > 0 and now.deployment.challenger == after.challenger
    if after.stage == "start_ab" and given:
        return None  # a person gave it this share
    asked = read_approval()
    if asked is None or asked.is_ahead or (asked.stage, asked.serial, asked.version) != (
        after.stage, after.serial, after.challenger,
    ):  # fmt: skip
        asked = Approval(after.stage, after.serial, after.challenger, why, iso_now())
        write_json(_path(), to_builtins(asked))
    record(f"ask for approval: {asked.what}", asked.why, key=f"ask:{asked.since}")
    return None if asked.who else asked


def _wait(now: Situation, asked: Approval, numbers: dict[str, Any]) -> Step:
    # Not before the stage: a clock may have been behind.
    since = max(datetime.fromisoformat(asked.since).timestamp(), now.state.since)
    days = (now.world.now() - since) / DAY_SECONDS
    if days > now.settings.max_test_days:
        return doubt(now, f"nobody approved in {days:.0f} days: {asked.what}", numbers)
    why = f"{asked.what} needs approval (`python pipeline.py approve`): {asked.why}"
    return wait(why, numbers)


def _withdraw(state: State) -> None:
    """Forget what was asked for when the loop does not want it any more."""
    asked = read_approval()
    if asked is not None and asked.serial == state.serial + 1:
        remove_file(_path())


# --- by a person -------------------------------------------------------------------------


def waiting() -> Approval | None:
    """Return what needs approval now, or has it and was not done yet; else None.

    Raises:
        ContentError: the file, or that of the state, is damaged.
    """
    asked, state = read_approval(), read_state()
    if asked is None or state.challenger != asked.version:
        return None
    acts = (state.stage, state.serial) == (asked.stage, asked.serial)
    return asked if acts or state.serial == asked.serial - 1 else None


def approve(reference: str | None) -> Approval:
    """Approve what waits; the next turn does it. Safe to repeat.

    Args:
        reference: `NAME:VERSION` that must be the one that waits; None for whatever waits.
    Raises:
        NotFoundError: nothing waits.
        SettingError: another version waits.
    """
    asked = waiting()
    if asked is None:
        raise NotFoundError(
            "nothing waits for approval; `python pipeline.py status` says where the loop is"
        )
    if reference not in (None, asked.version.ref):
        raise SettingError(f"{reference} does not wait for approval; this does: {asked.what}")
    if asked.who is None:
        asked = replace(asked, who=user_name(), at=iso_now())
        write_json(_path(), to_builtins(asked))
    record(f"approve: {asked.what}", asked.why, key=f"approve:{asked.since}", who=asked.who)
    return asked


def read_approval() -> Approval | None:
    """Return the last thing that was asked for, None when there was none.

    Raises:
        ContentError: the file is damaged; says what to do.
    """
    return read_typed(_path(), Approval, "delete it, and the loop asks again")


def _path() -> Path:
    return environment.deployment_dir() / APPROVAL_FILE
