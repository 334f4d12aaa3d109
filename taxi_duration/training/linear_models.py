"""Fits the course's linear models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.model.linear import LinearModel, PairVectorizer
from taxi_duration.training.course import COURSE_ROWS
from taxi_duration.training.part_sums import PAIR_SUMS
from taxi_duration.training.window_sums import WindowSums, window_sums

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ROUNDING = 1e-12  # share of a square that the difference of two sums may be off


@dataclass(frozen=True)
class LinearKind:
    """A scikit-learn estimator of least squares, penalised or not, on the pair matrix.

    Args:
        estimator: where its class is, `module:class`; imported where it fits.
        parameters: given to it.
        stops_early: its solver stops before it has the solution.
    """

    estimator: str
    parameters: Mapping[str, Any]
    stops_early: bool = False
    threads = 1  # that a fit keeps busy

    def fit(
        self,
        window: Window,
        seed: int = 0,
        rehearsal: bool = False,
        left_out: int | None = None,
        most: int | None = None,
    ) -> LinearModel:
        """Fit on all trips; `seed`, `rehearsal` and `most` change nothing.

        Args:
            left_out: a block of days that is not learned from.
        """
        estimator = resolve_name(self.estimator)(**self.parameters)
        if self.stops_early and left_out is None and len(window) <= COURSE_ROWS:
            return fit_rows(estimator, window)
        return fit_linear(estimator, window_sums(window), left_out)


def fit_rows(estimator: Any, window: Window) -> LinearModel:
    """As `fit_linear`, with a row for each trip: for windows that are small enough.

    Where a solver that stops early has come to hangs on how sums are rounded: among distances of
    1,000 miles, other rows with the same moments give another RMSE by 0.02 minutes.
    """
    rides, minutes = window.whole()
    vectorizer = PairVectorizer.fit(rides)
    estimator.fit(pair_matrix(vectorizer, rides), minutes)
    return _model(vectorizer, estimator)


def fit_linear(estimator: Any, sums: WindowSums, left_out: int | None = None) -> LinearModel:
    """Fit a scikit-learn linear estimator on the pair matrix, whatever the number of trips.

    Least squares know the trips of a pair by their number, means and second moments alone: four
    weighted rows that have the same give the same fit.

    LinearRegression solves sparse problems by LSQR and stops at its default tolerance; the
    course's 7.7587 is that solution. (Solved to the end, the RMSE would be 7.48: the raw
    distances reach 244,152 miles and make the problem ill-conditioned.)

    Args:
        estimator: unfitted; `fit` takes a sparse matrix, minutes and weights, and leaves `coef_`
            and `intercept_`.
        sums: over the trips.
        left_out: a block of days that is not learned from.
    """
    pairs = sums.pairs(left_out)
    held = pairs[:, PAIR_SUMS.index("trips")] > 0
    columns = dict(zip(PAIR_SUMS, pairs[held].T, strict=True))
    known, known_miles = columns["known"], columns["known_miles"]
    vectorizer = PairVectorizer.of_pairs(sums.seen[held], known, known_miles)
    column = vectorizer.column_of[sums.seen[held]]
    miles, minutes, weight = _four_rows(columns, vectorizer.mean_miles[column])
    matrix = _matrix(np.tile(column, 4), miles, vectorizer.n_pairs)
    estimator.fit(matrix, minutes, sample_weight=weight)
    return _model(vectorizer, estimator)


def _model(vectorizer: PairVectorizer, estimator: Any) -> LinearModel:
    return LinearModel(
        vectorizer,
        np.append(estimator.coef_[:-1], 0.0),
        float(estimator.coef_[-1]),
        float(estimator.intercept_),
    )


def _four_rows(
    sums: dict[str, np.ndarray], mean_miles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return miles, minutes and weights that have the moments of all trips, shape (4 * p,).

    Args:
        sums: PAIR_SUMS of p pairs.
        mean_miles: what stands in for a distance that was not given, shape (p,).
    """
    trips = sums["trips"]
    lost = trips - sums["given"]
    lost_minutes = sums["minutes"] - sums["given_minutes"]
    mean_x = (sums["given_miles"] + lost * mean_miles) / trips
    mean_y = sums["minutes"] / trips
    xx = (sums["given_miles2"] + lost * mean_miles**2) / trips - mean_x**2
    xy = (sums["given_product"] + lost_minutes * mean_miles) / trips - mean_x * mean_y
    yy = sums["minutes2"] / trips - mean_y**2
    # The square root of the covariance, column by column (Cholesky), each taken back and forth.
    # A spread that is nothing but rounding counts as none.
    deviation = np.sqrt(np.where(xx > ROUNDING * mean_x**2, xx, 0.0))
    shared = np.divide(xy, deviation, out=np.zeros_like(xy), where=deviation > 0)
    own = np.sqrt(np.maximum(yy - shared**2, 0.0))
    across, along, own = (np.sqrt(2.0) * column for column in (deviation, shared, own))
    return (
        np.concatenate([mean_x + across, mean_x - across, mean_x, mean_x]),
        np.concatenate([mean_y + along, mean_y - along, mean_y + own, mean_y - own]),
        np.tile(trips / 4, 4),
    )


def pair_matrix(
    vectorizer: PairVectorizer, rides: Rides | Sequence[Mapping[str, Any]] | Any
) -> csr_matrix:
    """Return what DictVectorizer would give, shape (n, n_pairs + 1), float64 CSR.

    Args:
        vectorizer: fitted on the training trips.
        rides: ride columns, a list of ride dicts, or a frame of trips.
    """
    if not isinstance(rides, Rides):
        is_frame = hasattr(rides, "columns")
        rides = Rides.from_frame(rides) if is_frame else Rides.from_dicts(rides)
    column, miles = vectorizer.columns(rides)
    return _matrix(column, miles, vectorizer.n_pairs)


def _matrix(column: np.ndarray, miles: np.ndarray, n_pairs: int) -> csr_matrix:
    """Return rows of a 1 in the pair's column, none where it is -1, and the miles."""
    seen = column >= 0
    starts = np.concatenate([[0], np.cumsum(seen + 1)])
    indices = np.empty(starts[-1], dtype="int32")
    values = np.ones(starts[-1])
    indices[starts[:-1][seen]] = column[seen]
    indices[starts[1:] - 1] = n_pairs
    values[starts[1:] - 1] = miles
    from scipy.sparse import csr_matrix  # half of the time in which every command starts

    return csr_matrix((values, indices, starts), shape=(len(column), n_pairs + 1))
