"""The kinds of models: how each is fitted, with which parameters, how it is packed.

A new kind is a line here. Serving does not know kinds: a bundle says whether it answers by a
table of pairs or by trees, and both answer whatever library fitted them.
"""

from __future__ import annotations

from collections.abc import Iterable

from taxi_duration.errors import SettingError
from taxi_duration.training.boosting import long_settings, quicker_boosting, xgb_parameters
from taxi_duration.training.boosting_engine import boost
from taxi_duration.training.device import check_device
from taxi_duration.training.linear_models import LinearKind
from taxi_duration.training.tree_models import TreeKind, learn_forest
from taxi_duration.training.tree_packing import from_forest, from_xgboost

Kind = LinearKind | TreeKind

KINDS: dict[str, Kind] = {
    "LR": LinearKind("sklearn.linear_model:LinearRegression", {}, stops_early=True),
    # An alpha of 0.001 shrinks so many pairs away that the pair's mean beats it.
    "LASSO": LinearKind("sklearn.linear_model:Lasso", {"alpha": 0.0003}),
    # At the default tolerance one distance of 244,152 miles stops the solver far too early.
    "RIDGE": LinearKind("sklearn.linear_model:Ridge", {"alpha": 1.0, "tol": 1e-9}),
    "RF": TreeKind(
        learn_forest, from_forest,
        {"n_estimators": 40, "min_samples_leaf": 20, "max_features": 0.4, "max_samples": 0.7},
        quicker={"n_estimators": 10}, rising="monotonic_cst",
    ),
    "XGB": TreeKind(
        boost, from_xgboost, xgb_parameters(), quicker_boosting(xgb_parameters()),
        rising="monotone_constraints", by_batch=True, long=long_settings(),
    ),
}  # fmt: skip


def check_kinds(names: Iterable[str]) -> None:
    """Make sure that kinds can be fitted here, before anything else is done.

    Raises:
        SettingError: one is to be boosted on a GPU that is not there, or of a wrong number of rows.
    """
    for name in names:
        kind = find_kind(name)
        if isinstance(kind, TreeKind) and kind.by_batch:
            kind.most_rows()
            check_device()


def find_kind(name: str) -> Kind:
    """Return a kind by its name.

    Raises:
        SettingError: no such kind; lists the known ones.
    """
    if name not in KINDS:
        raise SettingError(f"model kind {name!r} is not known; there are {', '.join(KINDS)}")
    return KINDS[name]
