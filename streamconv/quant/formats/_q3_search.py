"""The search of Q3_K without importance weights: levels -4..3 moved one by one, sub-blocks of 16 weights side by side in lanes.

The levels start from the value of largest magnitude. Up to five passes then visit each weight in turn and move its level to
where the others' best scale wants it, if that raises (Σ w·x·l)² / Σ w·l·l, with w = x². A run that did not change in a pass
will not change in the next, and four of five do not in the first: so each pass puts together the runs that the one before
changed, which are a quarter more visits than runs, where lanes that stay together would be visited three times.

Bit-exact with ggml 0.25.3 (``make_q3_quants``), uncontracted float32. See ``lanes`` for the layout.
"""

from __future__ import annotations

import numpy as np

from ...kernels.blocks import copy_16, transpose
from ...kernels.lanes import (
    EPSILON,
    ONE,
    WIDE,
    ZERO,
    aligned,
    all_bits,
    blend,
    clamp,
    inline,
    kernel,
    magnitude,
    rint_any,
)

SUB = 16
#: twice as many as elsewhere: each weight waits for the one before it, so more lanes are needed to keep a processor busy
_LANES = 64
#: matrices of a tile: values, x², x²·x, levels
_X, _W, _WX, _L = (k * SUB * _LANES for k in range(4))
_TILE_SIZE = 4 * SUB * _LANES
#: rows of ``regs``, one value per lane
_OFFSET, _SUM_LX, _SUM_LL, _CHANGED = (k * _LANES for k in range(4))
_REGS_ROWS = 4
_TOP, _BOTTOM = np.float32(3.0), np.float32(-4.0)
_PASSES = 5


@kernel(vector_bits=WIDE)
def moved_runs(x, scales, levels):  # type: ignore[no-untyped-def]
    """Scale and levels for x ≈ scale · (level - 4).

    Parameters
    ----------
    x : float32[n_runs * 16]
    scales : float32[n_runs], receives the scales
    levels : uint8[n_runs * 16], receives the levels 0..7; all 0 in a run whose values are below EPSILON, as in the reference
    """
    tile = aligned(_TILE_SIZE)
    regs = aligned(_REGS_ROWS * _LANES)
    rows = aligned(SUB * _LANES)
    n_waiting = x.size // SUB
    sums = np.empty((2, n_waiting), np.float32)
    waiting = np.arange(n_waiting)
    ones = all_bits(n_waiting)
    for number in range(_PASSES):
        n_visited, n_waiting = n_waiting, 0
        for first in range(0, n_visited, _LANES):
            runs = waiting[first : min(first + _LANES, n_visited)]
            _collect_values(x, runs, rows, tile)
            if number == 0:
                _start(tile, regs)
            else:
                _collect_state(levels, sums, runs, rows, tile, regs)
            _move(tile, regs, ones)
            _leave_state(levels, sums, runs, rows, tile, regs)
            for j in range(len(runs)):
                waiting[n_waiting] = runs[j]  # which lies here or behind
                n_waiting += regs[_CHANGED + j] != ZERO
    for run in range(len(scales)):
        lx, ll = sums[0, run], sums[1, run]
        scale = lx / ll
        scales[run] = scale if ll > ZERO else ZERO


@inline(vector_bits=WIDE)
def _collect_values(x, runs, rows, tile):  # type: ignore[no-untyped-def]
    """The values of ``runs``, one a lane, and what follows from them; those of the last one in lanes that are left."""
    for j in range(_LANES):
        copy_16(x, SUB * runs[min(j, len(runs) - 1)], rows, SUB * j)
    for j in range(0, _LANES, SUB):
        transpose(rows, SUB * j, SUB, tile, _X + j, _LANES)
    for i in range(len(rows)):
        v = tile[_X + i]
        tile[_W + i] = v * v
        tile[_WX + i] = (v * v) * v


