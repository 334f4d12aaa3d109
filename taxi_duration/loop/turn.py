"""One turn of the loop: look, decide, act, write down; then stop until the next turn.

What is going on is kept in `deployment/auto.json`. Every step first writes what it is about
to do, then does it, and each act may be repeated: a turn killed at any point is finished by
the next. A step's decision carries a key made of the state's number, so that it leaves one
line in the audit trail however often it is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from taxi_duration import environment
from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.domain.levels import LEVELS
from taxi_duration.domain.months import Month, format_months, parse_month
from taxi_duration.domain.references import name_of
from taxi_duration.errors import (
    BundleError,
    SettingError,
    SourceError,
    SourceUnreachableError,
    TaxiError,
    TrackingError,
)
from taxi_duration.evaluation.health import Health
from taxi_duration.evaluation.sequential_test import Outcome, judge, paired_gains, split_gains
from taxi_duration.live.audit import read_audit, record
from taxi_duration.live.deployment import (
    deploy_champion,
    drop_challenger,
    read_deployment,
    roll_back,
    set_challenger,
)
from taxi_duration.loop.state import State, read_state, write_state
from taxi_duration.loop.world import Workshop

LOCK_FILE = ".auto.lock"
DAY_SECONDS = 86_400


class BusyError(TaxiError):
    """Another turn of the loop is at work on this deployment."""


@dataclass(frozen=True)
class AutoSettings:
    """The values of `auto_settings.json`."""

    window_months: int
    alarm_window_months: int
    model: str
    max_age_months: int
    look_ahead_months: int
    alpha: float
    shadow_blocks: int
    max_shadow_blocks: int
    ab_share: float
    ab_blocks: int
    min_block_trips: int
    max_test_days: int
    max_attempts: int
    min_rollback_gain_share: float


@dataclass(frozen=True)
class Step:
    """What one step decided: `what` and `why` for the audit trail, and the state after it.

    `state` is None when nothing changes and the turn is over.
    """

    what: str
    why: str
    state: State | None
    numbers: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None


@cache
def auto_settings() -> AutoSettings:
    """Return the settings as stored with the package."""
    content = json.loads((files(__package__) / "auto_settings.json").read_text())
    return AutoSettings(**{name: entry["value"] for name, entry in content.items()})


def take_turn(
    workshop: Workshop,
    say: Callable[[str], None] = lambda _: None,
    settings: AutoSettings | None = None,
) -> list[dict[str, Any]]:
    """Take steps until feedback is waited for or a month is dealt with; return the decisions.

    Raises:
        BusyError: another turn is under way.
        TaxiError: a step failed; the next turn tries it again.
    """
    folder = environment.deployment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return _take_steps(Turn(workshop, settings or auto_settings()), say)
    except Timeout as error:
        raise BusyError("another `auto` is at work on this deployment") from error


def _take_steps(turn: Turn, say: Callable[[str], None]) -> list[dict[str, Any]]:
    lines = []
    _tell_mlflow(turn.workshop, say)  # what an earlier turn could not
    while True:
        state = read_state()
        step = turn.next_step(state)
        # A state that stays is looked at again and again: each look is a line of its own.
        key = f"{state.serial}:{state.stage}:{step.what}" if step.state else None
        lines.append(record(step.what, step.why, step.numbers, key))
        say(f"{step.what}: {step.why}")
        if step.state is None:
            break
        untold = [*state.untold, {"key": key, "model": step.model}]
        write_state(replace(step.state, serial=state.serial + 1, untold=untold))
        if step.state.stage == "idle" != state.stage:
            break  # a month is dealt with; a backlog takes a turn for each
    _tell_mlflow(turn.workshop, say)
    return lines


def _tell_mlflow(workshop: Workshop, say: Callable[[str], None]) -> None:
    """Let MLflow know what serves and what was decided; no decision waits for that."""
    state = read_state()
    if not state.untold:
        return
    lines = {line["key"]: line for line in read_audit()}
    try:
        workshop.mirror()
        for decision in state.untold:
            if decision["key"] in lines:
                workshop.log(lines[decision["key"]], decision["model"])
    except TrackingError as error:
        say(f"MLflow is told by a later turn: {error}")
    else:
        write_state(replace(state, untold=[]))


UNKNOWN = Health("live log", "unknown", 0, 0, pd.DataFrame(), [], [])


class Turn:
    """The steps of the loop, by the stage they belong to."""

    def __init__(self, workshop: Workshop, settings: AutoSettings) -> None:
        self.workshop = workshop
        self.settings = settings

    def next_step(self, state: State) -> Step:
        """Do what the stage asks for and say what was decided."""
        deployment = read_deployment()
        if deployment is None:
            return Step("wait", "nothing is deployed yet; `pipeline.py run` makes the first", None)
        return STEPS[state.stage](self, state, deployment)

    # --- looking ------------------------------------------------------------------------

    def idle(self, state: State, deployment: dict[str, Any]) -> Step:
        """Look at the champion and at the calendar; decide whether to act."""
        champion = deployment["champion"]
        if deployment["challenger"] is not None:
            stage = "ab" if deployment["ab_share"] > 0 else "shadow"
            why = "somebody else made it challenger; it is judged like any other"
            what = f"adopt {name_of(deployment['challenger'])}"
            return Step(what, why, self._enter(state, stage, champion=champion,
                                               challenger=deployment["challenger"]))  # fmt: skip
        live, back = self._look(state, deployment)
        if back is not None:
            return back
        newest = max([*self.workshop.months_of(champion), *_months(state.looked_at)])
        try:
            month = self._next_month(champion, newest)
        except (SourceUnreachableError, SourceError) as error:
            return Step("wait", f"the source of months cannot be used: {error}", None)
        if month is None:
            worry = f"; the live log says {live.level}" if live.level != "ok" else ""
            numbers = {"live": live.overall()}
            return Step("nothing", f"no month after {newest} is published{worry}", None, numbers)
        return self._judge_month(state, champion, month, live)

    def _next_month(self, champion: dict[str, Any], newest: Month) -> Month | None:
        """Return the first published month after the newest one known."""
        ahead = [newest.shift(i + 1) for i in range(self.settings.look_ahead_months)]
        return next((m for m in ahead if self.workshop.is_published(champion, m)), None)

    def _judge_month(
        self, state: State, champion: dict[str, Any], month: Month, live: Health
    ) -> Step:
        """A new month is there: is a new version worth it?"""
        health = self.workshop.month_health(champion, month)
        last = max(self.workshop.months_of(champion))
        age = (month.year - last.year) * 12 + month.month - last.month
        numbers = {"month": health.overall(), "live": live.overall(), "age_months": age}
        worst = max((health, live), key=lambda found: LEVELS.index(found.level))
        if worst.level == "ok" and age < self.settings.max_age_months:
            why = f"{name_of(champion)} answers {month} as well as its validation month"
            return Step(f"not worth it {month}", why,
                        self._enter(state, "idle", looked_at=str(month)), numbers)  # fmt: skip
        why = (
            f"{worst.source}: {worst.level}, {worst.reasons[0].text}"
            if worst.reasons
            else f"{name_of(champion)} is {age} months old"
        )
        alarmed = worst.level == "alarm"
        window = self.settings.alarm_window_months if alarmed else self.settings.window_months
        after = self._enter(state, "train", month=str(month), window=window, champion=champion)
        return Step(f"retrain on the months before {month}", why, after, numbers)

    def _look(self, state: State, deployment: dict[str, Any]) -> tuple[Health, Step | None]:
        """Look at the champion's live answers; the step is to go back, None to go on."""
        champion, earlier = deployment["champion"], deployment.get("previous")
        try:
            live = self.workshop.live_health(champion)
        except BundleError as error:
            if earlier is None:
                raise
            self.workshop.check_bundle(earlier)
            after = self._enter(state, "roll_back", champion=champion, challenger=earlier,
                                why=str(error))  # fmt: skip
            return UNKNOWN, Step(f"distrust {name_of(champion)}", str(error), after, {}, champion)
        return live, self._go_back(state, deployment, live)

    def _go_back(self, state: State, deployment: dict[str, Any], live: Health) -> Step | None:
        """Decide to roll back: the live answers are wrong, and the earlier version's were not."""
        champion, earlier = deployment["champion"], deployment.get("previous")
        if not live.is_wrong or earlier is None:
            return None
        gain, rides = self.workshop.compare_live(champion, earlier)
        enough = self.settings.min_rollback_gain_share * live.overall()["mae"]
        if gain.low <= 0 or gain.value < enough:
            return None
        why = (
            f"{live.reasons[0].text}; {name_of(earlier)} is nearer by {gain.value:.2f} min "
            f"on the same {rides:,} rides"
        )
        after = self._enter(state, "roll_back", champion=champion, challenger=earlier, why=why)
        numbers = {"live": live.overall(), "gain_min": gain._asdict(), "rides": rides}
        return Step(f"distrust {name_of(champion)}", why, after, numbers, champion)

    # --- making a challenger ------------------------------------------------------------

    def train(self, state: State, deployment: dict[str, Any]) -> Step:
        """Train on the moved window through the same chain that anybody runs."""
        champion, month = deployment["champion"], parse_month(state.month)
        try:
            settings = self._settings(champion, month, state.window or self.settings.window_months)
            challenger = self.workshop.train(settings, state.run_id, self._remember)
        except TrackingError as error:
            return _wait_for_mlflow(error)
        except TaxiError as error:
            return self._training_failed(read_state(), error)
        after = self._enter(state, "gate", challenger=challenger, champion=champion)
        why = f"trained on {settings.train_data}, to be judged on {month}"
        return Step(f"made {name_of(challenger)}", why, after, model=challenger)

    def _settings(self, champion: dict[str, Any], month: Month, months: int) -> RunSettings:
        window = [month.shift(-i) for i in range(months, 0, -1)]
        there = [m for m in window if self.workshop.is_published(champion, m)]
        if not there:
            raise SourceError(f"none of {format_months(window)} is there to train on")
        return check_settings(
            format_months(there), str(month), self.settings.model, _service(champion)
        )

    def _remember(self, run_id: str) -> None:
        write_state(replace(read_state(), run_id=run_id))

    def _training_failed(self, state: State, error: TaxiError) -> Step:
        attempts = state.attempts + 1
        if attempts < self.settings.max_attempts:
            write_state(replace(state, attempts=attempts))
            return Step(
                "wait", f"training for {state.month} failed, once more next turn: {error}", None
            )
        why = f"failed {attempts} times, last with: {error}"
        return Step(f"give up on {state.month}", why, self._done(state))

    def gate(self, state: State, deployment: dict[str, Any]) -> Step:
        """Judge on the month that neither has seen."""
        champion, challenger = deployment["champion"], state.challenger
        name = name_of(challenger)
        # Real trips may follow the sample: the month that judges them is real then, too.
        if challenger["data_source"] == "sample" != champion["data_source"]:
            why = f"it learned from sample, the champion from {champion['data_source']}"
            return Step(f"refuse {name}", why, self._done(state), model=challenger)
        try:
            decision = self.workshop.gate(champion, challenger, parse_month(state.month))
        except (BundleError, SettingError) as error:  # damaged, or the champion knows the month
            return Step(f"refuse {name}", str(error), self._done(state), model=challenger)
        except TrackingError as error:
            return _wait_for_mlflow(error)
        why = decision.headline
        numbers = {"gate": decision.as_dict()}
        if not decision.promoted:
            return Step(f"refuse {name}", why, self._done(state), numbers, challenger)
        after = self._enter(state, "start_shadow", champion=champion, why=why)
        return Step(f"pass {name}", why, after, numbers, challenger)

    # --- testing it ---------------------------------------------------------------------

    def start_shadow(self, state: State, deployment: dict[str, Any]) -> Step:
        """Let the challenger answer beside the champion, for the log alone."""
        name = name_of(state.challenger)
        if deployment["champion"] != state.champion:
            return self._overtaken(state)
        set_challenger(state.challenger, f"passed the gate on {state.month}", shadow=True)
        why = f"its answers are logged beside those of {name_of(state.champion)}"
        return Step(f"shadow {name}", why, self._enter(state, "shadow"), model=state.challenger)

    def shadow(self, state: State, deployment: dict[str, Any]) -> Step:
        """Look at the shadow answers whose truth has come in."""
        if not _is_under_test(state, deployment):
            return self._overtaken(state)
        live, back = self._look(state, deployment)
        if back is not None:
            return back
        outcome = self._paired(state)
        name, numbers = name_of(state.challenger), {"test": asdict(outcome)}
        why = _in_words(outcome)
        if outcome.verdict == "better" and live.is_wrong:
            why = f"{why}; no time for an A/B test: {live.reasons[0].text}"
            after = self._enter(state, "promote", why=why)
            return Step(f"trust {name}", why, after, numbers, state.challenger)
        if outcome.verdict == "better":
            after = self._enter(state, "start_ab", why=why, proven=True)
            return Step(f"try {name}", why, after, numbers, state.challenger)
        if outcome.verdict == "worse" or outcome.blocks >= self.settings.max_shadow_blocks:
            return self._drop(state, why, numbers)
        return self._wait_for_feedback(state, why, numbers)

    def start_ab(self, state: State, deployment: dict[str, Any]) -> Step:
        """Let the challenger answer a share of the rides."""
        if deployment["champion"] != state.champion:
            return self._overtaken(state)
        share = self.settings.ab_share
        set_challenger(state.challenger, state.why, ab_share=share, shadow=True)
        name = name_of(state.challenger)
        why = f"it answers {share:.0%} of the rides, so far: {state.why}"
        return Step(f"A/B-test {name}", why, self._enter(state, "ab"), model=state.challenger)

    def ab(self, state: State, deployment: dict[str, Any]) -> Step:
        """Look at what both arms answered to riders."""
        if not _is_under_test(state, deployment):
            return self._overtaken(state)
        live, back = self._look(state, deployment)
        if back is not None:
            return back
        outcome = self._split(state)
        why, numbers = _in_words(outcome), {"test": asdict(outcome)}
        health = self.workshop.arm_health(state.challenger)
        if health.is_wrong and not live.is_wrong:  # riders need not wait for a whole week
            return self._drop(state, health.reasons[0].text, {"arm": health.overall()})
        if outcome.verdict == "worse":
            return self._drop(state, why, numbers)
        if outcome.verdict == "better" or (
            outcome.blocks >= self.settings.ab_blocks and self._is_proven(state)
        ):
            if outcome.verdict == "undecided":
                why = f"better in the shadow, and not worse for riders ({why})"
            after = self._enter(state, "promote", why=why)
            return Step(f"trust {name_of(state.challenger)}", why, after, numbers, state.challenger)
        return self._wait_for_feedback(state, why, numbers)

    def _is_proven(self, state: State) -> bool:
        """True when a shadow test spoke for the challenger, before the A/B test or beside it.

        One that an operator set went through none; riders who do not object are no proof.
        """
        return state.proven or self._paired(state).verdict == "better"

    def _paired(self, state: State) -> Outcome:
        rows = self.workshop.live_rows(state.since)
        if len(rows):
            same = rows["shadow_model_sha256"] == state.challenger["model_sha256"]
            ours = rows["model_sha256"] == state.champion["model_sha256"]
            rows = rows[same & ours & rows["true_duration"].notna()]
        if not len(rows):
            return judge(np.zeros(0), np.zeros(0), self.settings.alpha, 1)
        true = rows["true_duration"].to_numpy()
        gains, trips = paired_gains(
            rows["pickup_at"].to_numpy().astype("datetime64[D]"),
            np.abs(rows["duration"].to_numpy() - true),
            np.abs(rows["shadow_duration"].to_numpy() - true),
            self.settings.min_block_trips,
        )
        return judge(gains, trips, self.settings.alpha, self.settings.shadow_blocks)

    def _split(self, state: State) -> Outcome:
        rows = self.workshop.live_rows(state.since)
        if len(rows):
            served = (state.champion["model_sha256"], state.challenger["model_sha256"])
            rows = rows[rows["model_sha256"].isin(served) & rows["true_duration"].notna()]
        if not len(rows):
            return judge(np.zeros(0), np.zeros(0), self.settings.alpha, 1)
        gains, trips = split_gains(
            rows["pickup_at"].to_numpy().astype("datetime64[D]"),
            np.abs(rows["duration"] - rows["true_duration"]).to_numpy(),
            (rows["model_sha256"] == state.challenger["model_sha256"]).to_numpy(),
            self.settings.min_block_trips,
        )
        return judge(gains, trips, self.settings.alpha, self.settings.ab_blocks)

    def _wait_for_feedback(self, state: State, why: str, numbers: dict[str, Any]) -> Step:
        days = (self.workshop.now() - state.since) / DAY_SECONDS
        if days > self.settings.max_test_days:
            return self._drop(state, f"{days:.0f} days without enough feedback; {why}", numbers)
        return Step("wait", f"{name_of(state.challenger)} is being tested; {why}", None, numbers)

    def _drop(self, state: State, why: str, numbers: dict[str, Any]) -> Step:
        after = self._enter(state, "drop", why=why)
        return Step(f"doubt {name_of(state.challenger)}", why, after, numbers, state.challenger)

    def _overtaken(self, state: State) -> Step:
        why = "champion or challenger was changed by somebody else in the meantime"
        return Step(f"leave {name_of(state.challenger)}", why, self._done(state))

    # --- acting -------------------------------------------------------------------------

    def promote(self, state: State, deployment: dict[str, Any]) -> Step:
        """Make the challenger the champion."""
        if deployment["champion"] not in (state.champion, state.challenger):
            return self._overtaken(state)
        try:
            self.workshop.check_bundle(state.challenger)
        except BundleError as error:
            return self._drop(state, str(error), {})
        deploy_champion(state.challenger, state.why)
        what = f"promote {name_of(state.challenger)}"
        return Step(what, state.why, self._done(state), model=state.challenger)

    def drop(self, state: State, deployment: dict[str, Any]) -> Step:
        """End the test; the champion answers alone."""
        if deployment["challenger"] == state.challenger:
            drop_challenger(state.why)
        what = f"drop {name_of(state.challenger)}"
        return Step(what, state.why, self._done(state), model=state.challenger)

    def roll_back(self, state: State, deployment: dict[str, Any]) -> Step:
        """Put the earlier champion back; it may be there already after a crash."""
        if deployment["champion"] == state.champion:
            roll_back(state.why)
        what = f"roll back {name_of(state.champion)} to {name_of(state.challenger)}"
        return Step(what, state.why, self._done(state), model=state.champion)

    def _enter(self, state: State, stage: str, **changes: Any) -> State:
        return replace(state, stage=stage, since=self.workshop.now(), **changes)

    def _done(self, state: State) -> State:
        """Idle again, with the month behind us."""
        looked_at = state.month or state.looked_at
        return State("idle", state.serial, self.workshop.now(), looked_at=looked_at)


