"""The grid point nearest to a group of weights, at one scale.

Squared distances of all neighbours of a key are looked up, approximately: as sums of two entries of tables that hold the sums of
the terms of either half. The terms are those of the reference; only the order of additions differs, so that a result is off
by a few units of 2^-24. When the best neighbour leads by more, it is the one the reference finds; otherwise distances are
computed as there.

Source: ggml-quants.c, ``iq2_find_best_neighbour``, ``iq3_find_best_neighbour``, ``iq1_find_best_neighbour2`` (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ZERO, inline, kernel
from ._grids import KEYS

MAX = np.float32(np.finfo(np.float32).max)
_INFINITY = np.float32(np.inf)
#: what the second has to exceed the first by
_LEAD = np.float32(1 + 2.0**-16)
#: mask of the point in an entry of a list of neighbours
POINT = np.int32(0xFFFF)
#: Levels that the 16 keys of a quarter (twice) stand for, lower and higher coordinate; 4 dimensions of 8 levels, 8 of 3 levels.
LOW_LEVEL = np.array([[0] * 32, [k % 16 % 3 for k in range(32)]], np.float32)
HIGH_LEVEL = np.array([[k % 16 for k in range(32)], [k % 16 // 3 for k in range(32)]], np.float32)

#: scratch: tables of both halves, and of the quarters that they are made from
_LOW, _HIGH, _QUARTERS = 0, 160, 320
SCRATCH_SIZE = 320 + 4 * LANES


@inline
def level_value(levels, i, dims, offset, spacing):  # type: ignore[no-untyped-def]
    """What coordinate ``i`` of a point stands for: ``offset + spacing · level``."""
    width = 24 // dims
    return offset + spacing * np.float32((levels >> i * width & (1 << width) - 1) >> 1)


@kernel
def nearest(grid, scratch, values, x, w, key, scale, offset, spacing, dims):  # type: ignore[no-untyped-def]
    """The neighbour of ``key`` with the least Σ w·(scale · level value - x)², the first of equals.

    Parameters
    ----------
    grid : int32, table of the grid
    scratch : float32[SCRATCH_SIZE]
    values : float32; the group's weights stand from ``values[x]`` on, their importance from ``values[w]`` on
    key : of a vector off the grid
    scale, offset, spacing : float32
    dims : of the grid

    Returns
    -------
    point : int32, -1 when none is at a finite distance
    """
    _fill_tables(scratch, values, x, w, scale, offset, spacing, dims)
    start = 1 - grid[KEYS + key]
    n = grid[start - 1]
    best, second = _INFINITY, _INFINITY
    winner = np.int32(0)
    for k in range(n):
        near = grid[np.uint64(start + k)]
        distance = scratch[_LOW + np.int64(near >> 16 & 255)] + scratch[_HIGH + np.int64(near >> 24 & 255)]
        behind = best if distance < best else distance
        second = behind if behind < second else second
        winner = np.int32(k) if distance < best else winner
        best = distance if distance < best else best
    point = np.int32(grid[start + winner] & POINT)
    if not second > best * _LEAD or not best < MAX:
        least = MAX
        point = np.int32(-1)
        for k in range(n):
            candidate = np.int32(grid[start + k] & POINT)
            distance = ZERO
            for i in range(dims):
                diff = scale * level_value(grid[candidate], i, dims, offset, spacing) - values[x + i]
                distance += values[w + i] * diff * diff
            point = candidate if distance < least else point
            least = distance if distance < least else least
    return point


@inline
def _fill_tables(scratch, values, x, w, scale, offset, spacing, dims):  # type: ignore[no-untyped-def]
    per_quarter = dims // 4
    for quarter in range(4):
        at = quarter * per_quarter
        high_x, high_w = values[x + at + per_quarter - 1], values[w + at + per_quarter - 1]
        # four-dimensional points have no lower coordinate in a quarter
        low_x, low_w = values[x + at], values[w + at] if dims == 8 else ZERO
        for k in range(LANES):
            low = scale * (offset + spacing * LOW_LEVEL[dims // 8, k]) - low_x
            high = scale * (offset + spacing * HIGH_LEVEL[dims // 8, k]) - high_x
            scratch[_QUARTERS + quarter * LANES + k] = low_w * low * low + high_w * high * high
    for row in range(0, 10, 2):
        a0, a1 = scratch[_QUARTERS + LANES + row], scratch[_QUARTERS + LANES + row + 1]
        b0, b1 = scratch[_QUARTERS + 3 * LANES + row], scratch[_QUARTERS + 3 * LANES + row + 1]
        for k in range(LANES):
            scratch[_LOW + row * 16 + k] = scratch[_QUARTERS + k] + (a0 if k < 16 else a1)
            scratch[_HIGH + row * 16 + k] = scratch[_QUARTERS + 2 * LANES + k] + (b0 if k < 16 else b1)
