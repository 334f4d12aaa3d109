"""What a step of the loop decides on, and what it decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace

from taxi_duration.domain.months import Month, parse_month
from taxi_duration.domain.version import Version
from taxi_duration.errors import ContentError
from taxi_duration.live.deployment import Deployment
from taxi_duration.loop.settings import AutoSettings
from taxi_duration.loop.state import STATE_FILE, Stage, State
from taxi_duration.loop.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """What one step decided: `what` and `why` for the audit trail, and the state after it.

    `state` is None when nothing changes and the turn is over; `version` is what it is about;
    `is_problem` when the loop cannot go on, so that people are notified though nothing changes.
    """

    what: str
    why: str
    state: State | None
    numbers: dict[str, Any] = field(default_factory=dict)
    version: Version | None = None
    is_problem: bool = False


@dataclass(frozen=True)
class Situation:
    """The world and the settings, where the loop stands, and who serves."""

    world: World
    settings: AutoSettings
    state: State
    deployment: Deployment

    @property
    def champion(self) -> Version:
        """Who serves now."""
        return self.deployment.champion

    @property
    def challenger(self) -> Version:
        """The version beside the champion; for `baking` and `roll_back` the one to go back to."""
        return self._needed(self.state.challenger, "challenger")

    @property
    def old_champion(self) -> Version:
        """The champion when the stage began."""
        return self._needed(self.state.champion, "champion")

    @property
    def month(self) -> Month:
        """The month that judges the challenger."""
        return parse_month(self._needed(self.state.month, "month"))

    @property
    def is_overtaken(self) -> bool:
        """True when the champion is not the one that the stage began with."""
        return self.champion != self.old_champion

    @property
    def is_under_test(self) -> bool:
        """True while the deployment still names both versions of the test."""
        return not self.is_overtaken and self.deployment.challenger == self.challenger

    def enter(self, stage: Stage, **changes: Any) -> State:
        """The state at the begin of a stage."""
        now = self.world.now()
        return replace(self.state, stage=stage, since=now, noted_since=None, **changes)

    def done(self) -> State:
        """Idle again, with the month behind us."""
        return self.state.ended(self.world.now())

    def bake(self) -> State:
        """The challenger is champion, and the champion before answers beside it."""
        champion, earlier = self.challenger, self.old_champion
        return replace(self.done(), stage="baking", champion=champion, challenger=earlier)

    def leave(self) -> Step:
        """The step for a test that somebody else ended."""
        why = "champion or challenger was changed by somebody else in the meantime"
        return Step(f"leave {self.challenger.ref}", why, self.done())

    def _needed(self, value: T | None, name: str) -> T:
        if value is None:
            raise ContentError(f"{STATE_FILE}: stage {self.state.stage} needs {name}, it has none")
        return value


def wait(why: str, numbers: dict[str, Any] | None = None, is_problem: bool = False) -> Step:
    """The step that changes nothing; the next turn looks again."""
    return Step("wait", why, None, numbers or {}, is_problem=is_problem)