STEPS: dict[str, Callable[[Turn, State, dict[str, Any]], Step]] = {
    "idle": Turn.idle,
    "train": Turn.train,
    "gate": Turn.gate,
    "start_shadow": Turn.start_shadow,
    "shadow": Turn.shadow,
    "start_ab": Turn.start_ab,
    "ab": Turn.ab,
    "promote": Turn.promote,
    "drop": Turn.drop,
    "roll_back": Turn.roll_back,
}


def _is_under_test(state: State, deployment: dict[str, Any]) -> bool:
    return (deployment["champion"], deployment["challenger"]) == (state.champion, state.challenger)


def _in_words(outcome: Outcome) -> str:
    if outcome.trips == 0:
        return "no feedback yet on a day that is over"
    return (
        f"{outcome.verdict} after {outcome.blocks} days and {outcome.trips:,} rides: nearer by "
        f"{outcome.gain_min:+.3f} min ({outcome.low_min:+.3f} to {outcome.high_min:+.3f}), "
        f"evidence {outcome.e_value:.3g}"
    )


def _wait_for_mlflow(error: TrackingError) -> Step:
    return Step("wait", f"MLflow is needed: {error}", None)


def _months(tag: str | None) -> list[Month]:
    return [parse_month(tag)] if tag else []


def _service(entry: dict[str, Any]) -> str:
    return entry["name"].removesuffix("-duration")
