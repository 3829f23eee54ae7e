"""The grid point nearest to a group of weights, at one scale.

All distances are those of the reference, to the last bit: what a coordinate adds depends on its level alone, so there is a table
of these terms for every coordinate, and 16 neighbours at a time look theirs up and add them in the order of the reference.

Source: ggml-quants.c, ``iq2_find_best_neighbour``, ``iq3_find_best_neighbour``, ``iq1_find_best_neighbour2`` (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import inline
from ...kernels.simd import choose, first_bit, lane_bits, least_lane, load16, look_up, spread

MAX = np.float32(np.finfo(np.float32).max)
#: mask of the point in an entry of a list of neighbours
POINT = np.int32(0xFFFF)
#: where the keys of the four quarters stand in it
QUARTER = tuple(np.int32(16 + 4 * k) for k in range(4))
NUMBERS = np.arange(16, dtype=np.int32)
#: levels that the 16 possible keys of a quarter stand for: of the one coordinate, or of the first and the second one
LEVEL = np.arange(16, dtype=np.float32)
FIRST, SECOND = LEVEL % 3, LEVEL // 3
_FAR = np.int32(1 << 30)


@inline
def level_value(levels, i, dims, offset, spacing):  # type: ignore[no-untyped-def]
    """What coordinate ``i`` of a point stands for: ``offset + spacing · level``."""
    width = 24 // dims
    return offset + spacing * np.float32((levels >> i * width & (1 << width) - 1) >> 1)


@inline
def _terms(levels, offset, spacing, scale, x, w):  # type: ignore[no-untyped-def]
    """What a coordinate adds to the distance at each of ``levels``."""
    diff = (levels * spacing + offset) * scale - x
    return diff * w * diff


@inline
def nearest4(grid, start, values, x, w, scale, offset, spacing):  # type: ignore[no-untyped-def]
    """The neighbour with the least Σ w·(scale · level value - x)², the first of equals; of a grid with four coordinates.

    Parameters
    ----------
    grid : int32, table of the grid
    start : of the list of neighbours
    values : float32; the group's weights stand from ``values[x]`` on, their importance from ``values[w]`` on
    scale, offset, spacing : float32

    Returns
    -------
    point : int32, -1 when none is at a finite distance
    """
    levels = load16(LEVEL, 0)
    t0 = _terms(levels, offset, spacing, scale, values[x], values[w])
    t1 = _terms(levels, offset, spacing, scale, values[x + 1], values[w + 1])
    t2 = _terms(levels, offset, spacing, scale, values[x + 2], values[w + 2])
    t3 = _terms(levels, offset, spacing, scale, values[x + 3], values[w + 3])
    places = load16(NUMBERS, 0)
    best = spread(MAX, places)
    n = grid[start] >> 1
    for first in range(0, n, 16):
        entries = load16(grid, start + 1 + first)
        distance = look_up(t0, entries >> QUARTER[0]) + look_up(t1, entries >> QUARTER[1])
        distance = distance + look_up(t2, entries >> QUARTER[2])
        distance = distance + look_up(t3, entries >> QUARTER[3])
        best, places = _keep_nearer(distance, best, places, first, n)
    return _point(grid, start, n, best, places)


@inline
def nearest8(grid, start, values, x, w, scale, offset, spacing):  # type: ignore[no-untyped-def]
    """As ``nearest4``, of a grid with eight coordinates."""
    low, high = load16(FIRST, 0), load16(SECOND, 0)
    t0 = _terms(low, offset, spacing, scale, values[x], values[w])
    t0 = t0 + _terms(high, offset, spacing, scale, values[x + 1], values[w + 1])
    t2 = _terms(low, offset, spacing, scale, values[x + 2], values[w + 2])
    t3 = _terms(high, offset, spacing, scale, values[x + 3], values[w + 3])
    t4 = _terms(low, offset, spacing, scale, values[x + 4], values[w + 4])
    t5 = _terms(high, offset, spacing, scale, values[x + 5], values[w + 5])
    t6 = _terms(low, offset, spacing, scale, values[x + 6], values[w + 6])
    t7 = _terms(high, offset, spacing, scale, values[x + 7], values[w + 7])
    places = load16(NUMBERS, 0)
    best = spread(MAX, places)
    n = grid[start] >> 1
    for first in range(0, n, 16):
        entries = load16(grid, start + 1 + first)
        pair = entries >> QUARTER[1]
        distance = look_up(t0, entries >> QUARTER[0]) + look_up(t2, pair)
        distance = distance + look_up(t3, pair)
        pair = entries >> QUARTER[2]
        distance = distance + look_up(t4, pair)
        distance = distance + look_up(t5, pair)
        pair = entries >> QUARTER[3]
        distance = distance + look_up(t6, pair)
        distance = distance + look_up(t7, pair)
        best, places = _keep_nearer(distance, best, places, first, n)
    return _point(grid, start, n, best, places)


@inline
def _keep_nearer(distance, best, places, first, n):  # type: ignore[no-untyped-def]
    """Least distances so far, and at which places of the list."""
    here = load16(NUMBERS, 0) + np.int32(first)
    nearer = (distance < best) & (here < np.int32(n))
    return choose(nearer, distance, best), choose(nearer, here, places)


@inline
def _point(grid, start, n, best, places):  # type: ignore[no-untyped-def]
    least = least_lane(best)
    equal = best == least
    place = (
        np.int32(first_bit(lane_bits(equal))) if n <= 16 else least_lane(choose(equal, places, spread(_FAR, places)))
    )
    return np.int32(grid[start + 1 + place] & POINT) if least < MAX else np.int32(-1)
