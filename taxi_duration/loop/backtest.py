"""Time travel: real months answered day by day as if live, with the loop taking its turns.

Three ways to live through the same months start with the same model: never retrain (frozen),
retrain every month and always deploy (monthly), or let `auto` decide. `auto` is the real one,
with its gate, monitor, shadow and A/B test; only notebooks, MLflow and the clock are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration import environment
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.loop.monitor import serving
from taxi_duration.loop.settings import AutoSettings, auto_settings
from taxi_duration.loop.simulated_world import Fit, Fitted, SimulatedWorld, start_of
from taxi_duration.training.fit import fit_model

MIN_MONTHS = 4  # to train, to validate, and two to live through
ALARM_NAME_DAYS = pd.Timedelta(days=9)
STRATEGIES = ("frozen", "monthly", "auto")


@dataclass(frozen=True)
class Backtest:
    """What living through the months gave.

    Args:
        table: one row per month: `rows`, MAE and RMSE (minutes) of each strategy, `level` (the
            worst that the monitor said of auto's champion), `serves` (auto's version).
        decisions: one row per decision of `auto`: `day`, `what`, `why`.
        alarms: one row per day on which auto's live verdict changed: `day`, `level`, `why`.
    """

    table: pd.DataFrame
    decisions: pd.DataFrame
    alarms: pd.DataFrame


def run_backtest(
    service: str,
    months: list[Month],
    say: Callable[[str], None] = lambda _: None,
    settings: AutoSettings | None = None,
    fit: Fit = fit_model,
) -> Backtest:
    """Live through months: the first trains the model, the second validates it.

    Args:
        service: green, yellow, …
        months: in time order; at least MIN_MONTHS.
        say: prints a line of progress.
        settings: of `auto`; the package's own when None.
        fit: fits a model, `training.fit.fit_model`.
    Raises:
        TaxiError: a month cannot be had, or there are too few.
    """
    if len(months) < MIN_MONTHS:
        raise SettingError(
            f"{len(months)} months are too few to live through; at least {MIN_MONTHS}"
        )
    trips = {month.raw.month: month.trips() for month in prepare_months(service, months)}
    world = SimulatedWorld(service, trips, settings or auto_settings(), fit)
    # The loop keeps its state in a deployment folder: one of its own, not the real one.
    with tempfile.TemporaryDirectory() as folder, environment.temporary_home(Path(folder)):
        return _live_through(world, months, say)


def _live_through(
    world: SimulatedWorld, months: list[Month], say: Callable[[str], None]
) -> Backtest:
    first = world.make_version(months[:1], months[1])
    deploy_champion(first.version, "the first model")
    world.serving_since = start_of(months[2])
    rows = []
    for i, month in enumerate(months[2:], 2):
        window = months[max(i - 1 - world.settings.window_months, 0) : i - 1]
        monthly = world.make_version(window, months[i - 1])
        truth = world.trips[month]["duration"].to_numpy()
        errors = {
            "frozen": _errors(first, world.trips[month], truth),
            "monthly": _errors(monthly, world.trips[month], truth),
            "auto": world.live_month(month),
        }
        rows.append(_row(month, errors, world.worst_level, serving().champion.number))
        say(_in_words(rows[-1]))
    decisions = pd.DataFrame(world.decisions, columns=["day", "what", "why"])
    alarms = pd.DataFrame(world.alarms, columns=["day", "level", "why"])
    return Backtest(pd.DataFrame(rows).set_index("month"), decisions, alarms)


def summarize(result: Backtest) -> dict[str, float]:
    """Return each strategy's MAE over all rides (minutes), and what the others save of frozen's."""
    weights = result.table["rows"]
    means = {
        name: float(np.average(result.table[f"{name}_mae"], weights=weights)) for name in STRATEGIES
    }
    saved = {f"{name}_saves": means["frozen"] - means[name] for name in STRATEGIES[1:]}
    return {**means, **saved}


def _errors(fitted: Fitted, trips: pd.DataFrame, truth: np.ndarray) -> np.ndarray:
    error: np.ndarray = fitted.model.answer(Rides.from_frame(trips)).duration - truth
    return error


def _row(month: Month, errors: dict[str, np.ndarray], level: str, version: int) -> dict[str, Any]:
    row: dict[str, Any] = {"month": str(month), "rows": len(errors["frozen"])}
    for name, error in errors.items():
        row[f"{name}_mae"] = float(np.abs(error).mean())
        row[f"{name}_rmse"] = float(np.sqrt(np.mean(error.astype("float64") ** 2)))
    return {**row, "level": level, "serves": version}


def _in_words(row: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {row[f'{name}_mae']:.3f}" for name in STRATEGIES)
    return f"{row['month']}: {row['rows']:,} trips, MAE {errors} min, monitor says {row['level']}"
