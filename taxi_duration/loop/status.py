"""Where everything stands, on one screen: who serves, what the loop does and would do next.

Each part is asked for by itself: one that cannot be read is a problem that is named, and the
others are shown all the same. Nothing is changed by looking, and MLflow is not asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar

from msgspec import to_builtins

from taxi_duration import environment
from taxi_duration.domain.months import format_months, parse_months
from taxi_duration.errors import TaxiError
from taxi_duration.evaluation.health import monitor_settings
from taxi_duration.live.audit import last_training, read_audit
from taxi_duration.live.deployment import Deployment, read_deployment, who_serves
from taxi_duration.live.prediction_log import open_log
from taxi_duration.live.verdict import read_verdict
from taxi_duration.loop.approving import waiting
from taxi_duration.loop.dry_run import copy_of_home, turn_on_copy
from taxi_duration.loop.pausing import read_pause
from taxi_duration.loop.state import State, read_state
from taxi_duration.model.bundle import load_card
from taxi_duration.timestamps import DAY_SECONDS, iso_of

T = TypeVar("T")


def read_status() -> dict[str, Any]:
    """Return where everything stands, as plain JSON types.

    A part that is missing or cannot be read is null; `problems` says why, and what to
    do. Times are ISO, UTC.
    """
    problems: list[str] = []

    def ask(get: Callable[[], T]) -> T | None:
        try:
            return get()
        except TaxiError as error:
            problems.append(str(error))
            return None

    with copy_of_home():
        deployment, state, lines = ask(read_deployment), ask(read_state), read_audit()
        found = {
            "at": iso_of(time.time()),
            "serving": ask(lambda: _serving(deployment)),
            "loop": _loop(state),
            "paused": to_builtins(ask(read_pause)),
            "waiting": to_builtins(ask(waiting)),
            "feedback": ask(lambda: _feedback(deployment)),
            "verdict": ask(_verdict),
            "months": ask(lambda: _months(deployment, state)),
            "training": last_training(lines),
        }
        turn = ask(turn_on_copy)  # the last: it changes the copy
    found["test"] = _test(deployment, [*lines, *(turn.lines if turn else [])])
    found["next_turn"] = turn.said if turn else None
    return {**found, "problems": list(dict.fromkeys(problems)), "commands": _commands(found)}


def _serving(deployment: Deployment | None) -> dict[str, Any] | None:
    if deployment is None:
        return None
    found: dict[str, Any] = {"champion": None, "challenger": None, "previous": None}
    roles = who_serves()
    for role in found:
        version = getattr(deployment, role)
        if version is not None:
            does, _, since = roles.get(version.ref, "").rpartition(" since ")
            found[role] = {"version": version.ref, "sha256": version.sha256, "does": does,
                           "since": since, "data_source": version.data_source}  # fmt: skip
    return {**found, "ab_share": deployment.ab_share, "shadow": deployment.shadow}


def _loop(state: State | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {
        "stage": state.stage, "since": iso_of(state.since) if state.since else None,
        "month": state.month, "why": state.why, "not_in_mlflow": len(state.unlogged),
    }  # fmt: skip


def _test(deployment: Deployment | None, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the newest look at the challenger's feedback said, and when."""
    challenger = deployment.challenger if deployment else None
    for line in reversed(lines):
        test = line["numbers"].get("test")
        words = f"{line['what']} {line['why']}".replace(";", " ").split()
        if challenger and isinstance(test, dict) and challenger.ref in words:
            # An interval of no days is infinite, for which JSON has no number.
            finite = {k: v for k, v in test.items() if not isinstance(v, float) or isfinite(v)}
            return {**dict.fromkeys(test), **finite, "at": line["at"]}
    return None


def _feedback(deployment: Deployment | None) -> dict[str, Any]:
    """How many of the rides of the last days have their true duration."""
    days, log = monitor_settings().live_days, open_log()
    try:
        name = deployment.champion.name if deployment else ""
        found = log.feedback_rate(time.time() - days * DAY_SECONDS, name)
    finally:
        log.close()
    rides, with_truth, last = found["rides"], found["with_truth"], found["last_at"]
    share = with_truth / rides if rides else None
    last_at = iso_of(last) if last else None
    return {
        "days": days, "rides": rides, "with_truth": with_truth, "share": share, "last_at": last_at
    }  # fmt: skip


def _verdict() -> dict[str, Any] | None:
    verdict = read_verdict()
    if verdict is None:
        return None
    return {
        "level": verdict.verdict, "source": verdict.source, "model": verdict.model,
        "at": verdict.at, "age_hours": round(verdict.age_seconds / 3600, 1),
        "reasons": [reason.text for reason in verdict.reasons],
    }  # fmt: skip


def _months(deployment: Deployment | None, state: State | None) -> dict[str, Any] | None:
    """What the champion learned from, and the newest month that was decided on."""
    if deployment is None:
        return None
    version = deployment.champion
    card = load_card(version.folder, environment.signing_key(), version.ref)
    known = parse_months(f"{card['train_data']},{card['val_data']}")
    looked_at = state.looked_at if state else None
    return {"champion": format_months(known), "looked_at": looked_at}


def _commands(found: dict[str, Any]) -> dict[str, str]:
    """What a person can do now, by command."""
    serving = found["serving"] or {}
    commands = {}
    if found["waiting"] and not found["waiting"]["who"]:
        commands["approve"] = "let the loop do what waits"
    if serving.get("challenger"):
        commands["drop"] = f"end the test of {serving['challenger']['version']}"
    if serving.get("previous"):
        commands["rollback"] = f"{serving['previous']['version']} serves again"
    if found["serving"] is None:
        commands["run"] = "train and deploy the first model"
    commands["auto"] = "take the next turn now"
    if found["paused"]:
        commands["auto resume"] = "let the loop act again"
    else:
        commands["auto pause"] = "keep the loop from acting"
    return commands
