"""Where the loop stands, kept in `deployment/auto.json`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field, to_builtins

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.files import read_typed, write_json

STATE_FILE = "auto.json"
# Names of the steps, see `turn.STEPS`.
Stage = Literal[
    "idle", "train", "gate", "refit", "start_shadow", "shadow", "start_ab", "ab", "promote", "drop",
    "roll_back", "baking", "end_baking",
]  # fmt: skip


class Unlogged(Struct, frozen=True):
    """A decision that MLflow does not have yet.

    Args:
        key: of its line in the audit trail.
        version: that it is about.
    """

    key: str
    version: Version | None = field(name="model")


class State(Struct, frozen=True):
    """Where the loop stands; what a step needs to be done again.

    Args:
        stage: name of the step that comes next.
        serial: grows with every change of state.
        since: unix seconds when the stage began.
        month: published month that judges the challenger.
        window: months before it to learn from; 0 for the usual number.
        run_id: of the training run.
        attempts: trainings of this month that failed.
        training_minutes: that making the challenger took.
        challenger, champion: under test; what deployment.json must still say when a step acts.
        looked_at: newest month that was decided on.
        republished: months published anew that were dealt with: the digests before and after.
        proven: the challenger was better in the shadow, so that it need only be no worse after.
        ab_share: of the rides for the challenger, since the stage began.
        tested_since: unix seconds when both began to answer every ride; 0 as `since`.
        noted_since: both as they were noted, while a clock that shows less is not yet believed.
        why: the reason of the present step, for the line that says it is done.
        unlogged: decisions that MLflow does not have yet.
    """

    stage: Stage = "idle"
    serial: int = 0
    since: float = 0.0
    month: str | None = None
    window: int = 0
    run_id: str | None = None
    attempts: int = 0
    training_minutes: float = 0.0
    challenger: Version | None = None
    champion: Version | None = None
    looked_at: str | None = None
    republished: tuple[str, ...] = ()
    proven: bool = False
    ab_share: float = 0.0
    tested_since: float = 0.0
    noted_since: tuple[float, float] | None = None
    why: str = ""
    unlogged: tuple[Unlogged, ...] = field(default=(), name="untold")

    def ended(self, at: float) -> State:
        """Idle again, with the month behind it; what MLflow does not have yet is left out.

        Args:
            at: unix seconds.
        """
        looked_at = self.month or self.looked_at
        return State("idle", self.serial, at, looked_at=looked_at, republished=self.republished)


def read_state() -> State:
    """Return where the loop stands; idle when it never ran.

    Raises:
        ContentError: the file is not as it was written; says what is wrong and what to do.
    """
    remedy = (
        "without it `python pipeline.py auto` begins anew and takes over the test that "
        "deployment.json names"
    )
    return read_typed(environment.deployment_dir() / STATE_FILE, State, remedy) or State()


def write_state(state: State) -> None:
    """Replace the state in one step."""
    write_json(environment.deployment_dir() / STATE_FILE, to_builtins(state))
