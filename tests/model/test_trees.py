from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestRegressor

from taxi_duration.model import trees
from taxi_duration.model.trees import RideTrees, TreeEnsemble
from taxi_duration.training.tree_packing import from_forest, from_xgboost, without_missing

needs_walker = pytest.mark.skipif(trees._walker is None, reason="the walker is not compiled")


def make_rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of six features with a tenth missing, and minutes that hang on the first three."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 6)).astype("float32")
    rows[:, 3] = np.round(rows[:, 3])  # values that meet thresholds exactly
    minutes = 15 + 5 * rows[:, 0] * rows[:, 1] + 3 * rows[:, 3] + rng.normal(size=n)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows, minutes.astype("float32")


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    rows, minutes = make_rows(3000)
    settings = {"max_depth": 7, "eta": 0.2, "tree_method": "hist", "nthread": 1, "subsample": 0.7}
    return xgboost.train(settings, xgboost.DMatrix(rows, minutes), 45)


@pytest.fixture(scope="module")
def forest() -> RandomForestRegressor:
    rows, minutes = make_rows(3000)
    forest = RandomForestRegressor(20, min_samples_leaf=3, random_state=0)
    return forest.fit(without_missing(rows), minutes)


@pytest.fixture(scope="module")
def packed(booster) -> TreeEnsemble:
    return from_xgboost(booster)


