"""The search for a scale of non-negative values, 32 runs at a time: how scales themselves are quantized by importance.

Bit-exact with ggml 0.25.3 (``make_qp_quants``), uncontracted float32. See ``_search`` for the tile and the lanes. It is written in
vectors, not in loops over lanes, for it becomes part of IQ2_XXS, too, and LLVM takes much longer to make vectors of loops.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, LANES, ONE, WIDE, ZERO, aligned, inline, kernel
from ...kernels.simd import as_ints, choose, lane_bits, load32, spread, store, to_floats
from ._search import TILE_SIZE, L, W, X, gather

_TENTH = np.float32(0.1)
_MAGIC = np.float32(12582912.0)
_MANTISSA, _BIAS = np.int32(0x7FFFFF), np.int32(0x400000)
_NONE, _BYTE = np.int32(0), np.int32(0xFF)


@kernel(vector_bits=WIDE)
def positive_runs(x, w, scales, levels, n, n_max):  # type: ignore[no-untyped-def]
    """Scale and levels for x ≈ scale · level with x ≥ 0, levels 0..n_max: ``make_qp_quants``.

    Parameters
    ----------
    x, w : float32[n_runs * n], values and weights; n up to 32
    scales : float32[n_runs], receives the scales
    levels : uint8[n_runs * n], receives the levels. The reference stores them as uint8, so that a negative one (from a
        negative x) wraps around; so do these.
    n_max : float32
    """
    tile, found = aligned(TILE_SIZE), np.empty(LANES, np.float32)
    n_runs = x.size // n
    for first in range(0, n_runs, LANES):
        store(found, 0, fit_positive(tile, x, w, first, n, n_max))
        for j in range(min(LANES, n_runs - first)):
            scales[first + j] = found[j]
            for i in range(n):
                levels[(first + j) * n + i] = np.uint8(np.int32(tile[L + i * LANES + j]))


@inline(vector_bits=WIDE)
def fit_positive(tile, x, w, first, n, n_max):  # type: ignore[no-untyped-def]
    """The scales of ``LANES`` runs from run ``first`` on, float32 lanes, 0 past the end; L of ``tile`` receives their levels."""
    gather(tile[X:], x, first, n)
    gather(tile[W:], w, first, n)
    high = spread(ZERO, load32(tile, X))
    for row in range(0, n * LANES, LANES):
        v = load32(tile, X + row)
        high = choose(v > high, v, high)
    inverse = _best_inverse(tile, high, n, n_max)
    top = spread(np.int32(n_max), as_ints(high))
    some = high >= EPSILON
    lx, ll = spread(ZERO, high), spread(ZERO, high)
    for row in range(0, n * LANES, LANES):
        u, v = load32(tile, W + row), load32(tile, X + row)
        level = _nearest(inverse * v)
        level = choose(level < top, level, top)
        level = choose(some, level, spread(_NONE, level))
        l = to_floats(level)
        store(tile, L + row, _as_uint8(level))
        lx = lx + (u * v) * l
        ll = ll + (u * l) * l
    for _ in range(5):
        changed = np.int64(0)
        for row in range(0, n * LANES, LANES):
            # each level moves to where the other levels want it
            u, v, l = load32(tile, W + row), load32(tile, X + row), load32(tile, L + row)
            rest_lx = lx - (u * v) * l
            rest_ll = ll - (u * l) * l
            level = _nearest((v * rest_ll) / rest_lx)
            level = choose(level < top, level, top)
            new = to_floats(level)
            new_lx = rest_lx + (u * v) * new
            new_ll = rest_ll + (u * new) * new
            better = (rest_lx > ZERO) & (rest_ll > ZERO) & (new != l) & some
            better = better & ((new_lx * new_lx) * ll > (lx * lx) * new_ll)
            store(tile, L + row, choose(better, _as_uint8(level), l))
            lx = choose(better, new_lx, lx)
            ll = choose(better, new_ll, ll)
            changed |= lane_bits(better)
        if changed == 0:
            break
    return choose((ll > ZERO) & some, lx / ll, spread(ZERO, ll))


@inline(vector_bits=WIDE)
def _best_inverse(tile, high, n, n_max):  # type: ignore[no-untyped-def]
    """The inverse of the scale with the least error of nine."""
    top = spread(np.int32(n_max), as_ints(high))
    inverse, best = n_max / high, spread(ZERO, high)
    scale = ONE / inverse
    for row in range(0, n * LANES, LANES):
        v = load32(tile, X + row)
        e = v - scale * _as_uint8(_nearest(inverse * v))
        best = best + (load32(tile, W + row) * e) * e
    for k in range(-4, 5):
        if k:
            trial = (np.float32(k) * _TENTH + n_max) / high
            scale = ONE / trial
            error = spread(ZERO, high)
            for row in range(0, n * LANES, LANES):
                v = load32(tile, X + row)
                level = _nearest(trial * v)
                e = v - scale * to_floats(choose(level < top, level, top))
                error = error + (load32(tile, W + row) * e) * e
            better = error < best
            best = choose(better, error, best)
            inverse = choose(better, trial, inverse)
    return inverse


@inline
def _nearest(v):  # type: ignore[no-untyped-def]
    """``rint_any`` of lanes."""
    return (as_ints(v + _MAGIC) & _MANTISSA) - _BIAS


@inline
def _as_uint8(level):  # type: ignore[no-untyped-def]
    """int32 lanes stored to uint8 and read back, as float32."""
    return to_floats(level & _BYTE)
