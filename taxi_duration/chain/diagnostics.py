"""What notebooks ask of a model: what it sees and holds, where it errs, what more data buys."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from taxi_duration.chain.candidates import Candidate
from taxi_duration.chain.exploration import sample_trips
from taxi_duration.chain.run import Run
from taxi_duration.data.window import Part, SomeTrips, Window
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.pickup_calendar import window_days
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import error_metrics
from taxi_duration.files import sha256_file
from taxi_duration.logs import log_step, prefix_steps
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.explain import BASE
from taxi_duration.model.extra_features import load_conditions, values_of
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES, transform
from taxi_duration.model.linear import PairVectorizer
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.training.feature_tables import window_atlas, window_tables
from taxi_duration.training.fit import fit_point
from taxi_duration.training.kinds import find_kind
from taxi_duration.training.linear_models import LinearKind, pair_matrix
from taxi_duration.training.tree_models import TreeKind

PUBLIC_MONTHS = ("green", "2021-01", "2021-02")  # what the public figures were measured on
CALIBRATION_BINS = 10
IMPORTANCE_RIDES = 500
CURVE_RIDES = 200_000  # to score on: an RMSE of so many is off by a hundredth at most
# Trips that trees of a learning curve learn from: a point costs about 30 CPU seconds, whatever the
# window; and those of the boosting curve, whose points cost half as much a row.
CURVE_ROWS, BOOST_CURVE_ROWS = 300_000, 1_000_000


def ride_features(kind: str, trips: pd.DataFrame, ride: pd.DataFrame) -> pd.DataFrame:
    """Return what a kind of model sees of one ride, by name, with and without its distance.

    Args:
        kind: LR, LASSO, RIDGE, RF or XGB.
        trips: past trips that the tables or columns are learned from.
        ride: a frame of one trip.
    Returns:
        Trees: the features looked up in tables of the past trips, then the hour's conditions;
        NaN is "not given". Linear kinds: the columns that are not 0, named as scikit-learn's
        DictVectorizer names them; without a distance the pair's mean stands in.
    """
    past, asked = Rides.from_frame(trips), Rides.from_frame(ride)
    both = {"distance given": asked, "no distance": asked.without_distance()}
    if isinstance(find_kind(kind), LinearKind):
        vectorizer = PairVectorizer.fit(past)
        names = vectorizer.feature_names
        rows = {name: pair_matrix(vectorizer, rides).toarray()[0] for name, rides in both.items()}
        table = pd.DataFrame(rows, index=names)
        return table[(table != 0).any(axis=1)].rename_axis("feature")
    window = Window.from_frame(trips)
    tables = window_tables(window, atlas=window_atlas(window))
    rows = {name: transform(rides, tables, True)[0] for name, rides in both.items()}
    table = pd.DataFrame(rows, index=list(DISTANCE_FEATURES))
    table.loc[DISTANCE_FEATURES[len(FEATURES) :], "no distance"] = np.nan  # these trees have none
    return pd.concat([table, _conditions(asked)]).rename_axis("feature")


def _conditions(asked: Rides) -> pd.DataFrame:
    """The hour's conditions of one ride, as rows of `ride_features`; none without a file."""
    conditions = load_conditions()
    names = () if conditions is None else conditions.names
    values = values_of(names, asked.pickup_at)[0] if names else []
    return pd.DataFrame(dict.fromkeys(("distance given", "no distance"), values), index=names)


def bin_contents(model: DurationModel) -> pd.DataFrame:
    """Return what a model is made of: `type`, what it `holds` and `bytes` of each part.

    A part is named by its place, such as `point.vectorizer.column_of`; the largest come first.
    """
    parts = pd.DataFrame(_parts(model, ""), columns=["part", "type", "holds", "bytes"])
    return parts.sort_values("bytes", ascending=False, kind="stable").set_index("part")


def _parts(value: object, name: str) -> Iterator[tuple[str, str, str, int]]:
    if is_dataclass(value):
        for field in fields(value):
            inner = f"{name}.{field.name}" if name else field.name
            yield from _parts(getattr(value, field.name), inner)
    elif isinstance(value, np.ndarray):
        kind = "record" if value.dtype.names else str(value.dtype)
        shape = " x ".join(f"{n:,}" for n in value.shape)
        yield name, f"array of {kind}", shape, value.nbytes
    else:
        size = len(pickle.dumps(value))
        text = str(value)
        yield name, type(value).__name__, text if len(text) < 60 else f"{text[:57]}…", size


