# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Walks packed trees (see trees.py); single rides in microseconds, no thread pool."""

from libc.math cimport isnan
from libc.stdint cimport int16_t, int32_t, uint8_t


cdef packed struct Node:
    float threshold
    float value
    int32_t left
    int16_t feature
    uint8_t default_left
    uint8_t pad


cdef inline int32_t _next(const Node* node, const float* row) noexcept nogil:
    cdef float x = row[node.feature]
    # The right child lies next to the left one, so that a step is one load and one add.
    if isnan(x):
        return node.left + (1 - node.default_left)
    return node.left + (not x < node.threshold)


def sum_leaves(const Node[::1] nodes, const int32_t[::1] roots, const float[:, ::1] rows, float[::1] out):
    """Add the leaf values of all trees to out: rows (n, k), out (n,)."""
    cdef Py_ssize_t i, t
    cdef int32_t at
    cdef float total
    cdef const Node* base = &nodes[0]
    with nogil:
        for i in range(rows.shape[0]):
            total = 0
            for t in range(roots.shape[0]):
                at = roots[t]
                while base[at].left >= 0:
                    at = _next(base + at, &rows[i, 0])
                total += base[at].value
            out[i] += total


def add_contributions(const Node[::1] nodes, const int32_t[::1] roots, const float[::1] row, double[::1] out):
    """Add each step's change of the node value to out (k,) at the feature that caused it."""
    cdef Py_ssize_t t
    cdef int32_t at, to
    cdef const Node* base = &nodes[0]
    with nogil:
        for t in range(roots.shape[0]):
            at = roots[t]
            while base[at].left >= 0:
                to = _next(base + at, &row[0])
                out[base[at].feature] += base[to].value - base[at].value
                at = to
