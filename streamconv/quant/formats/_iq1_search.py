"""What IQ1_S and IQ1_M share: sorting sub-blocks in lanes, and putting their levels on the grid.

Both formats round a sub-block to three levels. Sorted, its weights fall into three runs, and all ways to cut them are tried. Sums
over runs are differences of prefix sums in sorted order, so a sort is all that is needed of the weights. Here it is done by
counting for every weight how many come before it, which has no branches and equals a stable sort.

Layout: tiles as in ``lanes``, one sub-block per lane; the search of a lane ends with two cuts, a scale, and one shift for
every eight weights.
Source: ggml-quants.c, ``quantize_row_iq1_s_impl``, ``quantize_row_iq1_m_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, LANES, ONE, ZERO, clamp, inline, magnitude, rint_any
from ...kernels.simd import as_floats, as_ints, choose, first_bit, lane_bits, load32, spread, store, to_floats
from ._grids import KEYS
from ._iq_lanes import W, X
from ._iq_nearest import MAX, POINT, nearest8

EIGHTH = np.float32(0.125)
STEPS = np.float32(15)
_HIGHEST = np.int32(7)
_ABS = np.int32(0x7FFFFFFF)
_NONE, _HALFWAY, _FULL = np.int32(0), np.int32(1), np.int32(2)

#: rows of regs, after those of ``_iq_lanes``: largest magnitude, scale, score, which cuts (-1 for none), and the shifts of four
#: groups of eight weights
LARGEST, SCALE, SCORE, CUT = (k * LANES for k in range(1, 5))
SHIFT = 5 * LANES
REGS_SIZE = 9 * LANES
#: rows of picks: ranks of the weights; the places where level 1 and level 2 begin; keys and then points of four groups, and the
#: levels of these points; how many groups were off the grid. After them, which groups these are
RANK, FIRST, SECOND = 0, 32 * LANES, 33 * LANES
POINTS, LEVELS, MOVED = 34 * LANES, 38 * LANES, 42 * LANES
_OFF = 43 * LANES
PICKS_SIZE = 47 * LANES


@inline
def rank(tile, picks, n):  # type: ignore[no-untyped-def]
    """RANK of each of ``n`` weights = its place in ascending order; equals keep their order."""
    for i in range(n):
        x = load32(tile, X + i * LANES)
        before = spread(_NONE, x)
        for k in range(i):
            before = choose(load32(tile, X + k * LANES) <= x, before + _HALFWAY, before)
        for k in range(i + 1, n):
            before = choose(load32(tile, X + k * LANES) < x, before + _HALFWAY, before)
        store(picks, RANK + i * LANES, before)


@inline
def start_search(tile, regs, n):  # type: ignore[no-untyped-def]
    """LARGEST, and the values that hold until something fits."""
    for j in range(LANES):
        regs[LARGEST + j] = ZERO
    for row in range(0, n * LANES, LANES):
        for j in range(LANES):
            v = magnitude(tile[X + row + j])
            largest = regs[LARGEST + j]
            regs[LARGEST + j] = largest if largest > v else v
    for j in range(LANES):
        regs[SCALE + j] = regs[LARGEST + j]
        regs[SCORE + j] = -MAX
        regs[CUT + j] = -ONE


@inline
def keep_better(regs, j, a, b, cut):  # type: ignore[no-untyped-def]
    """Take the scale a / b and ``cut`` in lane ``j`` where it fits better: where a² / b is larger."""
    scale, score, old = regs[SCALE + j], regs[SCORE + j], regs[CUT + j]
    better = (b > ZERO) & (a * a > score * b)
    scale = a / b if better else scale
    regs[SCALE + j] = scale
    regs[SCORE + j] = scale * a if better else score
    regs[CUT + j] = cut if better else old


@inline
def place(grid, group, tile, regs, picks, n, live):  # type: ignore[no-untyped-def]
    """Put the levels of all lanes on the grid.

    Parameters
    ----------
    grid, group : table of the grid, and float32[16]
    tile, n : X and W of ``n`` weights
    regs : SCALE, where it is negative levels are mirrored; and SHIFT, already mirrored. SCALE becomes positive, fitted to the
        points unless all levels were on the grid; 0 in lanes that are not live
    picks : RANK, FIRST and SECOND; receives POINTS and LEVELS, point 0 in lanes that are not live
    live : int64, bits of the lanes that have levels

    Returns
    -------
    lane : int64, the first one where sums overflow, so that no point is at a finite distance or the scale is NaN: the reference
        terminates there; 64 for none
    """
    _make_keys(regs, picks, n)
    failed = _find_points(grid, group, tile, regs, picks, n, live)
    scale = load32(regs, SCALE)
    size = as_floats(as_ints(scale) & _ABS)
    a, b = spread(ZERO, scale), spread(ZERO, scale)
    for g in range(n // 8):
        levels = load32(picks, LEVELS + g * LANES)
        lowest = load32(regs, SHIFT + g * LANES) - ONE
        for row in range(8 * g * LANES, 8 * (g + 1) * LANES, LANES):
            q, levels = next_value(levels, lowest)
            w = load32(tile, W + row)
            a = a + w * q * load32(tile, X + row)
            b = b + w * q * q
    fitted = (load32(picks, MOVED) > _NONE) & (a > ZERO) & (b > ZERO)
    size = choose(fitted, a / b, size)
    store(regs, SCALE, size)
    for j in range(LANES):
        regs[SCALE + j] = regs[SCALE + j] if live >> j & 1 else ZERO
    return first_bit(failed | live & ~lane_bits(size >= ZERO))


@inline
def next_value(levels, lowest):  # type: ignore[no-untyped-def]
    """What the next coordinate of points stands for, float32 lanes, and the ``levels`` after it."""
    return lowest + to_floats(levels >> _HALFWAY & np.int32(3)), levels >> np.int32(3)


@inline
def _make_keys(regs, picks, n):  # type: ignore[no-untyped-def]
    """POINTS = keys of the groups."""
    first, second = load32(picks, FIRST), load32(picks, SECOND)
    mirrored = load32(regs, SCALE) < ZERO
    middle = spread(_HALFWAY, first)
    low = choose(mirrored, middle + middle, middle - middle)
    high = middle + middle - low
    for g in range(n // 8):
        key = middle - middle
        for i in range(8 * g + 7, 8 * g - 1, -1):
            at = load32(picks, RANK + i * LANES)
            key = key + key + key + choose(at >= second, high, choose(at >= first, middle, low))
        store(picks, POINTS + g * LANES, key)


@inline
def _find_points(grid, group, tile, regs, picks, n, live):  # type: ignore[no-untyped-def]
    """POINTS from keys, LEVELS and MOVED; returns bits of the lanes where a group has none."""
    n_off = np.int64(0)
    for j in range(LANES):
        picks[MOVED + j] = 0
    for k in range(n // 8 * LANES):
        start = grid[KEYS + picks[POINTS + k]]
        alive = live >> k % LANES & 1
        moves = alive & ~grid[start] & 1
        picks[_OFF + n_off] = k
        n_off += moves
        picks[MOVED + k % LANES] += moves
        point = np.int32((grid[start + 1] & POINT) * alive)
        picks[POINTS + k] = start if moves else point
        picks[LEVELS + k] = grid[point]
    failed = np.int64(0)
    for off in range(n_off):
        k = picks[_OFF + off]
        j = k % LANES
        row = k // LANES * 8 * LANES + j
        for i in range(8):
            group[i], group[8 + i] = tile[X + row + i * LANES], tile[W + row + i * LANES]
        size = magnitude(regs[SCALE + j])
        point = nearest8(grid, picks[POINTS + k], group, 0, 8, size, regs[SHIFT + k] - ONE, ONE)
        failed |= np.int64(point < 0) << j
        picks[POINTS + k] = point
        picks[LEVELS + k] = grid[point]
    return failed


@inline
def round_scales(scales, levels):  # type: ignore[no-untyped-def]
    """The largest scale, and the 3-bit ``levels`` of all: scale ≈ largest / 15 · (2 · level + 1), 0 where the largest is 0."""
    top = ZERO
    for sub in range(len(scales)):
        top = top if top > scales[sub] else scales[sub]
    inverse = ONE / (top / STEPS)
    for sub in range(len(scales)):
        levels[sub] = clamp(rint_any(HALF * (inverse * scales[sub] - ONE)), np.int32(0), _HIGHEST) if top != ZERO else 0
    return top
