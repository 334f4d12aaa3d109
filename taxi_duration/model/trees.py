"""Tree ensembles as packed nodes: one small predictor for boosted trees and forests.

A booster's own single-row call costs over half a millisecond of set-up whatever the
model; walking packed nodes costs the cache misses and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np

from taxi_duration.cores import usable_cores
from taxi_duration.model.binned_trees import LEAF, Binning

try:  # compiled when the package was installed with a C compiler at hand
    from taxi_duration.model import _walker
except ImportError:
    _walker = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# `value` is the leaf's value or, in an inner node, the mean of the training rows below it;
# `left` is -1 in a leaf, and the right child always lies at left + 1.
NODE = np.dtype(
    [
        ("threshold", "<f4"),
        ("value", "<f4"),
        ("left", "<i4"),
        ("feature", "<i2"),
        ("default_left", "u1"),
        ("pad", "u1"),
    ]
)
MAX_VALUE = 1e6  # minutes; sums of as many trees as fit into a bundle stay finite
MAX_DEPTH = 200  # steps of one walk; forests of ours take up to about 40
THREAD_ROWS = 5000  # rows for each thread; fewer are answered before a thread has started
MAX_THREADS = 4
BLOCK_ROWS = 4096  # rows walked together: their features stay in the cache


@dataclass(frozen=True)
class TreeEnsemble:
    """Trees whose leaf values add up to an answer.

    Args:
        nodes: all trees' nodes, dtype NODE, shape (m,).
        roots: position of each tree's root, int32, shape (t,).
        base: value every sum starts from.
        bounded: further trees, whose own sum is kept within -bound and bound; None for none.
    """

    nodes: np.ndarray
    roots: np.ndarray
    base: float
    bounded: TreeEnsemble | None = None
    bound: float = 0.0

    def check(self, n_features: int) -> None:
        """Make sure that every walk ends soon, in a number, and reads only nodes and features.

        The compiled walker trusts what it is given: wrong positions would read foreign memory.

        Args:
            n_features: length of the rows that the trees will see.
        Raises:
            ValueError: says what is wrong.
        """
        nodes, roots = self.nodes, self.roots
        left, feature = nodes["left"], nodes["feature"]
        inner = np.flatnonzero(left != LEAF)
        child = left[inner]
        # Children lie behind their parent, so no walk can go in a circle.
        if (child <= inner).any() or (child >= len(nodes) - 1).any():
            raise ValueError("trees have a node whose children are not where they must be")
        if (roots < 0).any() or (roots >= len(nodes)).any():
            raise ValueError("trees have a root outside the nodes")
        placed = np.zeros(len(nodes), dtype=bool)
        placed[roots] = placed[child] = placed[child + 1] = True
        if not placed.all() or len(roots) + 2 * len(child) != len(nodes):
            raise ValueError("trees have a node that is not in exactly one place of one tree")
        # Also in leaves: walks side by side look at theirs again until the last one ends.
        if (feature < 0).any() or (feature >= n_features).any():
            raise ValueError(f"trees ask for feature {feature.max()}; there are {n_features}")
        if (nodes["default_left"] > 1).any() or nodes["pad"].any():
            raise ValueError("trees have a node with a flag that is neither 0 nor 1")
        if np.isnan(nodes["threshold"]).any() or not (np.abs(nodes["value"]) <= MAX_VALUE).all():
            raise ValueError(f"trees have a number that is not one, or above {MAX_VALUE:g} minutes")
        if _depth(left, roots) > MAX_DEPTH:
            raise ValueError(f"trees have a leaf more than {MAX_DEPTH} steps from its root")
        if self.bounded is not None:
            if self.bounded.bounded is not None:
                raise ValueError("bounded trees have bounded trees themselves")
            self.bounded.check(n_features)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return float32 sums, shape (n,), for float32 features of shape (n, k)."""
        features = np.ascontiguousarray(features, dtype="float32")
        out = self._sum(features)
        if self.bounded is not None:
            bound = np.float32(self.bound)
            out += np.clip(self.bounded._sum(features), -bound, bound)
        return out + np.float32(self.base)

    def _sum(self, features: np.ndarray) -> np.ndarray:
        """Return the sums of the trees' leaves alone."""
        out = np.zeros(len(features), dtype="float32")
        if _walker is None:
            say_slower()
            for start in range(0, len(features), BLOCK_ROWS):
                block = features[start : start + BLOCK_ROWS]
                out[start : start + BLOCK_ROWS] = self._walk_numpy(block)
        else:
            self._walk_compiled(features, out)
        return out

    def contributions(self, features: np.ndarray) -> tuple[np.ndarray, float]:
        """Return what each feature added to each of n answers, and the value they started from.

        The change of the node mean at each split is credited to the split's feature (what
        XGBoost calls approximate contributions); the two parts sum to the answer.

        Args:
            features: float32, shape (n, k).
        Returns:
            float64 of shape (n, k), and the ensemble's mean answer.
        """
        rows = np.ascontiguousarray(features, dtype="float32")
        out, start = self._steps(rows)
        if self.bounded is not None:
            more, mean = self.bounded._steps(rows)
            total = more.sum(axis=1)
            kept = np.clip(total + mean, -self.bound, self.bound) - mean
            # What is cut off a sum is cut off each of its parts, in proportion.
            out += more * np.divide(kept, total, out=np.ones_like(total), where=total != 0)[:, None]
            start += mean
        return out, start + self.base

    def _steps(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the same of the trees alone."""
        out = np.zeros(rows.shape)
        if _walker is None:
            for start in range(0, len(rows), BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                self._contributions_numpy(rows[block], out[block])
        else:
            _walker.add_contributions(self.nodes, self.roots, rows, out)
        return out, float(self.nodes["value"][self.roots].sum(dtype="float64"))

    def _walk_compiled(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Add the leaf values to out; many rows are shared among the cores we may use."""
        binned = self._binning.trees_for(len(rows))
        if binned is None:
            walk = partial(_walker.sum_leaves, self.nodes, self.roots)
        else:
            walk = partial(_walker.sum_binned, self.nodes, binned)
        workers = min(usable_cores(), MAX_THREADS, len(rows) // THREAD_ROWS)
        if workers < 2:
            walk(rows, out)
            return
        parts = zip(np.array_split(rows, workers), np.array_split(out, workers), strict=True)
        with ThreadPoolExecutor(workers) as pool:  # the walker lets go of Python's lock
            list(pool.map(lambda part: walk(*part), parts))

    @cached_property
    def _binning(self) -> Binning:
        return Binning(self.nodes, self.roots)

    def _walk_numpy(self, rows: np.ndarray) -> np.ndarray:
        """Walk all trees level by level for all rows at once, shape (n,)."""
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        which = np.arange(len(rows))[:, None]
        while True:
            node = self.nodes[at]
            inner = node["left"] >= 0
            if not inner.any():
                # In the order of the trees, as the compiled walker adds: equal to the bit.
                return np.cumsum(node["value"], axis=1, dtype="float32")[:, -1]
            at = np.where(inner, _next(node, rows[which, node["feature"]]), at)

    def _contributions_numpy(self, rows: np.ndarray, out: np.ndarray) -> None:
        which = np.repeat(np.arange(len(rows)), len(self.roots))
        at = np.tile(self.roots, len(rows))
        while len(at):
            node = self.nodes[at]
            inner = node["left"] >= 0
            node, which = node[inner], which[inner]
            at = _next(node, rows[which, node["feature"]])
            np.add.at(out, (which, node["feature"]), self.nodes["value"][at] - node["value"])


class RideTrees:
    """The answer of an ensemble to one ride, bit for bit what `TreeEnsemble.predict` gives."""

    def __init__(self, trees: TreeEnsemble) -> None:
        self._base = np.float32(trees.base)
        self._sum = _sum_of_one(trees)
        self._bounded = None if trees.bounded is None else _sum_of_one(trees.bounded)
        self._bound = float(np.float32(trees.bound))

    def predict(self, row: np.ndarray) -> float:
        """Return the sum for float32 features of shape (k,)."""
        total = np.float32(self._sum(row))
        if self._bounded is not None:
            total += np.float32(min(max(self._bounded(row), -self._bound), self._bound))
        return float(total + self._base)


def _sum_of_one(trees: TreeEnsemble) -> Callable[[np.ndarray], float]:
    """Return what sums the leaves alone for one row of shape (k,)."""
    if _walker is None:
        say_slower()
        return lambda row: trees._walk_numpy(row[None])[0]
    sum_leaves: Callable[[np.ndarray], float] = _walker.RideWalker(
        trees.nodes, trees.roots
    ).sum_leaves
    return sum_leaves


def _depth(left: np.ndarray, roots: np.ndarray) -> int:
    """Return the steps to the farthest leaf, MAX_DEPTH + 1 for more; each node has one parent."""
    at, depth = left[roots], 0
    while depth <= MAX_DEPTH:
        at = at[at != LEAF]
        if not len(at):
            break
        at, depth = left[np.concatenate([at, at + 1])], depth + 1
    return depth


@cache
def say_slower() -> None:
    """Warn, once in a process, that trees are walked without the compiled walker."""
    log.warning(
        "the tree walker is not compiled: answers are the same, but a ride takes about ten times "
        "as long. Install a C compiler and Python's headers (Debian, Ubuntu: apt-get install gcc "
        "libc6-dev python3-dev), then run `make -B setup`"
    )


def _next(node: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Position of the child each value goes to; NaN goes the split's default way."""
    right = np.where(np.isnan(x), 1 - node["default_left"], ~(x < node["threshold"]))
    return node["left"] + right
