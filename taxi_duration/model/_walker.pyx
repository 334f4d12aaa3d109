# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Walks packed trees (see trees.py); single rides in microseconds, no thread pool."""

from libc.stdint cimport int16_t, int32_t, uint8_t


cdef packed struct Node:
    float threshold
    float value
    int32_t left
    int16_t feature
    uint8_t default_left
    uint8_t pad


cdef enum:
    WIDTH = 8  # walks side by side: one waits for memory while the others go on; twice as fast
    BLOCK_ROWS = 256  # rows that meet a tree while it is in the cache


cdef inline int32_t _next(const Node* node, const float* row) noexcept nogil:
    cdef float x = row[node.feature]
    # The right child lies next to the left one, and NaN (x != x) goes the default way: no branch.
    return node.left + ((not x < node.threshold) & ((x == x) | (not node.default_left)))


cdef inline int32_t _leaf(const Node* base, int32_t at, const float* row) noexcept nogil:
    while base[at].left >= 0:
        at = _next(base + at, row)
    return at


cdef inline void _leaves(const Node* base, int32_t* at, const float* rows, Py_ssize_t stride) noexcept nogil:
    """Take WIDTH walks from at[j] to their leaves; walk j reads the row at rows + j * stride."""
    cdef Py_ssize_t j
    cdef int32_t to
    cdef bint moved = True
    while moved:
        moved = False
        for j in range(WIDTH):
            to = _next(base + at[j], rows + j * stride)
            moved |= base[at[j]].left >= 0
            at[j] = to if base[at[j]].left >= 0 else at[j]


cdef class RideWalker:
    """Sums the leaves that one ride falls into; keeps hold of the nodes between rides."""

    cdef const Node[::1] nodes
    cdef const int32_t[::1] roots

    def __init__(self, nodes, roots):
        self.nodes = nodes
        self.roots = roots

    def sum_leaves(self, const float[::1] row):
        """Return the sum of the leaf values, in the order of the trees, for a row of shape (k,)."""
        cdef Py_ssize_t t = 0, j, n = self.roots.shape[0]
        cdef int32_t at[WIDTH]
        cdef float total = 0
        cdef const Node* base = &self.nodes[0]
        while t + WIDTH <= n:
            for j in range(WIDTH):
                at[j] = self.roots[t + j]
            _leaves(base, at, &row[0], 0)
            for j in range(WIDTH):
                total += base[at[j]].value
            t += WIDTH
        for j in range(t, n):
            total += base[_leaf(base, self.roots[j], &row[0])].value
        return total


cdef void _add_tree(const Node* base, int32_t root, const float* rows, Py_ssize_t n, Py_ssize_t k, float* out) noexcept nogil:
    """Add one tree's leaf values to out (n,) for rows (n, k)."""
    cdef Py_ssize_t i = 0, j
    cdef int32_t at[WIDTH]
    while i + WIDTH <= n:
        for j in range(WIDTH):
            at[j] = root
        _leaves(base, at, rows + i * k, k)
        for j in range(WIDTH):
            out[i + j] += base[at[j]].value
        i += WIDTH
    for j in range(i, n):
        out[j] += base[_leaf(base, root, rows + j * k)].value


def sum_leaves(const Node[::1] nodes, const int32_t[::1] roots, const float[:, ::1] rows, float[::1] out):
    """Add the leaf values of all trees to out: rows (n, k), out (n,)."""
    cdef Py_ssize_t start = 0, size, t, n = rows.shape[0], k = rows.shape[1]
    with nogil:
        while start < n:
            size = min(<Py_ssize_t>BLOCK_ROWS, n - start)
            for t in range(roots.shape[0]):
                _add_tree(&nodes[0], roots[t], &rows[start, 0], size, k, &out[start])
            start += size


cdef void _add_steps(const Node* base, int32_t at, const float* row, double* out) noexcept nogil:
    """Add each step's change of the node value to out (k,) at the feature that caused it."""
    cdef int32_t to
    while base[at].left >= 0:
        to = _next(base + at, row)
        out[base[at].feature] += base[to].value - base[at].value
        at = to


def add_contributions(const Node[::1] nodes, const int32_t[::1] roots, const float[:, ::1] rows, double[:, ::1] out):
    """Add what each feature contributes to out (n, k): rows (n, k)."""
    cdef Py_ssize_t start = 0, stop, t, i, n = rows.shape[0]
    with nogil:
        while start < n:
            stop = min(<Py_ssize_t>(start + BLOCK_ROWS), n)
            for t in range(roots.shape[0]):
                for i in range(start, stop):
                    _add_steps(&nodes[0], roots[t], &rows[i, 0], &out[i, 0])
            start = stop
