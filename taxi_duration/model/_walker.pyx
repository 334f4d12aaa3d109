# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Walks packed trees (see trees.py); single rides in microseconds, no thread pool."""

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t

# In C, for Cython has no vectors. On an x86 two forms are made, and the machine chooses.
import numpy as np

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
    #define WIDE __attribute__((target_clones("avx2", "default")))
    #else
    #define WIDE
    #endif
    #define SIDE 32  /* rows that meet a tree at once */
    #define MAX_CUTS 255

    /* GCC's and Clang's vectors: one of the processor's, or made of narrower ones. */
    typedef int8_t Bytes __attribute__((vector_size(SIDE), aligned(1), may_alias));
    #define BYTES(memory, at) (*(Bytes *)((memory) + (at)))

    typedef struct { uint16_t at, left, column; int8_t cut; uint8_t leaves; } Split;

    /* A tree of `BinnedTrees.places`. */
    typedef struct { int32_t root, split, n_top, n_inner, n_splits, leaf, piece; } Place;

    /* Add a tree's leaf values to out (SIDE,). A row's byte in the mask of a node is -1 while it
       is at the node, else 0. A piece's number is how many pieces of the tree lie to the left of
       it, a leaf's is how many leaves of its piece do. Splits come in the order of their kinds:
       above the pieces, with a split below them, with none. */
    WIDE static void add_binned(const Place *tree, const Split *split, const int32_t *pieces,
                                const float *values, const int8_t *bins, int8_t *masks,
                                float *out) {
        const Split *top = split + tree->n_top, *inner = top + tree->n_inner;
        const Split *end = inner + tree->n_splits;
        uint8_t leaf[SIDE], piece[SIDE];
        Bytes number = {0}, in = {0};
        BYTES(masks, 0) = ~number;
        for (; split < top; split++) {
            Bytes here = BYTES(masks, split->at);
            Bytes left = here & (BYTES(bins, split->column) < split->cut);
            BYTES(masks, split->left) = left;
            BYTES(masks, split->left + SIDE) = here ^ left;
            in += (here ^ left) & (int8_t)split->leaves;
        }
        for (; split < inner; split++) {
            Bytes here = BYTES(masks, split->at);
            Bytes left = here & (BYTES(bins, split->column) < split->cut);
            BYTES(masks, split->left) = left;
            BYTES(masks, split->left + SIDE) = here ^ left;
            number += (here ^ left) & (int8_t)split->leaves;
        }
        for (; split < end; split++)
            number -= BYTES(masks, split->at) & (BYTES(bins, split->column) >= split->cut);
        BYTES(leaf, 0) = number;
        BYTES(piece, 0) = in;
        if (tree->n_top)
            for (int j = 0; j < SIDE; j++) out[j] += values[pieces[piece[j]] + leaf[j]];
        else
            for (int j = 0; j < SIDE; j++) out[j] += values[leaf[j]];
    }

    /* Write how many of a feature's cuts are not above x, in SIDE bytes each: NaN is above all
       in the first SIDE, and below all in the second. The bytes are signed: one instruction less. */
    static void bin_column(const float *cuts, const float *rows,
                           Py_ssize_t stride, int n, int8_t *bins) {
        for (int j = 0; j < n; j++) {
            const float x = rows[j * stride];
            int below = 0;
            for (int step = 128; step; step >>= 1)
                below += cuts[below + step - 1] <= x ? step : 0;
            bins[j] = (int8_t)((x == x ? below : MAX_CUTS) - 128);
            bins[SIDE + j] = (int8_t)(below - 128);
        }
    }
    """
    ctypedef struct Split:
        pass
    ctypedef struct Place:
        int32_t root, split, leaf, piece
    enum:
        SIDE
    void add_binned(const Place*, const Split*, const int32_t*, const float*, const int8_t*, int8_t*, float*) noexcept nogil
    void bin_column(const float*, const float*, Py_ssize_t, int, int8_t*) noexcept nogil


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


def sum_binned(const Node[::1] nodes, trees, const float[:, ::1] rows, float[::1] out):
    """Add the leaf values of all trees, as `BinnedTrees`, to out: rows (n, k), out (n,)."""
    cdef const float[:, ::1] cuts = trees.cuts
    cdef const uint8_t[::1] splits = trees.splits.view("uint8")
    cdef const float[::1] values = trees.values
    cdef const int32_t[:, ::1] places = trees.places
    cdef const int32_t[::1] pieces = trees.pieces
    cdef int8_t[::1] bins = np.empty(2 * SIDE * cuts.shape[0], "int8")
    cdef int8_t[::1] masks = np.empty(trees.MAX_MASKS * SIDE, "int8")
    cdef Py_ssize_t start = 0, j, t, n = rows.shape[0], k = rows.shape[1]
    cdef const Split* split = <const Split*>&splits[0]
    cdef const Place* place
    cdef float[SIDE] sums
    cdef int size
    with nogil:
        while start < n:
            size = <int>min(<Py_ssize_t>SIDE, n - start)
            for j in range(cuts.shape[0]):
                bin_column(&cuts[j, 0], &rows[start, j], k, size, &bins[2 * SIDE * j])
            for j in range(size):
                sums[j] = out[start + j]
            for t in range(places.shape[0]):
                place = <const Place*>&places[t, 0]
                if place.root >= 0:
                    _add_tree(&nodes[0], place.root, &rows[start, 0], size, k, sums)
                else:
                    add_binned(place, split + place.split, &pieces[place.piece], &values[place.leaf], &bins[0], &masks[0], sums)
            for j in range(size):
                out[start + j] = sums[j]
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
