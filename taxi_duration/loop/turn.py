"""One turn of the loop: look, decide, act, write down; then stop until the next turn.

What is going on is kept in `deployment/auto.json`. Every step first writes what it is about
to do, then does it, and each act may be repeated: a turn killed at any point is finished by
the next. A step's decision carries a key made of the state's number, so that it leaves one
line in the audit trail even when it is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from filelock import FileLock, Timeout
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.errors import (
    AtWorkError,
    BundleError,
    OvertakenError,
    TaxiError,
    TrackingError,
)
from taxi_duration.live.audit import read_audit, record
from taxi_duration.live.deployment import read_deployment
from taxi_duration.loop import acting, baking, challenging, looking, testing
from taxi_duration.loop.approving import after_decision, before_act
from taxi_duration.loop.pausing import Pause, read_pause
from taxi_duration.loop.settings import AutoSettings, auto_settings
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.state import Stage, State, Unlogged, read_state, write_state
from taxi_duration.loop.world import World
from taxi_duration.timestamps import DAY_SECONDS

LOCK_FILE = ".auto.lock"
# Since a clock was set back, and went on from there; then it is taken to be right.
BELIEVED_SECONDS = DAY_SECONDS

STEPS: dict[Stage, Callable[[Situation], Step]] = {
    "idle": looking.idle,
    "train": challenging.train,
    "gate": challenging.gate,
    "refit": challenging.refit,
    "start_shadow": testing.start_shadow,
    "shadow": testing.shadow,
    "start_ab": testing.start_ab,
    "ab": testing.ab,
    "promote": acting.promote,
    "drop": acting.drop,
    "roll_back": acting.roll_back,
    "baking": baking.bake,
    "end_baking": baking.end_baking,
}


class BusyError(TaxiError):
    """Another turn of the loop is at work on this deployment."""


def take_turn(
    world: World,
    say: Callable[[str], None] = lambda _: None,
    settings: AutoSettings | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Take steps until feedback is waited for or a month is dealt with; return the decisions.

    Args:
        world: what is decided on and acted in.
        say: prints a line of progress.
        settings: those of the package when None.
        on_step: called with each step when it is written down.
    Raises:
        BusyError: another turn is under way.
        TaxiError: a step failed; the next turn tries it again.
    """
    folder = environment.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return _take_steps(world, settings or auto_settings(), say, on_step)
    except Timeout as error:
        raise BusyError("another `auto` is at work on this deployment") from error


def next_step(world: World, settings: AutoSettings, state: State) -> Step:
    """Do what the stage asks for and return what was decided."""
    deployment = read_deployment()
    if deployment is None:
        why = "nothing is deployed yet; `pipeline.py run` makes the first"
        return wait(why, is_problem=True)
    try:
        now = Situation(world, settings, state, deployment)
        return before_act(now) or after_decision(now, STEPS[state.stage](now))
    except TrackingError as error:
        return wait(f"MLflow is needed: {error}", is_problem=True)
    except (AtWorkError, OvertakenError) as error:
        return wait(f"{error}; the next turn looks again")


def _take_steps(
    world: World,
    settings: AutoSettings,
    say: Callable[[str], None],
    on_step: Callable[[Step], None],
) -> list[dict[str, Any]]:
    lines = []
    _log_decisions(world, say)  # what an earlier turn could not
    while True:
        state = _by_the_clock(read_state(), world.now())
        if (pause := read_pause()) is not None:
            say(_paused(world, settings, state, pause))
            break
        step = next_step(world, settings, state)
        # A state that stays is looked at again and again: each look is a line of its own.
        key = f"{state.serial}:{state.stage}:{step.what}" if step.state else None
        line = record(step.what, step.why, _with_cost(state, step), key)
        lines.append(line)
        say(f"{step.what}: {step.why}")
        if step.state is None or key is None:
            on_step(step)
            break
        unlogged = (*state.unlogged, Unlogged(key, step.version))
        after = replace(step.state, serial=state.serial + 1, unlogged=unlogged)
        if after.why == step.why:  # a killed turn may have given another reason
            after = replace(after, why=line["why"])
        write_state(after)
        on_step(step)
        if step.state.stage == "idle" != state.stage:
            break  # a month is dealt with
    _log_decisions(world, say)
    return lines


def _by_the_clock(state: State, now: float) -> State:
    """Let a stage begin now that began in the future: a clock was ahead, or is behind.

    No ride that is asked from now on would count until then, and no bound of days be reached. A
    clock that soon shows the noted time again was behind (a machine without a battery, before it
    asked for the time): the stage began as noted, and not as long ago as that clock said.
    """
    times = (state.since, state.tested_since)
    if state.noted_since is not None and max(state.noted_since) <= now:
        times, noted = state.noted_since, None
    elif state.noted_since is not None and now - state.since > BELIEVED_SECONDS:
        noted = None
    elif max(times) > now:
        times, noted = (min(times[0], now), min(times[1], now)), state.noted_since or times
    else:
        return state
    state = replace(state, since=times[0], tested_since=times[1], noted_since=noted)
    write_state(state)
    return state


def _paused(world: World, settings: AutoSettings, state: State, pause: Pause) -> str:
    """Look all the same, for the verdict and its alarms; a person decides what to do."""
    why = f"{pause.text}; `python pipeline.py auto resume` lets it act again"
    deployment = read_deployment()
    if deployment is None:
        return why
    try:
        live = world.live_health(deployment.champion)
    except BundleError as error:
        return f"{why}; {error}"
    back = looking.go_back(Situation(world, settings, state, deployment), live)
    return f"{why}; it would {back.what} as `rollback` does: {back.why}" if back else why


def _with_cost(state: State, step: Step) -> dict[str, Any]:
    """The step's numbers, and the minutes that making the version took."""
    for known in filter(None, (step.state, state)):
        if known.training_minutes and known.challenger == step.version:
            return {**step.numbers, "training_minutes": round(known.training_minutes, 2)}
    return step.numbers


def _log_decisions(world: World, say: Callable[[str], None]) -> None:
    """Bring MLflow up to date with what serves and what was decided; no decision waits for it."""
    state = read_state()
    if not state.unlogged:
        return
    lines = {line["key"]: line for line in read_audit()}
    try:
        world.mirror()
        for decision in state.unlogged:
            if decision.key in lines:
                world.log(lines[decision.key], decision.version)
    except TrackingError as error:
        say(f"MLflow gets this with a later turn: {error}")
    else:
        write_state(replace(state, unlogged=()))
