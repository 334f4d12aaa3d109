"""Where the loop stands, kept in `deployment/auto.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from taxi_duration import environment
from taxi_duration.files import read_json, write_json

STATE_FILE = "auto.json"


@dataclass(frozen=True)
class State:
    """Where the loop stands; what a step needs to be done again.

    Args:
        stage: name of the step that comes next, see `STEPS`.
        serial: grows with every change of state.
        since: unix seconds when the stage began.
        month: published month that judges the challenger.
        window: months before it to learn from; 0 for the usual number.
        run_id: of the training run.
        attempts: trainings of this month that failed.
        challenger, champion: entries as in deployment.json.
        looked_at: newest month that was decided on.
        proven: the challenger was better in the shadow, so that riders need only not object.
        why: what to say when the present step is done.
        untold: decisions that MLflow does not know yet, each the `key` of its line in the
            audit trail and the `model` it is about.
    """

    stage: str = "idle"
    serial: int = 0
    since: float = 0.0
    month: str | None = None
    window: int = 0
    run_id: str | None = None
    attempts: int = 0
    challenger: dict[str, Any] | None = None
    champion: dict[str, Any] | None = None
    looked_at: str | None = None
    proven: bool = False
    why: str = ""
    untold: list[dict[str, Any]] = field(default_factory=list)


def read_state() -> State:
    """Return where the loop stands; idle when it never ran."""
    path = environment.deployment_dir() / STATE_FILE
    return State(**read_json(path)) if path.exists() else State()


def write_state(state: State) -> None:
    """Replace the state in one step."""
    write_json(environment.deployment_dir() / STATE_FILE, asdict(state))
