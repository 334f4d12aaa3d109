"""Sums of columns by key, such as what the trips of one pair add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROW_BITS = 20  # of a row's number beside its key: a batch has at most a million rows


@dataclass(frozen=True)
class KeyedSums:
    """Sums of k columns.

    Args:
        keys: int32, each once, rising, shape (m,).
        values: shape (m, k).
    """

    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def joined(cls, some: Sequence[KeyedSums]) -> KeyedSums:
        """Add sums up; at least one of them."""
        if len(some) == 1:
            return some[0]
        keys = all_keys(some)
        dtype = min((each.values.dtype for each in some), key=lambda dtype: dtype.itemsize)
        values = np.zeros((len(keys), some[0].values.shape[1]), dtype)
        for each in some:
            values[np.searchsorted(keys, each.keys)] += each.values
        return cls(keys, values)

    def scaled(self, factors: np.ndarray) -> KeyedSums:
        """Return sums of the columns times as many factors."""
        return KeyedSums(self.keys, self.values * factors.astype(self.values.dtype))


def all_keys(some: Sequence[KeyedSums]) -> np.ndarray:
    """Return the keys of some sums, each once, rising."""
    # numpy's own `unique` hashes: ten times as long as sorting.
    keys = np.sort(np.concatenate([each.keys for each in some]))
    return keys[_starts(keys)]


def _starts(keys: np.ndarray) -> np.ndarray:
    """Return where runs of equal keys begin."""
    return np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.arange(0)


def order_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted keys and the rows in that order, int64 of shape (n,) each.

    Key and row are sorted as one number: half the time of `argsort`.

    Args:
        keys: int64, not negative, shape (n,), n <= 2 ** ROW_BITS.
    """
    packed = np.sort((keys << ROW_BITS) | np.arange(len(keys)))
    return packed >> ROW_BITS, packed & ((1 << ROW_BITS) - 1)


def sum_runs(keys: np.ndarray, columns: Sequence[np.ndarray]) -> KeyedSums:
    """Add up columns, each of shape (n,), over runs of equal keys, sorted, shape (n,)."""
    starts = _starts(keys)
    values = np.empty((len(starts), len(columns)))
    if len(keys):
        for place, column in enumerate(columns):
            values[:, place] = np.add.reduceat(column, starts, dtype="float64")
    return KeyedSums(keys[starts].astype("int32"), values)