@pytest.fixture(scope="module")
def bounded(packed) -> TreeEnsemble:
    """The first 30 trees, and the last 15 within half a minute."""
    few, at = 30, packed.roots[30]
    nodes = packed.nodes[at:].copy()
    nodes["left"] = np.where(nodes["left"] >= 0, nodes["left"] - at, -1)
    last = TreeEnsemble(nodes, packed.roots[few:] - at, 0.0)
    return TreeEnsemble(packed.nodes[:at], packed.roots[:few], packed.base, last, 0.5)


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_walker), False])
def test_a_bounded_sum_moves_the_answer_by_no_more_than_its_bound(bounded, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(trees, "_walker", None)
    rows, _ = make_rows(700, seed=1)
    main, last = replace(bounded, bounded=None).predict(rows), bounded.bounded.predict(rows)
    assert (np.abs(last) > 0.5).any() and (np.abs(last) < 0.5).any()
    answers = bounded.predict(rows)
    np.testing.assert_allclose(answers, main + np.clip(last, -0.5, 0.5), atol=1e-5)
    assert [RideTrees(bounded).predict(row) for row in rows] == answers.tolist()


def test_contributions_of_bounded_trees_add_up_to_the_answer(bounded):
    rows, _ = make_rows(700, seed=1)
    parts, start = bounded.contributions(rows)
    np.testing.assert_allclose(parts.sum(axis=1) + start, bounded.predict(rows), atol=1e-4)


def test_bounded_trees_are_checked_too(bounded):
    bounded.check(n_features=6)
    broken = bounded.bounded.nodes.copy()
    broken["feature"][0] = 6
    with pytest.raises(ValueError, match="ask for feature 6"):
        replace(bounded, bounded=replace(bounded.bounded, nodes=broken)).check(n_features=6)
    with pytest.raises(ValueError, match="bounded trees themselves"):
        replace(bounded, bounded=bounded).check(n_features=6)


# 1 row, less than a step of the walker, not a multiple of it, more than its block, two threads
@pytest.mark.parametrize("n", [1, 7, 61, 700, 2 * trees.THREAD_ROWS + 1])
def test_packed_booster_predicts_like_xgboost(booster, packed, n):
    rows, _ = make_rows(n, seed=1)
    expected = booster.predict(xgboost.DMatrix(rows))
    np.testing.assert_allclose(packed.predict(rows), expected, rtol=1e-6, atol=1e-5)


def test_packed_forest_predicts_like_scikit_learn(forest):
    rows, _ = make_rows(700, seed=1)
    expected = forest.predict(without_missing(rows))
    np.testing.assert_allclose(from_forest(forest).predict(rows), expected, atol=1e-4)


def test_values_on_a_threshold_go_the_forests_way():
    rows = np.arange(20, dtype="float32")[:, None] / np.float32(10)
    forest = RandomForestRegressor(5, random_state=0).fit(rows, rows[:, 0])
    thresholds = np.unique(np.concatenate([t.tree_.threshold for t in forest.estimators_]))
    edges = thresholds.astype("float32")
    asked = np.concatenate([edges, np.nextafter(edges, np.float32(9))])[:, None]
    np.testing.assert_allclose(from_forest(forest).predict(asked), forest.predict(asked), atol=1e-6)


@needs_walker
def test_numpy_fallback_predicts_like_the_compiled_walker(packed, monkeypatch):
    rows, _ = make_rows(5000, seed=2)  # more than one block
    compiled = packed.predict(rows)
    monkeypatch.setattr(trees, "_walker", None)
    np.testing.assert_array_equal(packed.predict(rows), compiled)


def test_machine_without_the_compiled_walker_is_told_once(packed, monkeypatch, caplog):
    monkeypatch.setattr(trees, "_walker", None)
    trees.say_slower.cache_clear()
    rows, _ = make_rows(3, seed=2)
    RideTrees(packed).predict(rows[0])
    RideTrees(packed)
    packed.predict(rows)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "not compiled" in said and "python3-dev" in said and "make -B setup" in said


@needs_walker
def test_machine_with_the_compiled_walker_is_told_nothing(packed, caplog):
    trees.say_slower.cache_clear()
    RideTrees(packed).predict(make_rows(1)[0][0])
    assert not caplog.records


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_walker), False])
def test_one_row_is_answered_like_many(packed, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(trees, "_walker", None)
    rows, _ = make_rows(100, seed=3)
    one = RideTrees(packed)
    assert [one.predict(row) for row in rows] == packed.predict(rows).tolist()


def test_missing_and_extreme_values_go_xgboosts_way(booster, packed):
    rows = np.array([[np.nan] * 6, [3e38] * 6, [-3e38] * 6, [0.0] * 6], dtype="float32")
    expected = booster.predict(xgboost.DMatrix(rows, missing=np.nan))
    np.testing.assert_allclose(packed.predict(rows), expected, rtol=0, atol=1e-5)


def test_no_rows_give_no_answers(packed):
    assert packed.predict(np.empty((0, 6), dtype="float32")).shape == (0,)


def test_contributions_are_xgboosts_own_path_contributions(booster, packed):
    rows, _ = make_rows(50, seed=4)
    data = xgboost.DMatrix(rows)
    theirs = booster.predict(data, pred_contribs=True, approx_contribs=True)
    ours, start = packed.contributions(rows)
    np.testing.assert_allclose(ours, theirs[:, :-1], rtol=0, atol=1e-3)
    np.testing.assert_allclose(start, theirs[:, -1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["booster", "forest"])
def test_contributions_add_up_to_the_prediction(booster, forest, kind):
    ensemble = from_xgboost(booster) if kind == "booster" else from_forest(forest)
    rows, _ = make_rows(50, seed=5)
    parts, start = ensemble.contributions(rows)
    assert parts.sum(axis=1) + start == pytest.approx(ensemble.predict(rows), abs=1e-3)


@needs_walker
def test_numpy_fallback_gives_the_same_contributions(packed, monkeypatch):
    rows, _ = make_rows(700, seed=6)  # more than a block of the compiled walker
    compiled, start = packed.contributions(rows)
    one_by_one = np.vstack([packed.contributions(row[None])[0] for row in rows])
    assert np.array_equal(compiled, one_by_one)
    monkeypatch.setattr(trees, "_walker", None)
    monkeypatch.setattr(trees, "BLOCK_ROWS", 300)
    parts, same_start = packed.contributions(rows)
    np.testing.assert_allclose(parts, compiled, rtol=0, atol=1e-6)
    assert same_start == start


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("feature", 6, "ask for feature 6; there are 6"),
        ("feature", -1, "ask for feature"),
        ("left", 0, "children are not where they must be"),  # a circle
        ("left", 10**6, "children are not where they must be"),
    ],
)
def test_nodes_that_lead_astray_are_found(packed, field, value, message):
    packed.check(n_features=6)  # before the change it is fine
    nodes = packed.nodes.copy()
    nodes[field][0] = value
    with pytest.raises(ValueError, match=message):
        TreeEnsemble(nodes, packed.roots, packed.base).check(n_features=6)


def test_root_outside_the_nodes_is_found(packed):
    roots = np.array([len(packed.nodes)], dtype="int32")
    with pytest.raises(ValueError, match="root outside the nodes"):
        TreeEnsemble(packed.nodes, roots, packed.base).check(n_features=6)
