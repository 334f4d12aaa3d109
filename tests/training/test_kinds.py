from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.chain.run_settings import MODEL_CHOICES
from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.training import calibration, tree_models
from taxi_duration.training.boosting import xgb_settings
from taxi_duration.training.calibration import calibrate_intervals
from taxi_duration.training.day_groups import BLOCKS
from taxi_duration.training.fit import fit_model, fit_point
from taxi_duration.training.kinds import KINDS, find_kind
from taxi_duration.training.tree_models import TreeKind
from taxi_duration.training.tree_packing import from_forest
from taxi_duration.training.window_sums import HALF_LIFE_DAYS

OWN = {
    "LR": {},
    "LASSO": {"alpha": 0.0003},
    "RIDGE": {"alpha": 1.0, "tol": 1e-9},
    "RF": {"n_estimators": 40, "min_samples_leaf": 20, "max_features": 0.4, "max_samples": 0.7},
    "XGB": {"rounds": xgb_settings()["rounds"], **xgb_settings()["parameters"]},
}


def test_settings_offer_the_kinds_there_are():
    assert tuple(KINDS) == tuple(OWN)
    assert (*OWN, "best") == MODEL_CHOICES


@pytest.mark.parametrize("kind", ["SVM", "lr", "", "best"])
def test_an_unknown_kind_is_refused_with_those_there_are(trips, kind):
    for fit in (fit_model, fit_point):
        with pytest.raises(SettingError, match=f"kind '{kind}' is not known; there are LR, LASSO"):
            fit(kind, Window.from_frame(trips))


@pytest.mark.parametrize("kind", OWN)
def test_a_model_names_the_parameters_of_its_own_kind_and_no_other(fitted, kind):
    beside = {"rows_tables", "rows_rehearsals", "rows_calibration"}
    if kind in ("RF", "XGB"):
        beside |= {"half_life_days", "atlas", "extra_features", "rows_trees"}
    told = fitted(kind).parameters
    assert {name: told[name] for name in told if name not in beside} == {**OWN[kind], "seed": 0}
    assert beside <= told.keys()


def test_a_new_tree_kind_is_a_line_and_names_its_own_parameters(trips, monkeypatch, quick_trees):
    few = {"n_estimators": 3, "min_samples_leaf": 7}
    kind = TreeKind(
        tree_models.learn_forest, from_forest, few, {"n_estimators": 1}, "monotonic_cst"
    )
    monkeypatch.setitem(KINDS, "FEW", kind)
    model = fit_model("FEW", Window.from_frame(trips))
    told = {**few, "half_life_days": HALF_LIFE_DAYS, "extra_features": "none", "seed": 0}
    rows = {name for name in model.parameters if name.startswith("rows_")}
    assert {n: model.parameters[n] for n in model.parameters.keys() - rows} == {
        **told, "atlas": model.parameters["atlas"]
    }  # fmt: skip
    assert len(model.point.with_distance.roots) == 3


def test_a_rehearsal_is_fitted_with_the_quicker_parameters(trips, quick_trees):
    kind = replace(KINDS["RF"], quicker={"n_estimators": 2})
    for rehearsal, size in ((True, 2), (False, KINDS["RF"].parameters["n_estimators"])):
        point = kind.fit(Window.from_frame(trips), rehearsal=rehearsal)
        assert len(point.with_distance.roots) == len(point.without_distance.roots) == size


def test_seed_and_rehearsal_reach_every_fit(trips, monkeypatch):
    """The model itself on all trips, then a rehearsal that leaves out each block."""
    asked = []

    class Spy:
        parameters: dict = {}  # noqa: RUF012

        def fit(self, window, seed=0, rehearsal=False, left_out=None):
            asked.append((len(window), seed, rehearsal, left_out))
            return find_kind("LR").fit(window, left_out=left_out)

    monkeypatch.setitem(KINDS, "SPY", Spy())
    window = Window.from_frame(trips)
    assert fit_model("SPY", window, seed=5).parameters["seed"] == 5
    rest = [(len(window), 5, True, block) for block in range(BLOCKS)]
    assert asked == [(len(window), 5, False, None), *rest]


@pytest.mark.parametrize("kind", ["RF", "XGB"])
def test_another_seed_gives_another_model_and_other_intervals(sample_months, kind, quick_trees):
    window = Window.from_frame(sample_months[0].head(400))
    rides = window.whole().rides
    first, again, other = (fit_model(kind, window, seed=seed).answer(rides) for seed in (3, 3, 4))
    for name in ("duration", "p10", "p90"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    ratio = [answers.p90 / answers.duration for answers in (first, other)]
    assert not np.allclose(*ratio)


def test_a_rehearsal_s_support_is_scaled_to_the_whole_window(monkeypatch):
    """12 trips a pair are the usual kind of pair, though each rehearsal sees 8 of them."""
    pairs, days = 20, 12
    rides = Rides(
        np.repeat(np.arange(1, pairs + 1), days).astype("int16"),
        np.full(pairs * days, 100, "int16"),
        np.tile(
            np.datetime64("2021-01-04T08:00") + np.arange(days) * np.timedelta64(1, "D"), pairs
        ),
        np.full(pairs * days, 2.0, "float32"),
    )
    groups = []
    monkeypatch.setattr(calibration, "fit_intervals", lambda *given: groups.append(given[2]))
    window = Window.of(rides, np.full(pairs * days, 10.0, "float32"))
    calibrate_intervals("LR", window, seed=0)
    assert len(groups) == 2
    assert {int(group) % 3 for part in groups for group in part} == {2}
