"""Small trees over binned features: many rows meet a tree at once, as columns of bytes.

A booster splits a feature at no more than 255 values, so a byte can tell a row's value: how many
of them are not above it. Whether 32 rows go left at a split is then a handful of instructions,
and no walk waits for memory. The answers are those of the walk, to the bit: a leaf is found in
another way, and its value is added in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

SIDE = 32  # rows that meet a tree at once: the bytes of one of an x86's registers
MAX_CUTS = 255  # of a feature: what a byte counts
MIN_ROWS = 2048  # fewer are walked: making the bytes' trees costs as much as some thousand walks
COLUMN_BYTES = 2 * SIDE  # of a feature, see `bin_trees`

# A split of a tree: where its mask and its left child's lie (the right one's is the next), and
# its feature's bytes; rows go left whose byte is below `cut`; the leaves below its left child.
SPLIT = np.dtype(
    [("at", "<u2"), ("left", "<u2"), ("column", "<u2"), ("cut", "i1"), ("leaves", "u1")]
)
LEAF = -1


@dataclass(frozen=True)
class BinnedTrees:
    """An ensemble's t trees as bytes see them.

    Args:
        cuts: where each of k features is split, rising, float32 of shape (k, 255), NaN behind.
        splits: of all trees, dtype SPLIT; in a tree those with a split below them come first,
            parents before children.
        values: of all leaves, from left to right in each tree, float32.
        places: of each tree, int32 of shape (t, 5): its root where it is too large for bytes and
            is walked, else -1; its first split; how many have a split below them; how many there
            are; its first leaf.
    """

    MAX_LEAVES: ClassVar[int] = 256  # of a tree: what a byte numbers

    cuts: np.ndarray
    splits: np.ndarray
    values: np.ndarray
    places: np.ndarray


def bin_trees(nodes: np.ndarray, roots: np.ndarray) -> BinnedTrees | None:
    """Return trees as bytes see them, None where a feature has too many cuts for a byte.

    Args:
        nodes, roots: as `TreeEnsemble`, and checked.
    """
    inner = np.flatnonzero(nodes["left"] != LEAF)
    cuts = _cuts(nodes[inner])
    if cuts is None:
        return None
    tree, leaves, first_leaf = _leaves(nodes["left"], roots)
    split, left, of_tree = nodes[inner], nodes["left"][inner], tree[inner]
    has_split = (nodes["left"][left] != LEAF) | (nodes["left"][left + 1] != LEAF)
    order = np.lexsort((inner, ~has_split, of_tree))
    # A mask for the root, and two for each split's children, in the order of the splits.
    rank = np.arange(len(inner)) - np.searchsorted(of_tree[order], of_tree[order])
    mask = np.zeros(len(nodes), dtype="int64")
    mask[left[order]], mask[left[order] + 1] = 2 * rank + 1, 2 * rank + 2
    packed = np.empty(len(inner), dtype=SPLIT)
    packed["at"], packed["left"] = mask[inner] * SIDE % 2**16, mask[left] * SIDE % 2**16
    # A feature's first bytes put NaN above all cuts, its second ones below.
    packed["column"] = split["feature"] * COLUMN_BYTES + split["default_left"] * SIDE
    packed["cut"], packed["leaves"] = _cut_of(split, cuts) - 128, leaves[left] % 256
    n_trees = len(roots)
    counts = [np.bincount(of_tree[some], minlength=n_trees) for some in (has_split, slice(None))]
    is_large = leaves[roots] > BinnedTrees.MAX_LEAVES
    places = [np.where(is_large, roots, -1), np.cumsum(counts[1]) - counts[1], *counts]
    values = np.empty(int(leaves[roots].sum()), dtype="float32")
    is_leaf = nodes["left"] == LEAF
    values[first_leaf[is_leaf]] = nodes["value"][is_leaf]
    places.append(first_leaf[roots])
    return BinnedTrees(cuts, packed[order], values, np.column_stack(places).astype("int32"))


def _leaves(left: np.ndarray, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each node's tree, how many leaves lie below it, and the position of the first."""
    levels, tree = [roots], np.empty(len(left), dtype="int64")
    tree[roots] = np.arange(len(roots))
    while len(inner := levels[-1][left[levels[-1]] != LEAF]):
        child = left[inner]
        tree[child] = tree[child + 1] = tree[inner]
        levels.append(np.concatenate([child, child + 1]))
    leaves, first = np.ones(len(left), dtype="int64"), np.zeros(len(left), dtype="int64")
    for level in reversed(levels):
        inner = level[left[level] != LEAF]
        leaves[inner] = leaves[left[inner]] + leaves[left[inner] + 1]
    first[roots] = np.cumsum(leaves[roots]) - leaves[roots]
    for level in levels:
        inner = level[left[level] != LEAF]
        first[left[inner]] = first[inner]
        first[left[inner] + 1] = first[inner] + leaves[left[inner]]
    return tree, leaves, first


def _cuts(splits: np.ndarray) -> np.ndarray | None:
    """Return each feature's thresholds, see `BinnedTrees`; None where they are too many."""
    n_features = int(splits["feature"].max(initial=0)) + 1
    cuts = np.full((n_features, MAX_CUTS), np.nan, dtype="float32")
    for feature in range(n_features):
        found = np.unique(splits["threshold"][splits["feature"] == feature])
        if len(found) > MAX_CUTS or n_features * COLUMN_BYTES > 2**16:
            return None
        cuts[feature, : len(found)] = found
    return cuts


def _cut_of(splits: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return how many of its feature's cuts are not above each split's own, 1 to 255."""
    cut = np.zeros(len(splits), dtype="int64")
    for feature in np.unique(splits["feature"]):
        of = splits["feature"] == feature
        cut[of] = np.searchsorted(cuts[feature], splits["threshold"][of]) + 1
    return cut
