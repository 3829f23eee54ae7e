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
from ._grids import KEYS
from ._iq_lanes import W, X
from ._iq_nearest import MAX, POINT, level_value, nearest8

EIGHTH = np.float32(0.125)
_STEPS = np.float32(15)
_HIGHEST = np.int32(7)
_CHUNK = 8

#: rows of regs, after those of ``_iq_lanes``: largest magnitude, scale, score, and which cuts (-1 for none)
LARGEST, SCALE, SCORE, CUT = (k * LANES for k in range(1, 5))
REGS_SIZE = 5 * LANES


@inline
def rank(tile, ranks, n):  # type: ignore[no-untyped-def]
    """``ranks[i * LANES + j]`` = place of weight ``i`` of lane ``j`` in ascending order; equals keep their order."""
    for i in range(n):
        for j in range(LANES):
            ranks[i * LANES + j] = 0
        for first in range(0, n, _CHUNK):
            for j in range(LANES):
                x = tile[X + i * LANES + j]
                before = ranks[i * LANES + j]
                for k in range(first, first + _CHUNK):
                    other = tile[X + k * LANES + j]
                    before += np.int32((other < x) | ((other == x) & (k < i)))
                ranks[i * LANES + j] = before


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
def place(grid, group, tile, ranks, j, n, cuts, scale, shifts, points, at):  # type: ignore[no-untyped-def]
    """Put the levels of lane ``j`` on the grid.

    Parameters
    ----------
    grid, group : table of the grid, and float32[16]
    tile, ranks, j, n : X, W and ranks of ``n`` weights in lane ``j``
    cuts : two places in sorted order, where level 1 and level 2 begin
    scale : float32, levels are mirrored when it is negative
    shifts : float32[n // 8], shift of each group of eight, already mirrored
    points : int32, receives point numbers from ``at`` on; the first is -1 where sums overflow, so that no point is at a finite
        distance or the scale is NaN: the reference terminates there

    Returns
    -------
    scale : float32, positive; fitted to the points unless all levels were on the grid
    """
    size = magnitude(scale)
    a, b = ZERO, ZERO
    moved, found = False, True
    for g in range(n // 8):
        key = np.int32(0)
        for i in range(7, -1, -1):
            row = (8 * g + i) * LANES + j
            level = np.int32(ranks[row] >= cuts[0]) + np.int32(ranks[row] >= cuts[1])
            key = np.int32(3 * key + (2 - level if scale < ZERO else level))
            group[i], group[8 + i] = tile[X + row], tile[W + row]
        start = grid[KEYS + key]
        point = np.int32(grid[start + 1] & POINT)
        if not grid[start] & 1:
            moved = True
            point = nearest8(grid, start, group, 0, 8, size, shifts[g] - ONE, ONE)
            found &= point >= 0
        points[at + g] = point
        for i in range(8):
            q = level_value(grid[point], i, 8, shifts[g] - ONE, ONE)
            a += group[8 + i] * q * group[i]
            b += group[8 + i] * q * q
    size = a / b if moved and a > ZERO and b > ZERO else size
    if not found or not size >= ZERO:
        points[at] = -1
    return size


@inline
def round_scales(scales, levels):  # type: ignore[no-untyped-def]
    """Step of the scales of sub-blocks and their 3-bit ``levels``: scale ≈ step · (2 · level + 1); 0 for a zero block."""
    top = ZERO
    for sub in range(len(scales)):
        top = top if top > scales[sub] else scales[sub]
    d = top / _STEPS
    inverse = ONE / d
    for sub in range(len(scales)):
        levels[sub] = clamp(rint_any(HALF * (inverse * scales[sub] - ONE)), np.int32(0), _HIGHEST) if top != ZERO else 0
    return d if top != ZERO else ZERO