@inline(vector_bits=WIDE)
def _collect_state(levels, sums, runs, rows, tile, regs):  # type: ignore[no-untyped-def]
    """What ``_leave_state`` left of ``runs``."""
    for j in range(_LANES):
        run = runs[min(j, len(runs) - 1)]
        copy_16(levels, SUB * run, rows, SUB * j)
        regs[_SUM_LX + j], regs[_SUM_LL + j] = sums[0, run], sums[1, run]
    for j in range(0, _LANES, SUB):
        transpose(rows, SUB * j, SUB, tile, _L + j, _LANES)
    for i in range(len(rows)):
        tile[_L + i] += _BOTTOM
    for j in range(_LANES):
        regs[_OFFSET + j], regs[_CHANGED + j] = -_BOTTOM, ZERO


@inline(vector_bits=WIDE)
def _leave_state(levels, sums, runs, rows, tile, regs):  # type: ignore[no-untyped-def]
    """Levels and sums of ``runs``, as they are now."""
    lanes = len(regs) // _REGS_ROWS
    for i in range(SUB):
        row = tile[i * _LANES :]
        for j in range(lanes):
            row[_W + j] = row[_L + j] + regs[_OFFSET + j]  # the weights are done with
    for j in range(0, _LANES, SUB):
        transpose(tile, _W + j, _LANES, rows, SUB * j, SUB)
    for j in range(len(runs)):
        copy_16(rows, SUB * j, levels, SUB * runs[j])
        sums[0, runs[j]], sums[1, runs[j]] = regs[_SUM_LX + j], regs[_SUM_LL + j]


@inline(vector_bits=WIDE)
def _start(tile, regs):  # type: ignore[no-untyped-def]
    """The first levels and both sums of each lane."""
    lanes = len(regs) // _REGS_ROWS
    for j in range(lanes):
        peak = largest = ZERO
        for i in range(SUB):
            v = tile[_X + i * _LANES + j]
            larger = magnitude(v) > largest
            peak = v if larger else peak
            largest = magnitude(v) if larger else largest
        inverse = _BOTTOM / peak if largest >= EPSILON else ZERO
        lx = ll = ZERO
        for i in range(SUB):
            at = i * _LANES + j
            level = clamp(np.rint(inverse * tile[_X + at]), _BOTTOM, _TOP)
            tile[_L + at] = level
            lx += tile[_WX + at] * level
            ll += (tile[_W + at] * level) * level
        regs[_OFFSET + j] = -_BOTTOM if largest >= EPSILON else ZERO
        regs[_SUM_LX + j], regs[_SUM_LL + j], regs[_CHANGED + j] = lx, ll, ZERO


@inline(vector_bits=WIDE)
def _move(tile, regs, ones):  # type: ignore[no-untyped-def]
    """One pass over the levels; _CHANGED is no longer 0 in lanes that it changed."""
    low, high = np.int32(_BOTTOM), np.int32(_TOP)
    for i in range(SUB):
        row = tile[i * _LANES :]
        for j in range(_LANES):
            x, w, wx, l = row[_X + j], row[_W + j], row[_WX + j], row[_L + j]
            lx, ll = regs[_SUM_LX + j], regs[_SUM_LL + j]
            rest_lx = lx - wx * l
            rest_ll = ll - (w * l) * l
            new = np.float32(clamp(rint_any((x * rest_ll) / rest_lx), low, high))
            new_lx = rest_lx + wx * new
            new_ll = rest_ll + (w * new) * new
            better = (rest_lx > ZERO) & (new != l) & (new_ll > ZERO)
            better &= (new_lx * new_lx) * ll > (lx * lx) * new_ll
            row[_L + j] = blend(better, new, l, ones)
            regs[_SUM_LX + j] = new_lx if better else lx
            regs[_SUM_LL + j] = new_ll if better else ll
            regs[_CHANGED + j] = blend(better, ONE, regs[_CHANGED + j], ones)
