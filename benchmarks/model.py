"""How right are the models, against whom, and how long do they take to fit?

Prints a Markdown table for three pairs of months: lookups, the course's models, a LightGBM as it
comes, and ours. Every model learns from the training months alone and is scored once on the
month after, with the asked distance and without. The course stops its XGBoost on the very month
it is scored on; here it stops, like LightGBM, on the last tenth of the training days.

    python benchmarks/model.py [--case green-2021] [--models XGB,lightgbm] [--budget 30]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from results import Results

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.pickup_calendar import hours_of_day, weekdays
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import error_metrics, evaluate
from taxi_duration.model.linear import PairVectorizer
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.feature_tables import window_atlas
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.linear_models import pair_matrix

CASES = {
    "green-2021": ("green", "2021-01", "2021-02"),
    "green-2023": ("green", "2023-01", "2023-02"),
    "yellow-2019": ("yellow", "2019-01:2019-05", "2019-06"),
}
# README's words for the columns of a case, and for some rows.
COLUMNS = {
    "green-2021": ("green 2021-01 → 02", "green 2021, no distance"),
    "green-2023": ("green 2023-01 → 02", "green 2023, no distance"),
    "yellow-2019": ("yellow 2019 → 06", "yellow, no distance"),
}
ROWS = {
    "XGB without the atlas": "XGB, ATLAS=none",
    "LR": "LR (the course's, exactly: 7.7587)",
    "the course's XGBoost": "the course's XGBoost, stopped honestly",
    "lightgbm": "LightGBM as it comes",
    "od_pair_mean": "lookup: mean of the pair",
    "od_pair_hour_median": "lookup: median of pair and hour",
    "mean": "lookup: mean",
}
# As the course found them in 50 trials on 2021-02 (mlops-zoomcamp, week 2).
COURSE_XGBOOST = {
    "learning_rate": 0.09585355369315604,
    "max_depth": 30,
    "min_child_weight": 1.060597050922164,
    "objective": "reg:squarederror",
    "reg_alpha": 0.018060244040060163,
    "reg_lambda": 0.011658731377413597,
    "seed": 42,
}
ROUNDS, PATIENCE = 1000, 50
STOP_SHARE = 0.1  # of the training days, at their end, tells the rivals when to stop
THREADS = 2
Predict = Callable[[Rides], np.ndarray]


class Score(NamedTuple):
    """One row of the table; minutes, None where a model has no such answer."""

    model: str
    rmse: float
    mae: float
    rmse_blind: float | None
    mae_blind: float | None
    coverage: float | None
    width: float | None
    seconds: float
    metrics: tuple[dict[str, Any], dict[str, Any]] | None = None  # with and without distance


def main() -> None:
    """Fit, score and print, case by case."""
    asked = _arguments()
    results = Results("model")
    for name in asked.case or CASES:
        service, train, validation = CASES[name]
        months = [prepare_months(service, parse_months(tags)) for tags in (train, validation)]
        source = ", ".join(sorted({month.raw.data_source for part in months for month in part}))
        print(f"\n### {service} {train} → {validation} ({source})\n\n{HEADER}", flush=True)
        window, scored = map(Window.scored, months)
        for score in scores(window, *scored.whole(), asked.budget, asked.models):
            print(_line(score), flush=True)
            _keep(results, name, score)
    results.write()


def _keep(results: Results, case: str, score: Score) -> None:
    """Keep a score under README's words."""
    asked, unaided = COLUMNS[case]
    of = ROWS.get(score.model, score.model)
    results.add(of, asked, [score.rmse, score.mae], "RMSE / MAE, minutes")
    if score.rmse_blind is not None and score.mae_blind is not None:
        results.add(of, unaided, [score.rmse_blind, score.mae_blind], "RMSE / MAE, minutes")
    results.add(of, f"{asked}, seconds of the fit", score.seconds, "s")
    if score.model == "XGB" and score.metrics:
        for what, found in zip((asked, unaided), score.metrics, strict=True):
            shares = [100 * part["coverage"] for part in found["segments"].values()]
            results.add("holds (nominal 80 %)", what, 100 * found["coverage"], "%")
            results.add("by segment", what, [min(shares), max(shares)], "%")
            results.add("mean width, minutes", what, found["mean_width"], "minutes")
            results.add("pinball loss / CRPS", what, [found["pinball"], found["crps"]], "minutes")


