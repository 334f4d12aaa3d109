"""Days from a fault to the monitor's watch and alarm, and false alarms in quiet months.

    TLC_URL=../shared/tlc python benchmarks/alarms.py [--rides 700] [--service green]
        [--months 2020-12:2022-06] [--fault-months 2021-03,2021-09,2022-02] [--kind light]

Months are lived through night by night: a model of the month two before, validated on the month
before, answers so many real rides a day for three months; every true duration comes in at midnight.
A fault begins on the 15th day, when two good weeks thin it most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np
import pandas as pd

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.geometry import KM_OF_MILE
from taxi_duration.domain.months import Month, format_months, parse_months
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.health import Health, check_health, monitor_settings
from taxi_duration.evaluation.silence import Activity
from taxi_duration.evaluation.window_scores import score_model
from taxi_duration.loop.monitor import answer_trips, make_sample
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.timestamps import DAY_SECONDS
from taxi_duration.training.boosting import xgb_parameters
from taxi_duration.training.boosting_engine import learn_booster
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import KINDS

TRAIN_RIDES = 20_000  # a small model is enough: it is held to its own error
LIGHT = {"rounds": 120, "eta": 0.12, "max_depth": 6}  # a fifth of the time of XGB as tuned
FAULT_DAY = 14  # first day with the fault, counted from 0
SERVES = 3  # months that a champion answers for
WATCHED_DAYS = 14  # nights that a fault is looked for
UNUSED_ZONE = 104  # Liberty Island: no taxi goes there


@dataclass(frozen=True)
class Champion:
    """A model with what the monitor needs to judge it."""

    model: DurationModel
    card: dict[str, Any]
    reference: Sample


@dataclass(frozen=True)
class Fault:
    """What goes wrong: with what is asked, and with the true durations that come back."""

    name: str
    asked: Callable[[pd.DataFrame], pd.DataFrame] = lambda trips: trips
    told: Callable[[pd.DataFrame], pd.Series] = lambda answered: answered["true_duration"]
    days: int = WATCHED_DAYS


# --- faults ----------------------------------------------------------------------------------


def kilometres(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A share of the clients sends kilometres."""
    return lambda trips: trips.assign(
        trip_distance=trips["trip_distance"].where(trips["client"] >= share,
                                                   trips["trip_distance"] * KM_OF_MILE)
    )  # fmt: skip


def utc_times(trips: pd.DataFrame) -> pd.DataFrame:
    """Pickup times in UTC that are taken for New York's."""
    return trips.assign(pickup_at=trips["pickup_at"] + pd.Timedelta(hours=5))


def renumbered_zone(trips: pd.DataFrame) -> pd.DataFrame:
    """The busiest zone gets a number that no ride had."""
    busiest = trips["PULocationID"].mode()[0]
    sides = ("PULocationID", "DOLocationID")
    return trips.assign(**{side: trips[side].replace(busiest, UNUSED_ZONE) for side in sides})


def missing_distances(trips: pd.DataFrame) -> pd.DataFrame:
    """One client in five sends none."""
    return trips.assign(trip_distance=trips["trip_distance"].where(trips["client"] >= 0.2))


def longer(factor: float) -> Callable[[pd.DataFrame], pd.Series]:
    """The same rides take longer."""
    return lambda answered: answered["true_duration"] * factor


def only(keep: Callable[[pd.DataFrame], pd.Series]) -> Callable[[pd.DataFrame], pd.Series]:
    """Feedback from some of the rides."""
    return lambda answered: answered["true_duration"].where(keep(answered))


def snow(trips: pd.DataFrame) -> pd.DataFrame:
    """Four rides in ten go at all, half as long again."""
    return trips[trips["client"] < 0.4].assign(duration=lambda rides: rides["duration"] * 1.5)


