"""Making a challenger: train it on the moved window, judge it on a month nobody has seen."""

from __future__ import annotations

import time
from itertools import islice

from msgspec.structs import replace

from taxi_duration.chain.run import training_minutes
from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.domain.months import Month, format_months
from taxi_duration.domain.version import Version
from taxi_duration.errors import (
    AtWorkError,
    BundleError,
    SettingError,
    SourceError,
    TaxiError,
    TrackingError,
)
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.state import State, read_state, write_state
from taxi_duration.loop.world import Republished


def train(now: Situation) -> Step:
    """Train on the moved window through the same chain that anybody runs."""
    anew: list[Republished] = []
    try:
        if now.state.run_id is None:
            anew = now.world.fetch_republished(now.champion, [*_window(now), now.month])
        settings = _run_settings(now)
        challenger = now.world.train(settings, now.state.run_id, _remember)
    except (TrackingError, AtWorkError):  # no fault of the training: the turn waits
        raise
    except TaxiError as error:
        return _training_failed(now, read_state(), error)
    minutes = training_minutes(read_state().run_id) or 0.0  # shown beside what it gains
    after = now.enter(
        "gate", challenger=challenger, champion=now.champion, training_minutes=minutes
    )
    why = f"trained on {settings.train_data}, to be judged on {now.month}"
    numbers = {"republished": {str(f.month): [f.before, f.after] for f in anew}} if anew else {}
    return Step(f"made {challenger.ref}", why, after, numbers, challenger)


def gate(now: Situation) -> Step:
    """Judge on the month that neither has seen."""
    champion, challenger = now.champion, now.challenger
    refuse = f"refuse {challenger.ref}"
    # Real trips may follow the sample: the month that judges them is real then, too.
    if challenger.data_source == "sample" != champion.data_source:
        why = f"it learned from sample, the champion from {champion.data_source}"
        return Step(refuse, why, now.done(), version=challenger)
    try:
        decision = now.world.gate(_opponent(now), challenger, now.month)
    except (BundleError, SettingError) as error:  # damaged, or the champion knows the month
        return Step(refuse, str(error), now.done(), version=challenger)
    why, numbers = decision.headline, {"gate": decision.as_dict()}
    if not decision.promoted:
        return Step(refuse, why, now.done(), numbers, challenger)
    after = now.enter("refit", champion=champion, run_id=None, attempts=0, why=why)
    return Step(f"pass {challenger.ref}", why, after, numbers, challenger)


def refit(now: Situation) -> Step:
    """Let the challenger that passed learn from the month that judged it, too.

    It would otherwise serve a month older than what is known. Live rides judge what comes of it.
    """
    judged = now.challenger
    if now.is_overtaken:
        return now.leave()
    size = now.state.window or now.settings.window_months
    months = now.world.months_of(judged)[-size:]
    started = time.perf_counter()
    try:
        version = now.world.refit(judged, months, now.state.run_id, _remember)
    except (TrackingError, AtWorkError):  # as in `train`
        raise
    except TaxiError as error:
        return _training_failed(now, read_state(), error)
    minutes = now.state.training_minutes + (time.perf_counter() - started) / 60
    after = now.enter(
        "start_shadow", challenger=version, champion=now.champion, training_minutes=minutes
    )
    learned = format_months(months)
    why = f"{judged.ref} fitted on {learned}, with the intervals that {now.month} showed"
    return Step(f"refit {version.ref}", why, after, version=version)


def _opponent(now: Situation) -> Version | None:
    """Whom the gate compares with: nobody when the champion knows the month.

    That is so when months were published anew and none after them is there: the lookups and
    live rides then judge alone. A champion that somebody else put there is left to the gate.
    """
    knows = now.month in now.world.months_of(now.champion) and not now.is_overtaken
    return None if knows else now.champion


def training_window(now: Situation, month: Month, size: int) -> list[Month]:
    """The last published months before one, at most so many; none that is out of reach."""
    before = (month.shift(-i) for i in range(1, now.settings.window_reach_months + 1))
    return sorted(islice(now.world.find_published(now.champion, before), size))


def _window(now: Situation) -> list[Month]:
    return training_window(now, now.month, now.state.window or now.settings.window_months)


def _run_settings(now: Situation) -> RunSettings:
    """The run that trains on the window before the judging month."""
    window = _window(now)
    if not window:
        reach = now.settings.window_reach_months
        raise SourceError(f"no month is there to train on, {reach} months before {now.month}")
    return check_settings(
        format_months(window), str(now.month), now.settings.model, now.champion.service
    )


def _remember(run_id: str) -> None:
    """Keep the run, so that a turn killed while it trains goes on with it."""
    write_state(replace(read_state(), run_id=run_id))


def _training_failed(now: Situation, state: State, error: TaxiError) -> Step:
    attempts = state.attempts + 1
    if attempts < now.settings.max_attempts:
        write_state(replace(state, attempts=attempts))
        why = f"training for {state.month} failed, once more next turn: {error}"
        return wait(why, is_problem=True)
    why = f"failed {attempts} times, last with: {error}"
    return Step(f"give up on {state.month}", why, now.done())
