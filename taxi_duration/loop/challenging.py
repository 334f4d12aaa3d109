"""Making a challenger: train it on the moved window, judge it on a month nobody has seen."""

from __future__ import annotations

from msgspec.structs import replace

from taxi_duration.chain.run_settings import RunSettings, check_settings
from taxi_duration.domain.months import format_months
from taxi_duration.errors import (
    BundleError,
    SettingError,
    SourceError,
    TaxiError,
    TrackingError,
)
from taxi_duration.loop.situation import Situation, Step, wait
from taxi_duration.loop.state import State, read_state, write_state


def train(now: Situation) -> Step:
    """Train on the moved window through the same chain that anybody runs."""
    try:
        settings = _window(now)
        challenger = now.world.train(settings, now.state.run_id, _remember)
    except TrackingError:  # no fault of the training: the turn waits
        raise
    except TaxiError as error:
        return _training_failed(now, read_state(), error)
    run_id = read_state().run_id  # what it cost is told beside what it gains
    after = now.enter("gate", challenger=challenger, champion=now.champion, run_id=run_id)
    why = f"trained on {settings.train_data}, to be judged on {now.month}"
    return Step(f"made {challenger.ref}", why, after, version=challenger)


def gate(now: Situation) -> Step:
    """Judge on the month that neither has seen."""
    champion, challenger = now.champion, now.challenger
    refuse = f"refuse {challenger.ref}"
    # Real trips may follow the sample: the month that judges them is real then, too.
    if challenger.data_source == "sample" != champion.data_source:
        why = f"it learned from sample, the champion from {champion.data_source}"
        return Step(refuse, why, now.done(), version=challenger)
    try:
        decision = now.world.gate(champion, challenger, now.month)
    except (BundleError, SettingError) as error:  # damaged, or the champion knows the month
        return Step(refuse, str(error), now.done(), version=challenger)
    why, numbers = decision.headline, {"gate": decision.as_dict()}
    if not decision.promoted:
        return Step(refuse, why, now.done(), numbers, challenger)
    after = now.enter("start_shadow", champion=champion, why=why)
    return Step(f"pass {challenger.ref}", why, after, numbers, challenger)


def _window(now: Situation) -> RunSettings:
    """The run that trains on the months before the judging one, as far as they are there."""
    months = now.state.window or now.settings.window_months
    window = [now.month.shift(-i) for i in range(months, 0, -1)]
    there = [month for month in window if now.world.is_published(now.champion, month)]
    if not there:
        raise SourceError(f"none of {format_months(window)} is there to train on")
    return check_settings(
        format_months(there), str(now.month), now.settings.model, now.champion.service
    )


def _remember(run_id: str) -> None:
    """Keep the run, so that a turn killed while it trains goes on with it."""
    write_state(replace(read_state(), run_id=run_id))


def _training_failed(now: Situation, state: State, error: TaxiError) -> Step:
    attempts = state.attempts + 1
    if attempts < now.settings.max_attempts:
        write_state(replace(state, attempts=attempts))
        return wait(f"training for {state.month} failed, once more next turn: {error}")
    why = f"failed {attempts} times, last with: {error}"
    return Step(f"give up on {state.month}", why, now.done())
