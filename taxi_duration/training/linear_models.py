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

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class LinearKind:
    """A scikit-learn estimator on the pair matrix.

    Args:
        estimator: where its class is, `module:class`; imported where it fits.
        parameters: given to it.
    """

    estimator: str
    parameters: Mapping[str, Any]
    threads = 1  # that a fit keeps busy

    def fit(self, window: Window, seed: int = 0, rehearsal: bool = False) -> LinearModel:
        """Fit; nothing is random and there is no quicker fit, so the last two change nothing."""
        estimator = resolve_name(self.estimator)(**self.parameters)
        return fit_linear(estimator, *window.whole())


def fit_linear(estimator: Any, rides: Rides, duration: np.ndarray) -> LinearModel:
    """Fit a scikit-learn linear estimator on the pair matrix.

    LinearRegression solves sparse problems by LSQR and stops at its default tolerance; the
    course's 7.7587 is that solution. (Solved to the end, the RMSE would be 7.48: the raw
    distances reach 244,152 miles and make the problem ill-conditioned.)

    Args:
        estimator: unfitted, with `fit`, `coef_` and `intercept_`.
        rides: shape (n,).
        duration: minutes, shape (n,).
    """
    vectorizer = PairVectorizer.fit(rides)
    estimator.fit(pair_matrix(vectorizer, rides), duration.astype("float64"))
    return LinearModel(
        vectorizer,
        np.append(estimator.coef_[:-1], 0.0),
        float(estimator.coef_[-1]),
        float(estimator.intercept_),
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
    seen = column >= 0
    starts = np.concatenate([[0], np.cumsum(seen + 1)])
    indices = np.empty(starts[-1], dtype="int32")
    values = np.ones(starts[-1])
    indices[starts[:-1][seen]] = column[seen]
    indices[starts[1:] - 1] = vectorizer.n_pairs
    values[starts[1:] - 1] = miles
    from scipy.sparse import csr_matrix  # half of the time in which every command starts

    return csr_matrix((values, indices, starts), shape=(len(rides), vectorizer.n_pairs + 1))
