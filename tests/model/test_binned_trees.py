"""Rows that meet trees side by side get the sums of the walk, to the bit."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from taxi_duration.model import binned_trees, trees
from taxi_duration.model.binned_trees import (
    LEAF,
    MAX_CUTS,
    MIN_ROWS,
    PIECE_LEAVES,
    PLACE,
    SIDE,
    bin_trees,
)
from taxi_duration.model.trees import NODE, TreeEnsemble

needs_walker = pytest.mark.skipif(trees._walker is None, reason="the walker is not compiled")
FEATURES = 3


def grow(sizes, cuts, seed=0):
    """Trees with so many splits each, over FEATURES features; their nodes lie mixed."""
    rng = np.random.default_rng(seed)
    nodes = np.zeros(sum(2 * n + 1 for n in sizes), dtype=NODE)
    nodes["left"], nodes["value"] = LEAF, rng.normal(size=len(nodes))
    roots = np.arange(len(sizes), dtype="int32")
    ends, left = [[root] for root in roots], list(sizes)
    at = len(roots)
    while any(left):
        t = rng.choice(np.flatnonzero(left))
        node = ends[t].pop(rng.integers(len(ends[t])))
        feature = rng.integers(FEATURES)
        nodes[node] = rng.choice(cuts), nodes[node]["value"], at, feature, rng.integers(2), 0
        ends[t] += [at, at + 1]
        at, left[t] = at + 2, left[t] - 1
    ensemble = TreeEnsemble(nodes, roots, 3.0)
    ensemble.check(FEATURES)
    return ensemble


def rows_about(cuts, n):
    """Rows that lie on cuts, between them, beyond them, and nowhere."""
    edges = np.concatenate([cuts, np.nextafter(cuts, np.float32(9)), [np.nan, np.inf, -np.inf]])
    return np.random.default_rng(1).choice(edges.astype("float32"), size=(n, FEATURES))


def compare(ensemble, binned, rows):
    walked, summed = np.ones((2, len(rows)), dtype="float32")
    trees._walker.sum_leaves(ensemble.nodes, ensemble.roots, rows, walked)
    trees._walker.sum_binned(ensemble.nodes, binned, rows, summed)
    np.testing.assert_array_equal(summed, walked)


CUTS = np.linspace(-2, 2, MAX_CUTS, dtype="float32")


@needs_walker
@pytest.mark.parametrize("n", [1, SIDE - 1, SIDE, 20 * SIDE + 5])
@pytest.mark.parametrize(
    "sizes",
    [[0], [0, 0, 1], [1, 2, 3, 40], [255, 7, 255], [256, 3, 400, 257, 900], [3, 3000, 20]],
    ids=["a leaf", "leaves", "small", "as large as a byte", "in pieces", "too large"],
)
def test_sums_are_those_of_the_walk(sizes, n):
    ensemble = grow(sizes, CUTS)
    binned = bin_trees(ensemble.nodes, ensemble.roots)
    assert (binned.places[:, PLACE.index("root")] >= 0).tolist() == [n == 3000 for n in sizes]
    in_pieces = binned.places[:, PLACE.index("n_top")] > 0
    assert in_pieces.tolist() == [n + 1 > PIECE_LEAVES for n in sizes]
    compare(ensemble, binned, rows_about(CUTS, n))


def chains(cuts):
    """Two trees that split one feature, at every second cut each."""
    parts = [cuts[::2], cuts[1::2]]
    starts = [0, 2 * len(parts[0]) + 1]
    nodes = np.zeros(starts[1] + 2 * len(parts[1]) + 1, dtype=NODE)
    nodes["left"], nodes["value"] = LEAF, np.arange(len(nodes))
    for start, part in zip(starts, parts, strict=True):
        inner = start + np.concatenate([[0], 2 * np.arange(1, len(part))])
        nodes["left"][inner] = start + 2 * np.arange(len(part)) + 1
        nodes["threshold"][inner] = part
    ensemble = TreeEnsemble(nodes, np.array(starts, dtype="int32"), 0.0)
    ensemble.check(FEATURES)
    return ensemble


@needs_walker
def test_all_values_that_a_byte_can_tell_are_told_apart():
    ensemble = chains(CUTS)
    binned = bin_trees(ensemble.nodes, ensemble.roots)
    assert (binned.places[:, 0] == -1).all()
    compare(ensemble, binned, rows_about(CUTS, 5000))


def test_feature_with_more_cuts_than_a_byte_tells_is_not_binned():
    ensemble = chains(np.linspace(-2, 2, MAX_CUTS + 1, dtype="float32"))
    assert bin_trees(ensemble.nodes, ensemble.roots) is None


@pytest.fixture
def summed(monkeypatch):
    """How many rows were summed by bytes, in each call; the others were walked."""
    asked, whole = [], trees._walker.sum_binned
    counted = type("Walker", (), {
        "sum_leaves": trees._walker.sum_leaves,
        "sum_binned": lambda *args: (asked.append(len(args[2])), whole(*args))[1],
    })  # fmt: skip
    monkeypatch.setattr(trees, "_walker", counted)
    return asked


@needs_walker
def test_many_rows_are_summed_by_bytes_and_few_are_walked(summed):
    ensemble, rows = grow([3, 20], CUTS), rows_about(CUTS, MIN_ROWS)
    walked = np.concatenate([ensemble.predict(rows[:-1]), ensemble.predict(rows[-1:])])
    assert summed == []
    many = ensemble.predict(rows)
    assert summed == [MIN_ROWS]
    np.testing.assert_array_equal(many, walked)


@needs_walker
def test_trees_by_bytes_that_are_there_answer_few_rows_too_but_not_single_rides(summed):
    ensemble, rows = grow([3, 20], CUTS), rows_about(CUTS, MIN_ROWS)
    ensemble.predict(rows)
    few = [ensemble.predict(rows[: SIDE - 1]), ensemble.predict(rows[SIDE - 1 : 2 * SIDE - 1])]
    assert summed == [MIN_ROWS, SIDE]
    np.testing.assert_array_equal(np.concatenate(few), ensemble.predict(rows)[: 2 * SIDE - 1])


@needs_walker
def test_trees_by_bytes_are_made_once_their_walks_have_cost_as_much(summed):
    ensemble, rows = grow([3, 20], CUTS), rows_about(CUTS, MIN_ROWS // 2)
    for _ in range(MIN_ROWS):  # of a page's few rides: their walks stay cheaper for good
        ensemble.predict(rows[: SIDE - 1])
    assert ensemble.predict(rows).tolist() == ensemble.predict(rows).tolist()
    assert summed == [len(rows)]


def test_of_many_threads_one_makes_the_trees_and_all_get_them(monkeypatch):
    ensemble, made, make = grow([3, 20], CUTS), [], binned_trees.bin_trees
    monkeypatch.setattr(
        binned_trees, "bin_trees", lambda *args: (made.append(make(*args)), made[-1])[1]
    )
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ensemble._binning.trees_for, [MIN_ROWS] * 64))
    assert len(made) == 1 and all(trees_ is made[0] for trees_ in found)


@needs_walker
def test_an_ensemble_that_has_answered_is_sent_to_another_process(summed):
    ensemble, rows = grow([3, 20], CUTS), rows_about(CUTS, MIN_ROWS)
    sent = pickle.loads(pickle.dumps((ensemble.predict(rows), ensemble)))
    np.testing.assert_array_equal(sent[0], sent[1].predict(rows))


@needs_walker
def test_forest_with_too_many_cuts_is_walked(monkeypatch):
    ensemble = grow([2000, 2000], np.linspace(-2, 2, 2000, dtype="float32"))
    rows = rows_about(CUTS, MIN_ROWS)
    many = ensemble.predict(rows)
    monkeypatch.setattr(trees, "_walker", None)
    np.testing.assert_array_equal(many, ensemble.predict(rows))
