"""What the live traffic buys: months of real rides replayed, each ride knowing only told truths.

Models are a month old: fitted on one month, they answer the month after. Their answers are made
once and kept. Settings of the level were chosen on CHOSEN; JUDGED months and WEEKS were replayed
with them afterwards. Prints Markdown; docs/traffic.md quotes it.

    python benchmarks/traffic.py [--answers FOLDER] [--months 2021-03,2021-04] [--feedback all]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from taxi_duration import environment
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month, parse_month, parse_months
from taxi_duration.domain.pickup_calendar import weekdays
from taxi_duration.domain.rides import Rides
from taxi_duration.files import code_digest
from taxi_duration.live.traffic_bins import minute_of, zone_areas
from taxi_duration.loop.traffic_replay import AnsweredRides, TrafficReplay, given_minutes
from taxi_duration.training.fit import fit_model

SERVICE = "green"
CHOSEN = ("2021-02", "2021-05", "2021-08", "2021-11", "2022-02")
JUDGED = ("2021-03", "2021-04", "2021-06", "2021-07", "2021-09", "2021-10", "2021-12", "2022-01",
          "2022-03", "2022-04", "2022-05", "2022-06")  # fmt: skip
# Mondays of weeks of storms (a day with 6 inches of snow or 3 of rain in Central Park) and of the
# holidays that empty the city. Named before any was replayed.
WEEKS = {
    "2021-02-01": "snowstorm", "2021-08-16": "Henri", "2021-08-30": "Ida",
    "2022-01-24": "blizzard", "2021-05-31": "Memorial Day", "2021-06-28": "Independence Day",
    "2021-09-06": "Labor Day", "2021-11-22": "Thanksgiving", "2021-12-20": "Christmas",
    "2021-12-27": "New Year", "2022-05-30": "Memorial Day",
}  # fmt: skip
HOURS = 6  # with one level: the proof of given factors is that late at most
MORNING = 1440 + 359.0  # minutes after midnight at which late truths are told: 5:59 the day after
DAY, HOUR, CAP = 1440, 60, 60.0
Feedback = tuple[np.ndarray, np.ndarray | None]  # told truths (NaN: never), and when


class Answered(NamedTuple):
    """A month's scored rides in order of pickup, each of shape (n,)."""

    pickup_at: np.ndarray
    area: np.ndarray
    actual: np.ndarray
    minutes: np.ndarray


class Errors(NamedTuple):
    """Absolute errors without and with traffic, minutes, each of shape (n,)."""

    without: np.ndarray
    with_it: np.ndarray

    @property
    def changes(self) -> tuple[float, float]:
        """Of MAE and RMSE, in percent."""
        mae = self.with_it.mean() / self.without.mean()
        rmse = np.sqrt((self.with_it**2).mean() / (self.without**2).mean())
        return 100 * (mae - 1), 100 * (rmse - 1)


def main() -> None:
    """Replay and print."""
    asked = _arguments()
    kinds = {name: FEEDBACK[name] for name in asked.feedback}
    weeks: dict[tuple[str, str], list[Errors]] = defaultdict(list)
    changes: dict[tuple[str, str], tuple[float, float]] = {}
    print(f"| month | rides | {' | '.join(f'{name}: MAE, RMSE' for name in kinds)} |")
    print("| --- |" + " --- |" * (len(kinds) + 1))
    for month in asked.months:
        rides = read_month(asked.answers, parse_month(month))
        for name, feedback in kinds.items():
            errors = replay(rides, feedback)
            changes[month, name] = errors.changes
            for monday, part in by_week(rides, errors):
                weeks[monday, name].append(part)
        cells = [_percent(changes[month, name]) for name in kinds]
        print(f"| {month} | {len(rides.actual):,} | {' | '.join(cells)} |", flush=True)
    for title, some in (("chosen on", CHOSEN), ("judged on", JUDGED)):
        _print_all(f"months {title}", [m for m in some if m in asked.months], changes, kinds)
    _print_weeks(weeks, list(kinds))


def replay(rides: Answered, feedback: Callable[[Answered], Feedback]) -> Errors:
    """Return what riders would have got with some feedback, against the truth."""
    told, known_at = feedback(rides)
    asked = AnsweredRides(rides.pickup_at, rides.area, told, rides.minutes, known_at)
    given = given_minutes(rides.minutes, TrafficReplay(hours=HOURS).factors(asked))
    return Errors(np.abs(rides.minutes - rides.actual), np.abs(given - rides.actual))


def by_week(rides: Answered, errors: Errors) -> Iterator[tuple[str, Errors]]:
    """Yield the errors of each week, named by its Monday."""
    day = rides.pickup_at.astype("datetime64[D]")
    monday = day - weekdays(day)
    for one in np.unique(monday):
        yield str(one), Errors(*(part[monday == one] for part in errors))


# --- what riders tell -----------------------------------------------------------------------


def _drawn(rides: Answered, share: float) -> np.ndarray:
    return np.random.default_rng(1).random(len(rides.actual)) < share


def _all(rides: Answered) -> Feedback:
    return rides.actual, None


def _tenth(rides: Answered) -> Feedback:
    return np.where(_drawn(rides, 0.1), rides.actual, np.nan), None