def bundle_files(folder: Path) -> pd.DataFrame:
    """Return the files of a saved bundle: `bytes` and `sha256`."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    rows = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in files}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("file")


def residuals(candidate: Candidate, run: Run) -> pd.DataFrame:
    """Return the validation trips with `predicted`, `p10`, `p90` and `error`, minutes.

    `error` is predicted - actual. Of very many trips an even sample, as `sample_trips` takes it.
    """
    trips = sample_trips(run.val_months)
    answers = candidate.model.answer(Rides.from_frame(trips))
    return trips.assign(
        predicted=answers.duration,
        p10=answers.p10,
        p90=answers.p90,
        error=np.subtract(answers.duration, trips["duration"]),
    )


def calibration_table(errors: pd.DataFrame) -> pd.DataFrame:
    """Return how answers of ten lengths fared: each row is a tenth of the trips.

    Args:
        errors: as `residuals` gives it.
    Returns:
        `predicted` and `actual` mean minutes, and the shares (0-1) of trips `below` P10,
        `inside` the interval and `above` P90; from the shortest answers to the longest.
    """
    tenth = pd.qcut(errors["predicted"].rank(method="first"), CALIBRATION_BINS, labels=False)
    below, above = errors["duration"] < errors["p10"], errors["duration"] > errors["p90"]
    table = pd.DataFrame(
        {
            "predicted": errors["predicted"],
            "actual": errors["duration"],
            "below": below,
            "inside": ~(below | above),
            "above": above,
        }
    )
    return table.groupby(tenth).mean().rename_axis("tenth")


def importance(candidate: Candidate, run: Run, rides: int = IMPORTANCE_RIDES) -> pd.DataFrame:
    """Return how many minutes each reason moves an answer, on average over validation trips.

    Args:
        rides: how many trips are explained, evenly spread over the months.
    Returns:
        A row per reason, mean absolute minutes in `distance given` and `no distance`, the
        most important first. The base, the same for all rides, is left out.
    """
    asked, _ = Window.scored(run.val_months).evenly(rides)
    predictor = RidePredictor(candidate.model)
    columns = asked.PULocationID.tolist(), asked.DOLocationID.tolist(), asked.pickup_at.tolist()
    miles = {"distance given": asked.trip_distance.tolist(), "no distance": [None] * len(asked)}
    table = {}
    for name, given in miles.items():
        questions = zip(*columns, given, strict=True)
        reasons = pd.DataFrame(
            {r.name: r.minutes for r in predictor.explain(*question)} for question in questions
        )
        table[name] = reasons.drop(columns=BASE).fillna(0).abs().mean()
    return pd.DataFrame(table).fillna(0).sort_values("distance given", ascending=False)


def learning_curve(
    candidate: Candidate, run: Run, parts: Sequence[int] = (8, 4, 2)
) -> pd.DataFrame:
    """Return what the same kind of model knows from the last part of the window only.

    Trees learn with the quicker parameters of a rehearsal, also from the whole window, and from
    CURVE_ROWS trips at most: so the curve costs less than the model, whatever the window.

    Args:
        candidate: the model of the whole window; other kinds than trees are not fitted on it again.
        parts: the last 1/part of the window's days.
    Returns:
        `days`, `trips`, RMSE with and without distance (minutes) and `seconds` of each fit.
    """
    window = Window.learnable(run.train_months)
    every = [np.unique(rides.pickup_at.astype("datetime64[D]")) for rides, _ in window.batches()]
    days = window_days(np.concatenate(every), run.settings.train_months)
    is_quick = isinstance(find_kind(candidate.kind), TreeKind)
    rows = []
    for part in [*parts, *([1] if is_quick else [])]:
        last = days[-max(len(days) // part, 1) :]
        recent = Window(tuple(DaysPart(some, last) for some in window.parts))
        started = time.perf_counter()
        with prefix_steps(f"learning curve of {candidate.kind}"):
            log_step(f"fit on the last {len(last)} of {len(days)} days")
            point = fit_point(candidate.kind, recent, rehearsal=is_quick, most=CURVE_ROWS)
        seconds = time.perf_counter() - started
        rows.append([len(last), len(recent), *_both_rmse(point, run), seconds])
    if not is_quick:
        rmse = [candidate.metrics[f"{w}_distance"]["rmse"] for w in ("with", "without")]
        rows.append([len(days), len(window), *rmse, candidate.card["fit_seconds"]])
    return pd.DataFrame(rows, columns=["days", "trips", "rmse", "rmse_no_distance", "seconds"])


def boosting_curve(candidate: Candidate, run: Run) -> pd.DataFrame | None:
    """Return what trees know from a part of their rows; tables know all trips.

    Those with distance, or without where no validation trip has one, as in FHV months.

    The parts are 1/8, 1/4, 1/2 and all of the rows that the candidate learned from, at most
    BOOST_CURVE_ROWS, with the quicker parameters of a rehearsal. None for a kind that is not
    boosted.

    Returns:
        `rows`, `rmse` (minutes, of CURVE_RIDES validation trips at least, or all) and `seconds`.
    """
    kind, point = find_kind(candidate.kind), candidate.model.point
    if not (isinstance(kind, TreeKind) and kind.by_batch and isinstance(point, TreeModel)):
        return None
    window = Window.learnable(run.train_months)
    rides, actual = Window.scored(run.val_months).evenly(CURVE_RIDES)
    used = point.uses_distance(rides)
    if not (is_aided := bool(used.any())):
        used = ~used
    level = point.level.of(rides.pickup_at[used])
    asked, table = point.rows(rides.take(used), with_distance=is_aided), []
    whole = min(kind.most_rows() or len(window), len(window), BOOST_CURVE_ROWS)
    for divisor in (8, 4, 2, 1):
        started = time.perf_counter()
        lesson = kind.prepare(window, most=whole // divisor)
        with prefix_steps(f"boosting curve of {candidate.kind}"):
            log_step(f"fit on {len(lesson.sample.window):,} rows")
            trees = kind.learn_from(lesson, with_distance=is_aided, rehearsal=True)
        minutes = np.clip(trees.predict(asked) * level, *TRIP_MINUTES)
        rmse = error_metrics(actual[used], minutes)["rmse"]
        table.append([len(lesson.sample.window), rmse, time.perf_counter() - started])
    return pd.DataFrame(table, columns=["rows", "rmse", "seconds"])


def compare_with_public(candidate: Candidate, run: Run) -> pd.DataFrame | None:
    """Return the public results on the same rows with ours among them, best first.

    None when the run is about other months than those that the figures were measured on.
    """
    settings = run.settings
    if (settings.service, settings.train_data, settings.val_data) != PUBLIC_MONTHS:
        return None
    ours = [
        {"model": f"ours, {candidate.kind}", "distance": given, "source": "this run"}
        | {name: candidate.metrics[key][name] for name in ("rmse", "mae")}
        for given, key in (("yes", "with_distance"), ("no", "without_distance"))
    ]
    table = pd.concat([public_results(), pd.DataFrame(ours)], ignore_index=True)
    return table.sort_values("rmse", ignore_index=True)


@cache
def public_results() -> pd.DataFrame:
    """Return RMSE and MAE (minutes) that others reach on green 2021-01 to 2021-02."""
    return pd.read_csv(Path(__file__).with_name("public_results.csv"))


def _both_rmse(point, run: Run) -> tuple[float, float]:
    """RMSE of point answers with and without distance, on CURVE_RIDES trips at least, or all."""
    rides, actual = Window.scored(run.val_months).evenly(CURVE_RIDES)
    aided, unaided = (
        error_metrics(actual, point.predict_minutes(asked))["rmse"]
        for asked in (rides, rides.without_distance())
    )
    return aided, unaided


@dataclass(frozen=True)
class DaysPart(SomeTrips):
    """A part's trips of some days, datetime64[D]."""

    part: Part
    days: np.ndarray

    def picker(self) -> Callable[[Rides], np.ndarray]:
        """As `SomeTrips`."""
        return lambda rides: np.isin(rides.pickup_at.astype("datetime64[D]"), self.days)
