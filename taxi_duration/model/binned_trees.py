"""Small trees over binned features: many rows meet a tree at once, as columns of bytes.

A booster splits a feature at no more than 255 values, so a byte can tell a row's value: how many
of them are not above it. Whether 32 rows go left at a split is then a handful of instructions,
and no walk waits for memory. The answers are those of the walk, to the bit: a leaf is found in
another way, and its value is added in the same order.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

SIDE = 32  # rows that meet a tree at once: the bytes of one of an x86's registers
MAX_CUTS = 255  # of a feature: what a byte counts
# Rows that are walked before the bytes' trees are made, which costs as much as some thousand walks.
# Those that are there answer 32 rows and more in less than half the time of walks.
MIN_ROWS = 2048
COLUMN_BYTES = 2 * SIDE  # of a feature, see `bin_trees`

# A split of a tree: where its mask and its left child's lie (the right one's is the next), and
# its feature's bytes; rows go left whose byte is below `cut`; the leaves of its piece that lie
# below its left child, or the pieces where it is above them.
SPLIT = np.dtype(
    [("at", "<u2"), ("left", "<u2"), ("column", "<u2"), ("cut", "i1"), ("leaves", "u1")]
)
LEAF = -1
PIECE_LEAVES = 256  # what a byte numbers: a larger tree is made of pieces
PLACE = ("root", "split", "n_top", "n_inner", "n_splits", "leaf", "piece")


@dataclass(frozen=True)
class BinnedTrees:
    """An ensemble's t trees over binned features.

    Args:
        cuts: where each of k features is split, rising, float32 of shape (k, 255), NaN behind.
        splits: of all trees, dtype SPLIT; in a tree first those above its pieces, then those with
            a split below them, parents before children, then the others.
        values: of all leaves, from left to right in each tree, float32.
        pieces: first leaf in its tree of each piece of all trees, from left to right, int32.
        places: PLACE of each tree, int32 of shape (t, 7): its root where it is too large for
            bytes and is walked, else -1; its first split; how many there are of each kind; its
            first leaf and its first piece.
    """

    MAX_MASKS: ClassVar[int] = 2**16 // SIDE  # of a tree: their places fit 16 bits

    cuts: np.ndarray
    splits: np.ndarray
    values: np.ndarray
    pieces: np.ndarray
    places: np.ndarray


def bin_trees(nodes: np.ndarray, roots: np.ndarray) -> BinnedTrees | None:
    """Return trees over binned features; None where a feature has too many cuts for a byte.

    Args:
        nodes, roots: as `TreeEnsemble`, and checked.
    """
    inner = np.flatnonzero(nodes["left"] != LEAF)
    cuts = _cuts(nodes[inner])
    if cuts is None:
        return None
    shape = _shape(nodes["left"], roots)
    split, left, tree = nodes[inner], nodes["left"][inner], shape.tree[inner]
    is_top = shape.pieces[inner] > 1
    has_split = (nodes["left"][left] != LEAF) | (nodes["left"][left + 1] != LEAF)
    kind = np.where(is_top, 0, np.where(has_split, 1, 2))
    order = np.lexsort((inner, kind, tree))
    # A mask for the root, and two for each split's children, in the order of the splits.
    rank = np.arange(len(inner)) - np.searchsorted(tree[order], tree[order])
    mask = np.zeros(len(nodes), dtype="int64")
    mask[left[order]], mask[left[order] + 1] = 2 * rank + 1, 2 * rank + 2
    packed = np.empty(len(inner), dtype=SPLIT)
    packed["at"], packed["left"] = mask[inner] * SIDE % 2**16, mask[left] * SIDE % 2**16
    # A feature's first bytes put NaN above all cuts, its second ones below.
    packed["column"] = split["feature"] * COLUMN_BYTES + split["default_left"] * SIDE
    packed["cut"] = _cut_of(split, cuts) - 128
    packed["leaves"] = np.where(is_top, shape.pieces[left], shape.leaves[left]) % 256
    is_leaf = nodes["left"] == LEAF
    values = np.empty(np.count_nonzero(is_leaf), dtype="float32")
    values[shape.first_leaf[is_leaf]] = nodes["value"][is_leaf]
    counts = [np.bincount(tree[kind == k], minlength=len(roots)) for k in range(3)]
    places = _places(roots, counts, shape)
    return BinnedTrees(cuts, packed[order], values, _pieces(roots, shape), places)


class Binning:
    """Makes an ensemble's binned trees once its walks have cost as much; safe for threads.

    Args:
        nodes, roots: as `TreeEnsemble`, and checked.
    """

    def __init__(self, nodes: np.ndarray, roots: np.ndarray) -> None:
        self._nodes, self._roots = nodes, roots
        self._lock = threading.Lock()
        self._asked = 0
        self._made: BinnedTrees | None = None

    def __reduce__(self) -> tuple[type[Binning], tuple[np.ndarray, np.ndarray]]:
        return Binning, (self._nodes, self._roots)

    def trees_for(self, rows: int) -> BinnedTrees | None:
        """Return the binned trees for so many rows at once; None where those are to be walked."""
        if rows < SIDE:
            return None
        if self._asked < MIN_ROWS:
            with self._lock:
                if self._asked < MIN_ROWS <= self._asked + rows:
                    self._made = bin_trees(self._nodes, self._roots)
                self._asked += rows
        return self._made


class Shape(NamedTuple):
    """Of each node: its tree, the leaves and pieces below it, and the positions of the first."""

    tree: np.ndarray
    leaves: np.ndarray
    pieces: np.ndarray
    first_leaf: np.ndarray
    first_piece: np.ndarray


def _places(roots: np.ndarray, counts: list[np.ndarray], shape: Shape) -> np.ndarray:
    """Args: counts: splits of each kind in each tree."""
    splits = np.sum(counts, axis=0)
    masks = 2 * (counts[0] + counts[1]) + 1
    is_large = (masks > BinnedTrees.MAX_MASKS) | (shape.pieces[roots] > 256)
    columns = [
        np.where(is_large, roots, -1), np.cumsum(splits) - splits, *counts,
        shape.first_leaf[roots], shape.first_piece[roots],
    ]  # fmt: skip
    return np.column_stack(columns).astype("int32")


def _pieces(roots: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the first leaf in its tree of each piece."""
    # Of all nodes that are the first of a piece the highest one is its root: it has most leaves.
    whole = np.flatnonzero(shape.pieces == 1)
    whole = whole[np.argsort(shape.leaves[whole], kind="stable")]
    first = np.zeros(int(shape.pieces[roots].sum()), dtype="int32")
    first[shape.first_piece[whole]] = (
        shape.first_leaf[whole] - shape.first_leaf[roots[shape.tree[whole]]]
    )
    return first


