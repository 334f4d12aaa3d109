"""Ends a test, or the baking of a new champion, by hand."""

from __future__ import annotations

import time

from filelock import FileLock, Timeout
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.errors import ContentError
from taxi_duration.live.audit import record, user_name
from taxi_duration.live.deployment import Deployment, drop_challenger, read_deployment
from taxi_duration.loop.state import State, Unlogged, read_state, write_state
from taxi_duration.loop.turn import LOCK_FILE

LOCK_SECONDS = 10  # a turn that looks is over by then; one that trains has nothing under test
# Stages in which nothing is under test, or the test is ending already.
NOT_TESTING = ("idle", "train", "gate", "refit", "drop", "roll_back", "end_baking")


def end_test(reason: str) -> Version | None:
    """Take the challenger out of the deployment and the loop's state; its month is dealt with.

    Safe to repeat, also after a kill. A turn at work is not waited for: it finds the test ended.

    Returns:
        The version that was under test, None when none was.
    Raises:
        ContentError: the test is ended, but the loop's state cannot be read.
        TaxiError: nothing is deployed, or deployment.json is damaged.
    """
    folder = environment.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        return _end(reason, None)
    try:
        state = read_state()
    except ContentError:
        _end(reason, None)
        raise
    else:
        return _end(reason, state)
    finally:
        lock.release()


def _end(reason: str, state: State | None) -> Version | None:
    deployment = read_deployment()
    of_state = state if state and deployment and _is_tested(state, deployment) else None
    challenger = deployment.challenger if deployment else None
    challenger = challenger or (of_state.challenger if of_state else None)
    if challenger is None:
        drop_challenger(reason)  # changes nothing; raises when nothing is deployed
        return None
    began = of_state.since if of_state else deployment and deployment.updated
    key = f"drop:{challenger.ref}:{began}:{reason}"  # the same until it is done
    record(f"drop {challenger.ref}", reason, key=key, who=user_name())
    drop_challenger(reason)
    if of_state:
        unlogged = (*of_state.unlogged, Unlogged(key, challenger))
        after = of_state.ended(time.time())
        write_state(replace(after, serial=of_state.serial + 1, unlogged=unlogged))
    return challenger


def _is_tested(state: State, deployment: Deployment) -> bool:
    """True when the loop's state is about a test that has not ended."""
    return state.stage not in NOT_TESTING and state.challenger != deployment.champion
