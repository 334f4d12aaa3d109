"""Time travel: real months answered day by day as if live, with the loop taking its turns.

Three ways to live through the same months start with the same model: never retrain (frozen),
retrain with every published month and always deploy (monthly), or let `auto` decide. `auto` is
the real one, with its gate, monitor, shadow and A/B test; only notebooks, MLflow and the clock
are left out. A fourth line is what riders get from `auto` with the live traffic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration import environment
from taxi_duration.data.prepared import PreparedMonth, prepare_months
from taxi_duration.data.sources import existing_months
from taxi_duration.domain.months import Month, format_months
from taxi_duration.errors import SettingError
from taxi_duration.files import write_bytes
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.loop.backtest_state import Keeper, backtest_key
from taxi_duration.loop.monitor import serving
from taxi_duration.loop.settings import AutoSettings, auto_settings
from taxi_duration.loop.simulated_world import Fit, Fitted, Measure, SimulatedWorld, start_of
from taxi_duration.training.fit import fit_model
from taxi_duration.training.refit import with_shown_intervals

MIN_LIVED = 2  # months to live through; fewer say nothing of a loop
STRATEGIES = ("frozen", "monthly", "auto", "auto_traffic")


@dataclass(frozen=True)
class Backtest:
    """The result of a backtest.

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
    measure: Measure = with_shown_intervals,
    delay_months: int = 0,
    share: float = 1.0,
) -> Backtest:
    """Live through months: the first trains the model, the second validates it.

    Riders come from the first month on in which both are published. What is fitted and lived
    through is kept in data/backtest/, so that a killed backtest goes on where it was.

    Args:
        months: in time order; those that are missing for good are left out.
        settings: of `auto`; the package's own when None.
        fit, measure: as `SimulatedWorld`.
        delay_months: from a month's end to its publication.
        share: of the trips of each month, evenly spread.
    Raises:
        TaxiError: a month cannot be had, or there are too few.
    """
    settings = settings or auto_settings()
    _check(share, delay_months)
    months = existing_months(service, months, say)
    lived = _lived(months, delay_months)
    prepared = prepare_months(service, months)
    digests = (month.raw.sha256 for month in prepared)
    key = backtest_key(digests, settings, service, format_months(months), delay_months, share)
    keeper = Keeper(environment.data_dir() / "backtest", key, say)
    world = SimulatedWorld(
        service, _by_month(prepared, share, PreparedMonth.learnable),
        _by_month(prepared, share, PreparedMonth.every_ride), settings, keeper.keeping(fit),
        measure, delay_months,
    )  # fmt: skip
    # The loop keeps its state in a deployment folder: one of its own, not the real one.
    with environment.temporary_home(keeper.home):
        return _live_through(world, months, lived, keeper)


def _check(share: float, delay_months: int) -> None:
    if not 0 < share <= 1 or delay_months < 0:
        raise SettingError(
            f"share is {share:g} and delay {delay_months} months; a share is above 0 and at most "
            "1, a delay is not negative"
        )


def _lived(months: list[Month], delay_months: int) -> list[Month]:
    """The months in which riders come: once the first two are published."""
    lived = [m for m in months[2:] if m.shift(-1 - delay_months) >= months[1]]
    if len(lived) < MIN_LIVED:
        raise SettingError(
            f"of {len(months)} months {len(lived)} can be lived through, at least {MIN_LIVED} "
            f"are needed: one trains, one validates, and {delay_months} pass until both are known"
        )
    return lived


def write_table(result: Backtest, path: str | Path) -> None:
    """Write the months with a last row for all of them; as Markdown for `.md`, else as CSV."""
    table = pd.concat([result.table, pd.DataFrame([_all_months(result.table)], index=["all"])])
    table = table.rename_axis("month").round(3).reset_index()
    if Path(path).suffix == ".md":
        lines = [table.columns, ["---"] * table.shape[1], *table.astype(str).to_numpy()]
        text = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    else:
        text = table.to_csv(index=False)
    write_bytes(path, text.encode())


def summarize(result: Backtest) -> dict[str, float]:
    """Return each strategy's MAE over all rides (minutes), and what the others save of frozen's."""
    every = _all_months(result.table)
    means = {name: float(every[f"{name}_mae"]) for name in STRATEGIES}
    saved = {f"{name}_saves": means["frozen"] - means[name] for name in STRATEGIES[1:]}
    return {**means, **saved}


def _by_month(
    prepared: list[PreparedMonth], share: float, read: Callable[[PreparedMonth], pd.DataFrame]
) -> dict[Month, pd.DataFrame]:
    """Each month's trips, every 1/share-th of them."""
    trips = {}
    for month in prepared:
        frame = read(month)
        kept = np.arange(0, len(frame), 1 / share).astype("int64")
        trips[month.raw.month] = frame.iloc[kept].reset_index(drop=True)
    return trips


def _live_through(
    world: SimulatedWorld, months: list[Month], lived: list[Month], keeper: Keeper
) -> Backtest:
    rows = keeper.load(world)
    first = world.make_version(months[:1], months[1])
    if rows:
        keeper.say(f"going on after {rows[-1]['month']}")
    else:
        deploy_champion(first.version, "the first model")
        world.serving_since = start_of(lived[0])
    for i, month in enumerate(lived[len(rows) :], len(rows) + 1):
        began = time.perf_counter()
        auto, auto_traffic = world.live_month(month)
        errors = {
            "frozen": world.errors_of(first, month),
            "monthly": world.errors_of(_monthly(world, months, month), month),
            "auto": auto, "auto_traffic": auto_traffic,
        }  # fmt: skip
        rows.append(_row(month, errors, world.worst_level, serving().champion.number))
        keeper.save(world, rows)
        seconds = time.perf_counter() - began
        keeper.say(f"[{i}/{len(lived)}] {_in_words(rows[-1])}, {seconds:.0f} s")
    decisions = pd.DataFrame(world.decisions, columns=["day", "what", "why"])
    alarms = pd.DataFrame(world.alarms, columns=["day", "level", "why"])
    return Backtest(pd.DataFrame(rows).set_index("month"), decisions, alarms)


def _monthly(world: SimulatedWorld, months: list[Month], month: Month) -> Fitted:
    """Who answers a month when every published month makes a new version at once."""
    published = [m for m in months if m.shift(1 + world.delay_months) <= month]
    window = published[-1 - world.settings.window_months : -1]
    return world.make_version(window, published[-1])


def _row(month: Month, errors: dict[str, np.ndarray], level: str, version: int) -> dict[str, Any]:
    row: dict[str, Any] = {"month": str(month), "rows": len(errors["frozen"])}
    for name, error in errors.items():
        row[f"{name}_mae"] = float(np.abs(error).mean())
        row[f"{name}_rmse"] = float(np.sqrt(np.mean(error.astype("float64") ** 2)))
    return {**row, "level": level, "serves": version}


def _all_months(table: pd.DataFrame) -> dict[str, Any]:
    """The row over all rides."""
    weights = table["rows"]
    row: dict[str, Any] = {"rows": int(weights.sum())}
    for name in STRATEGIES:
        row[f"{name}_mae"] = float(np.average(table[f"{name}_mae"], weights=weights))
        squares = np.average(table[f"{name}_rmse"] ** 2, weights=weights)
        row[f"{name}_rmse"] = float(np.sqrt(squares))
    return {**row, "level": "", "serves": ""}


def _in_words(row: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {row[f'{name}_mae']:.3f}" for name in STRATEGIES)
    return f"{row['month']}: {row['rows']:,} trips, MAE {errors} min, monitor says {row['level']}"