def _shape(left: np.ndarray, roots: np.ndarray) -> Shape:
    levels, tree = [roots], np.empty(len(left), dtype="int64")
    tree[roots] = np.arange(len(roots))
    while len(inner := levels[-1][left[levels[-1]] != LEAF]):
        child = left[inner]
        tree[child] = tree[child + 1] = tree[inner]
        levels.append(np.concatenate([child, child + 1]))
    inners = [level[left[level] != LEAF] for level in levels]
    leaves, pieces = np.ones((2, len(left)), dtype="int64")
    for inner in reversed(inners):
        leaves[inner] = leaves[left[inner]] + leaves[left[inner] + 1]
        both = pieces[left[inner]] + pieces[left[inner] + 1]
        pieces[inner] = np.where(leaves[inner] > PIECE_LEAVES, both, 1)
    return Shape(tree, leaves, pieces, _firsts(leaves, left, roots, inners),
                 _firsts(pieces, left, roots, inners))  # fmt: skip


def _firsts(
    counts: np.ndarray, left: np.ndarray, roots: np.ndarray, inners: list[np.ndarray]
) -> np.ndarray:
    """Return the position, among all, of the first of what is counted below each node."""
    first = np.zeros(len(left), dtype="int64")
    first[roots] = np.cumsum(counts[roots]) - counts[roots]
    for inner in inners:
        # Within a piece nothing lies to the left: all of its nodes have the piece's own number.
        step = np.where(counts[inner] > 1, counts[left[inner]], 0)
        first[left[inner]], first[left[inner] + 1] = first[inner], first[inner] + step
    return first


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
