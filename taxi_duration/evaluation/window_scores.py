"""How right answers are on a window of trips, part by part: nothing is held but sums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from taxi_duration.data.engine import map_parts
from taxi_duration.data.window import Part, Window
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import (
    ERROR_SUMS,
    answer_figures,
    error_figures,
    prediction_bytes,
    sum_answers,
    sum_errors,
)
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.lookups import Lookup


class PartScore(NamedTuple):
    """`sum_answers` of a part with and without distances, and the SHA-256 of its predictions."""

    with_distance: np.ndarray
    without_distance: np.ndarray
    sha256: str


def score_model(model: DurationModel, window: Window) -> tuple[dict[str, Any], str]:
    """Return metrics with and without distance, and the digest of the predictions.

    Args:
        window: not empty. The digest of one month is that of its `prediction_bytes`, that of
            several is the digest of the months' digests.
    """
    parts = list(map_parts(partial(_score_part, model), window.parts))
    metrics = {
        "with_distance": answer_figures(reduce(np.add, [part.with_distance for part in parts])),
        "without_distance": answer_figures(
            reduce(np.add, [part.without_distance for part in parts])
        ),
    }
    return metrics, _join([part.sha256 for part in parts])


def _score_part(model: DurationModel, part: Part) -> PartScore:
    digest, sums = hashlib.sha256(), [np.zeros(1), np.zeros(1)]
    for rides, minutes in part.batches():
        answers, unaided = model.answer(rides), rides.without_distance()
        digest.update(prediction_bytes(answers))
        sums[0] = sums[0] + sum_answers(minutes, answers, rides)
        sums[1] = sums[1] + sum_answers(minutes, model.answer(unaided), unaided)
    return PartScore(sums[0], sums[1], digest.hexdigest())


def window_digest(model: DurationModel, window: Window) -> str:
    """Return the digest of a model's predictions, as `score_model` does."""
    return _join(list(map_parts(partial(_digest_part, model), window.parts)))


def _digest_part(model: DurationModel, part: Part) -> str:
    digest = hashlib.sha256()
    for rides, _ in part.batches():
        digest.update(prediction_bytes(model.answer(rides)))
    return digest.hexdigest()


def _join(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def score_points(
    predictors: Mapping[str, Callable[[Rides], np.ndarray]], window: Window
) -> dict[str, dict[str, float]]:
    """Return `error_metrics` of each predictor on a window that is not empty.

    Args:
        predictors: by name, from n rides to minutes of shape (n,); may be sent to other processes.
    """
    sums = reduce(np.add, map_parts(partial(_sum_points, [*predictors.values()]), window.parts))
    return {name: error_figures(row) for name, row in zip(predictors, sums, strict=True)}


def _sum_points(predictors: list[Callable[[Rides], np.ndarray]], part: Part) -> np.ndarray:
    sums = np.zeros((len(predictors), len(ERROR_SUMS)))
    for rides, minutes in part.batches():
        sums += [sum_errors(minutes, predict(rides)) for predict in predictors]
    return sums


def point_minutes(model: DurationModel, rides: Rides) -> np.ndarray:
    """Return a model's answers in minutes; with `partial` a predictor for `score_points`."""
    return model.answer(rides).duration


def predictors(lookups: Mapping[str, Lookup]) -> dict[str, Callable[[Rides], np.ndarray]]:
    """Return lookups as `score_points` asks for them."""
    return {name: lookup.predict_minutes for name, lookup in lookups.items()}