def scores(
    window: Window,
    later: Rides,
    actual: np.ndarray,
    budget: float,
    only: list[str] | None,
) -> Iterator[Score]:
    """Yield one score per model, the simplest first.

    Args:
        window: to learn from.
        later, actual: to score on, shape (m,).
        budget: seconds a rival may fit.
        only: names of the models; None for all.
    """
    rides, duration = window.whole()
    rivals: dict[str, Callable[[], tuple[Predict, Predict | None]]] = {
        "the course's XGBoost": lambda: (_fit_course_xgboost(rides, duration, budget), None),
        "lightgbm": lambda: _fit_lightgbm(rides, duration, budget),
    }
    if not only or "lookups" in only:
        started = time.perf_counter()
        for name, lookup in fit_baselines(window).items():
            errors = error_metrics(actual, lookup.predict_minutes(later))
            seconds = time.perf_counter() - started
            yield Score(name, *_two(errors), *_two(errors), None, None, seconds)
    for kind in KINDS:
        if not only or kind in only:
            yield _score_ours(kind, window, later, actual)
    if (not only or "XGB" in only) and window_atlas(window) is not None:
        os.environ["ATLAS"] = "none"
        alone = _score_ours("XGB", window, later, actual)
        del os.environ["ATLAS"]
        yield alone._replace(model="XGB without the atlas")
    for name, fit in rivals.items():
        if only and name not in only:
            continue
        started = time.perf_counter()
        predict, predict_blind = fit()
        seconds = time.perf_counter() - started
        errors = error_metrics(actual, predict(later))
        blind = predict_blind and error_metrics(actual, predict_blind(later))
        yield Score(name, *_two(errors), *(_two(blind) if blind else (None, None)),
                    None, None, seconds)  # fmt: skip


def _score_ours(kind: str, window: Window, later: Rides, actual: np.ndarray) -> Score:
    started = time.perf_counter()
    model = fit_model(kind, window)
    seconds = time.perf_counter() - started
    unaided = later.without_distance()
    given, none = (evaluate(actual, model.answer(r), r) for r in (later, unaided))
    return Score(kind, *_two(given), *_two(none), given["coverage"], given["mean_width"], seconds,
                 (given, none))  # fmt: skip


def _two(errors: dict[str, float]) -> tuple[float, float]:
    return errors["rmse"], errors["mae"]


def _fit_course_xgboost(rides: Rides, duration: np.ndarray, budget: float) -> Predict:
    """Fit the course's XGBoost on its features: the pair one-hot, and the distance."""
    import xgboost

    class Budget(xgboost.callback.TrainingCallback):
        def __init__(self) -> None:
            super().__init__()
            self.end = time.perf_counter() + budget

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return time.perf_counter() > self.end

    vectorizer = PairVectorizer.fit(rides)
    early, late = _split(rides)
    parts = [
        xgboost.DMatrix(pair_matrix(vectorizer, rides.take(rows)), duration[rows])
        for rows in (early, late)
    ]
    booster = xgboost.train(
        {**COURSE_XGBOOST, "nthread": THREADS}, parts[0], ROUNDS,
        evals=[(parts[1], "late")],
        early_stopping_rounds=PATIENCE, callbacks=[Budget()], verbose_eval=False,
    )  # fmt: skip
    return lambda asked: booster.predict(xgboost.DMatrix(pair_matrix(vectorizer, asked)))


def _fit_lightgbm(rides: Rides, duration: np.ndarray, budget: float) -> tuple[Predict, Predict]:
    """Fit LightGBM as it comes on plain columns, once with and once without the distance."""
    import lightgbm

    early, late = _split(rides)

    def fit(columns: int) -> Predict:
        end = time.perf_counter() + budget / 2

        def stop_in_time(env: Any) -> None:
            if time.perf_counter() > end:
                raise lightgbm.callback.EarlyStopException(env.iteration, [])

        rows = _plain(rides)[:, :columns]
        model = lightgbm.LGBMRegressor(n_estimators=ROUNDS, n_jobs=THREADS, verbose=-1)
        model.fit(
            rows[early], duration[early], eval_X=rows[late], eval_y=duration[late],
            categorical_feature=[0, 1],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), stop_in_time],
        )  # fmt: skip
        return lambda asked: model.predict(_plain(asked)[:, :columns])

    return fit(5), fit(4)


def _plain(rides: Rides) -> np.ndarray:
    """Return zones, hour, weekday and distance, float64, shape (n, 5)."""
    zones = (rides.PULocationID, rides.DOLocationID)
    clock = (hours_of_day(rides.pickup_at), weekdays(rides.pickup_at))
    return np.column_stack([*zones, *clock, rides.trip_distance]).astype("float64")


def _split(rides: Rides) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the early days and the last tenth of them, each of shape (n,)."""
    day = rides.pickup_at.astype("datetime64[D]")
    days = np.unique(day)
    early = day < days[int(len(days) * (1 - STOP_SHARE))]
    return early, ~early


HEADER = (
    "| model | RMSE | MAE | RMSE without distance | MAE without | coverage | mean width "
    "| fit, s |\n|---|---|---|---|---|---|---|---|"
)


def _line(score: Score) -> str:
    def figure(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    minutes = [figure(value, ".3f") for value in score[1:5]]
    rest = [figure(score.coverage, ".1%"), figure(score.width, ".2f"), f"{score.seconds:.1f}"]
    return f"| {' | '.join([score.model, *minutes, *rest])} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", action="append", choices=CASES, help="may be given again")
    names = f"lookups, {', '.join(KINDS)}, the course's XGBoost, lightgbm"
    parser.add_argument("--models", type=lambda text: text.split(","), help=f"some of: {names}")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds a rival may fit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