FAULTS = (
    Fault("kilometres, all rides", kilometres(1.0)),
    Fault("kilometres, 30 % of the clients", kilometres(0.3)),
    Fault("UTC pickup times", utc_times),
    Fault("the busiest zone renumbered", renumbered_zone),
    Fault("20 % of the distances missing", missing_distances),
    Fault("durations +15 %", told=longer(1.15)),
    Fault("durations +25 %", told=longer(1.25)),
    Fault("feedback in seconds", told=longer(60.0)),
    Fault("feedback for rides under 12 min only", told=only(lambda a: a["true_duration"] < 12)),
    Fault("feedback of complainers only (5 min late)",
          told=only(lambda a: a["true_duration"] > a["duration"] + 5)),
    Fault("no feedback", told=only(lambda a: a["true_duration"] < 0)),
    Fault("one day of snow (must not alarm)", snow, days=1),
)  # fmt: skip


# --- a month, night by night -----------------------------------------------------------------


def make_champion(kind: str, service: str, train: pd.DataFrame, val: pd.DataFrame) -> Champion:
    """Fit on some of the training month and score on the whole validation month."""
    parameters = {**xgb_parameters(), **LIGHT}
    KINDS["light"] = replace(
        KINDS["XGB"], learn=learn_booster, parameters=parameters, quicker={}, by_batch=False
    )
    kept = train.sample(min(TRAIN_RIDES, len(train)), random_state=0).sort_values("pickup_at")
    model = fit_model(kind, Window.from_frame(kept))
    metrics, _ = score_model(model, Window.from_frame(val))
    card = {"name": f"{service}-duration", "version": 1, "model_sha256": "0" * 64,
            "data_source": "tlc", "metrics": metrics}  # fmt: skip
    return Champion(model, card, make_sample(model, *map(Window.from_frame, (train, val))))


def sample_days(trips: pd.DataFrame, month: Month, rides: int) -> pd.DataFrame:
    """Return the month's own rides, at most so many a day, each of a client from 0 to 1."""
    trips = trips[trips["pickup_at"].dt.strftime("%Y-%m") == str(month)]
    rng = np.random.default_rng(0)
    trips = trips.assign(client=rng.random(len(trips)), lot=rng.random(len(trips)))
    trips = trips.assign(day=trips["pickup_at"].dt.day - 1)
    kept = trips.sort_values("lot").groupby("day").head(rides)
    return kept.sort_values("pickup_at", ignore_index=True)


def answer_days(champion: Champion, trips: pd.DataFrame, fault: Fault | None) -> pd.DataFrame:
    """Return the log of a month; its truths came in at the end of each day."""
    parts = [trips]
    if fault is not None:
        faulty = trips["day"].between(FAULT_DAY, FAULT_DAY + fault.days - 1)
        parts = [trips[~faulty], fault.asked(trips[faulty])]
    logs = [answer_trips(champion.model, champion.card, part) for part in parts if len(part)]
    if fault is not None:
        logs[1] = logs[1].assign(true_duration=fault.told(logs[1]))
    log = pd.concat([log.assign(day=part["day"]) for log, part in zip(logs, parts, strict=True)])
    midnight = (log["day"] + 1.0) * DAY_SECONDS
    return log.assign(received_at=midnight.where(log["true_duration"].notna()))


def look(champion: Champion, log: pd.DataFrame, day: int) -> Health:
    """What the monitor says on the night after a day."""
    seen = log[log["day"] <= day]
    recent = seen[seen["day"] > day - monitor_settings().live_days]
    now = (day + 1) * DAY_SECONDS
    last_truth = seen["received_at"].max()
    activity = Activity(now, None if np.isnan(last_truth) else last_truth, now)
    return check_health("live log", recent, champion.card, champion.reference, activity=activity)


def nights(champion: Champion, log: pd.DataFrame, first: int = 0) -> Iterator[tuple[int, Health]]:
    """Yield every day with what the monitor says on its night."""
    for day in range(first, int(log["day"].max()) + 1):
        yield day, look(champion, log, day)


def said_without(champion: Champion, trips: pd.DataFrame) -> dict[int, set[tuple[str, str]]]:
    """Return what the monitor says of each night without a fault: kinds of reasons and levels."""
    log = answer_days(champion, trips, None)
    return {
        day: {(r.kind, r.level) for r in health.reasons}
        for day, health in nights(champion, log, FAULT_DAY)
    }


