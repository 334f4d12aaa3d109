"""The compiled walker's face, for type checkers; `_walker.pyx` is the code."""

import numpy as np

from taxi_duration.model.binned_trees import BinnedTrees

class RideWalker:
    def __init__(self, nodes: np.ndarray, roots: np.ndarray) -> None: ...
    def sum_leaves(self, row: np.ndarray) -> float: ...

def sum_leaves(nodes: np.ndarray, roots: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None: ...
def sum_binned(
    nodes: np.ndarray, trees: BinnedTrees, rows: np.ndarray, out: np.ndarray
) -> None: ...
def add_contributions(
    nodes: np.ndarray, roots: np.ndarray, row: np.ndarray, out: np.ndarray
) -> None: ...