def _late(rides: Answered) -> Feedback:
    return rides.actual, minute_of(rides.pickup_at) // DAY * DAY + MORNING


def _long(rides: Answered) -> Feedback:
    return np.where(rides.actual >= 20, rides.actual, np.nan), None


def _noise(rides: Answered) -> Feedback:
    """Nothing of the real minutes; spread around the answers as those are."""
    chance = np.random.default_rng(1).normal(-0.03, 0.35, len(rides.actual))
    return np.clip(rides.minutes * np.exp(chance), 1, CAP), None


def _tripled(rides: Answered) -> Feedback:
    lies = np.minimum(3 * rides.actual, CAP)
    return np.where(_drawn(rides, 0.2), lies, rides.actual), None


def _one_minute(rides: Answered) -> Feedback:
    return np.where(_drawn(rides, 0.2), 1.0, rides.actual), None


def _half_more(rides: Answered) -> Feedback:
    lies = np.minimum(1.5 * rides.actual, CAP)
    return np.where(_drawn(rides, 0.2), lies, rides.actual), None


def _seconds(rides: Answered) -> Feedback:
    return np.where(_drawn(rides, 0.2), 60 * rides.actual, rides.actual), None


FEEDBACK: dict[str, Callable[[Answered], Feedback]] = {
    "all": _all, "a tenth": _tenth, "next morning": _late, "long rides only": _long,
    "noise": _noise, "a fifth tripled": _tripled, "a fifth of 1 minute": _one_minute,
    "a fifth half more": _half_more, "a fifth in seconds": _seconds,
}  # fmt: skip


# --- a month-old model's answers ------------------------------------------------------------


def read_month(folder: Path, month: Month) -> Answered:
    """Return a month's rides with the answers of a model of the month before; made when missing."""
    before = month.shift(-1)
    path = folder / f"{SERVICE}-{before}-to-{month}.npz"
    if not path.exists():
        _make(path, before, month)
    kept = np.load(path)
    pickup_at, actual = kept["pickup_at"].astype("datetime64[s]"), kept["actual"]
    scored = (actual >= 1) & (actual <= CAP)
    scored &= pickup_at.astype("datetime64[M]") == np.datetime64(str(month))
    order = np.flatnonzero(scored)[np.argsort(pickup_at[scored], kind="stable")]
    minutes = kept["minutes"][order].astype("float64")
    return Answered(
        pickup_at[order], zone_areas()[kept["PU"][order]], actual[order].astype("float64"), minutes
    )


def _make(path: Path, before: Month, month: Month) -> None:
    train, target = prepare_months(SERVICE, [before, month])
    model = fit_model("XGB", Window.learnable([train]))
    trips = target.every_ride()
    rides = Rides.from_frame(trips)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, pickup_at=rides.pickup_at, PU=rides.PULocationID,
        actual=trips["duration"].to_numpy(), minutes=model.answer(rides).duration,
    )  # fmt: skip


# --- tables ---------------------------------------------------------------------------------


def _print_all(
    title: str,
    months: list[str],
    changes: dict[tuple[str, str], tuple[float, float]],
    kinds: dict[str, Callable[[Answered], Feedback]],
) -> None:
    """Print the mean over months, and the worst of each figure."""
    if not months:
        return
    for name in kinds:
        found = np.array([changes[month, name] for month in months])
        mean, worst = (_percent(figures) for figures in (found.mean(axis=0), found.max(axis=0)))
        print(f"{len(months)} {title}, {name}: mean {mean}; worst month {worst} %", flush=True)


def _print_weeks(weeks: dict[tuple[str, str], list[Errors]], kinds: list[str]) -> None:
    """Print the storms and holidays, and all of them together."""
    named = [monday for monday in WEEKS if (monday, kinds[0]) in weeks]
    if not named:
        return
    print(f"\n| week from | what | {' | '.join(kinds)} |\n| --- | --- |" + " --- |" * len(kinds))
    whole = {key: Errors(*map(np.concatenate, zip(*parts, strict=True)))
             for key, parts in weeks.items()}  # fmt: skip
    for monday in named:
        cells = [_percent(whole[monday, name].changes) for name in kinds]
        print(f"| {monday} | {WEEKS[monday]} | {' | '.join(cells)} |")
    rows = [[whole[monday, name] for monday in named] for name in kinds]
    cells = [_percent(Errors(*map(np.concatenate, zip(*row, strict=True))).changes)
             for row in rows]  # fmt: skip
    print(f"| all | | {' | '.join(cells)} |")


def _percent(figures: tuple[float, float] | np.ndarray) -> str:
    return ", ".join(f"{figure:+.1f}" for figure in figures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    folder = environment.data_dir() / "answers" / code_digest()[:12]
    parser.add_argument("--answers", type=Path, default=folder, help="where answers are kept")
    tags = ",".join(sorted((*CHOSEN, *JUDGED)))
    parser.add_argument("--months", default=tags, help="month tags, as everywhere")
    parser.add_argument("--feedback", default="all,a tenth,next morning", help="names of kinds")
    asked = parser.parse_args()
    asked.months = [str(month) for month in parse_months(asked.months)]
    asked.feedback = asked.feedback.split(",") if asked.feedback != "every" else list(FEEDBACK)
    return asked


if __name__ == "__main__":
    main()