def days_to(
    champion: Champion,
    trips: pd.DataFrame,
    fault: Fault,
    usual: dict[int, set[tuple[str, str]]],
) -> dict[str, float]:
    """Return the days until the first watch (or unknown) and the first alarm of a fault.

    Args:
        usual: as `said_without`; what is said on the same night without the fault does not count.
    """
    found = {"watch": np.inf, "alarm": np.inf}
    for day, health in nights(champion, answer_days(champion, trips, fault), FAULT_DAY):
        new = {level for kind, level in {(r.kind, r.level) for r in health.reasons} - usual[day]}
        if new and np.isinf(found["watch"]):
            found["watch"] = day - FAULT_DAY + 1
        if "alarm" in new:
            found["alarm"] = day - FAULT_DAY + 1
            break
    return found


# --- tables ----------------------------------------------------------------------------------


def champions(
    kind: str, service: str, months: list[Month], rides: int
) -> Iterator[tuple[Month, Champion, pd.DataFrame]]:
    """Yield each month with its champion and its rides.

    A champion is trained on the month two before its first and validated on the one before, and
    answers for SERVES months: as long as one serves that nothing speaks against.
    """
    for i, month in enumerate(months):
        if i % SERVES == 0:
            before = [month.shift(-2), month.shift(-1)]
            train, val = (m.trips() for m in prepare_months(service, before, mode="tlc"))
            champion = make_champion(kind, service, train, val)
        (now,) = prepare_months(service, [month], mode="tlc")
        yield month, champion, sample_days(now.every_ride(), month, rides)


def episodes(levels: list[str], level: str) -> int:
    """Return how often a level began."""
    return sum(now == level != before for before, now in zip(["", *levels], levels, strict=False))


def in_days(found: list[float]) -> str:
    """Middle and worst, in words."""
    shown = ["never" if np.isinf(d) else f"{d:.0f}" for d in (np.median(found), max(found))]
    return f"{shown[0]} ({shown[1]})"


@click.command()
@click.option("--rides", default=700, show_default=True, help="Answered a day.")
@click.option("--service", default="green", show_default=True)
@click.option("--months", default="2020-12:2022-06", show_default=True, help="Quiet ones.")
@click.option("--fault-months", default="2021-03,2021-09,2022-03", show_default=True)
@click.option("--kind", default="light", show_default=True, help="`light`, or as MODEL.")
def main(rides: int, service: str, months: str, fault_months: str, kind: str) -> None:
    """Print both tables."""
    faulty = parse_months(fault_months) if fault_months else []
    found: dict[str, list[dict[str, float]]] = {fault.name: [] for fault in FAULTS}
    years = alarms = watched = looked = 0
    for month, champion, trips in champions(kind, service, parse_months(months), rides):
        said = [health for _, health in nights(champion, answer_days(champion, trips, None))]
        levels = [health.level for health in said]
        years, looked = years + 1 / 12, looked + len(levels)
        alarms, watched = alarms + episodes(levels, "alarm"), watched + levels.count("watch")
        why = {r.text for health in said for r in health.reasons if r.level == "alarm"}
        nights_of = ", ".join(f"{level} {levels.count(level)}" for level in sorted(set(levels)))
        click.echo(f"{month}: {nights_of}" + "".join(f"\n  {text}" for text in why))
        if month in faulty:
            usual = said_without(champion, trips)
            for fault in FAULTS:
                found[fault.name].append(days_to(champion, trips, fault, usual))
    click.echo(f"\n{rides} rides a day, {service} {months}, {kind}: {alarms} false alarms in "
               f"{years:.1f} years; watch on {watched} of {looked} nights\n")  # fmt: skip
    if faulty:
        click.echo(f"Days to watch and alarm, middle (worst) of {format_months(faulty)}")
    for name, each in found.items():
        if each:
            watch, alarm = (in_days([d[level] for d in each]) for level in ("watch", "alarm"))
            click.echo(f"| {name} | {watch} | {alarm} |")


if __name__ == "__main__":
    main()
