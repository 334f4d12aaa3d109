"""Packs fitted trees of other libraries into ours."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from taxi_duration.model.trees import NODE, TreeEnsemble

# How a booster says that its last trees, so many, may fall with the distance; together by no more
# than twice these minutes (see `boost`).
FREE_TREES = "free_trees"
FREE_MINUTES = 0.45


def from_xgboost(booster: Any) -> TreeEnsemble:
    """Pack a trained regression booster (numeric splits, one output)."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    free = int(learner["attributes"].get(FREE_TREES, 0))
    trees = learner["gradient_booster"]["model"]["trees"]
    parts = [
        _pack(
            np.array(tree["left_children"]),
            np.array(tree["right_children"]),
            np.array(tree["split_indices"]),
            np.array(tree["split_conditions"], dtype="float32"),
            np.array(tree["default_left"]),
            _node_means(tree),
        )
        for tree in trees
    ]
    if not free:
        return _join(parts, base)
    return replace(
        _join(parts[:-free], base), bounded=_join(parts[-free:], 0.0), bound=FREE_MINUTES
    )


def from_forest(forest: Any) -> TreeEnsemble:
    """Pack a scikit-learn RandomForestRegressor fitted on `without_missing` rows.

    The forest's mean becomes a sum.
    """
    parts = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        parts.append(
            _pack(
                tree.children_left,
                tree.children_right,
                tree.feature,
                _just_above(tree.threshold),
                np.ones(len(tree.feature)),  # what is lowest goes left
                (tree.value[:, 0, 0] / len(forest.estimators_)).astype("float32"),
            )
        )
    return _join(parts, 0.0)


def without_missing(rows: np.ndarray) -> np.ndarray:
    """Return rows in which values that are not known are lower than all others.

    scikit-learn's forests take no missing values where answers may only rise with a feature.
    """
    return np.where(np.isnan(rows), np.finfo("float32").min, rows)


def _node_means(tree: dict[str, Any]) -> np.ndarray:
    """Leaf values, and in inner nodes the hessian-weighted mean of the leaves below."""
    left, right = tree["left_children"], tree["right_children"]
    value = list(tree["split_conditions"])
    weight = [max(w, 1e-12) for w in tree["sum_hessian"]]
    for node in range(len(left) - 1, -1, -1):  # children always come after their parent
        if left[node] >= 0:
            i, j = left[node], right[node]
            value[node] = (value[i] * weight[i] + value[j] * weight[j]) / (weight[i] + weight[j])
    return np.array(value, dtype="float32")


def _pack(left, right, feature, threshold, default_left, value) -> np.ndarray:
    """One tree's nodes in breadth-first order, children side by side, shape (m,)."""
    order, child = [0], np.full(len(left), -1)
    for node in order:  # grows while it is read
        if left[node] >= 0:
            child[node] = len(order)
            order += [left[node], right[node]]
    nodes = np.zeros(len(order), dtype=NODE)
    nodes["left"] = child[order]
    nodes["feature"] = np.where(child[order] >= 0, np.asarray(feature)[order], 0)
    nodes["threshold"] = threshold[order]
    nodes["default_left"] = np.asarray(default_left)[order]
    nodes["value"] = value[order]
    return nodes


def _join(parts: list[np.ndarray], base: float) -> TreeEnsemble:
    sizes = np.array([len(part) for part in parts])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype("int32")
    nodes = np.concatenate(parts)
    shift = np.repeat(roots, sizes)
    nodes["left"] = np.where(nodes["left"] >= 0, nodes["left"] + shift, -1)
    return TreeEnsemble(nodes, roots, base)


def _just_above(threshold: np.ndarray) -> np.ndarray:
    """Return float32 t' such that x < t' where scikit-learn asks x <= t, t in float64."""
    rounded = threshold.astype("float32")
    down = np.nextafter(rounded, np.float32(-np.inf))
    at_most = np.where(rounded.astype("float64") > threshold, down, rounded)
    return np.nextafter(at_most, np.float32(np.inf), dtype="float32")
