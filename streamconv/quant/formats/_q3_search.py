"""The search of Q3_K without importance weights: levels -4..3 moved one by one, 32 sub-blocks of 16 weights at a time.

The levels start from the value of largest magnitude. Up to five passes then visit each weight in turn and move its level to
where the others' best scale wants it, if that raises (Σ w·x·l)² / Σ w·l·l, with w = x². A lane that did not change in a pass
will not change in the next, so lanes need no early stop of their own.

Bit-exact with ggml 0.25.3 (``make_q3_quants``), uncontracted float32. See ``lanes`` for the layout.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, LANES, ZERO, aligned, all_bits, blend, clamp, inline, kernel, magnitude, rint_any
from ._search import ROWS, gather

SUB = 16
#: matrices of a tile: values, x², x²·x, levels
_X, _W, _WX, _L = (k * SUB * LANES for k in range(4))
_TILE_SIZE = 4 * SUB * LANES
#: rows of ``regs``, one value per lane
_PEAK, _LARGEST, _SUM_LX, _SUM_LL = (k * LANES for k in range(4))
_REGS_SIZE = 4 * LANES
_TOP, _BOTTOM = np.float32(3.0), np.float32(-4.0)
_PASSES = 5


@kernel
def moved_runs(x, scales, levels):  # type: ignore[no-untyped-def]
    """Scale and levels for x ≈ scale · (level - 4).

    Parameters
    ----------
    x : float32[n_runs * 16]
    scales : float32[n_runs], receives the scales
    levels : uint8[n_runs * 16], receives the levels 0..7; all 0 in a run whose values are below EPSILON, as in the reference
    """
    tile = aligned(_TILE_SIZE)
    regs = aligned(_REGS_SIZE)
    n_runs = x.size // SUB
    ones = all_bits(n_runs)
    for first in range(0, n_runs, LANES):
        gather(tile[_X:], x, first, SUB)
        _start(tile, regs)
        for _ in range(_PASSES):
            if not _move(tile, regs, ones):
                break
        for j in range(min(LANES, n_runs - first)):
            lx, ll = regs[_SUM_LX + j], regs[_SUM_LL + j]
            scale = lx / ll
            scales[first + j] = scale if ll > ZERO else ZERO
            offset = -_BOTTOM if regs[_LARGEST + j] >= EPSILON else ZERO
            run, lane = levels[(first + j) * SUB :], tile[_L + j :]
            for i in range(SUB):
                run[i] = np.uint8(np.int32(lane[i * LANES] + offset))


@inline
def _start(tile, regs):  # type: ignore[no-untyped-def]
    """Weights, their products with the values, the first levels and both sums of each lane."""
    lanes = len(regs) // 4
    for j in range(lanes):
        regs[_PEAK + j] = ZERO
        regs[_LARGEST + j] = ZERO
        regs[_SUM_LX + j] = ZERO
        regs[_SUM_LL + j] = ZERO
    for i in range(0, SUB, ROWS):
        rows = tile[i * LANES :]
        for j in range(LANES):
            state = regs[_PEAK + j], regs[_LARGEST + j]
            state = _add_peak(rows[_X + j], state)
            state = _add_peak(rows[_X + LANES + j], state)
            state = _add_peak(rows[_X + 2 * LANES + j], state)
            regs[_PEAK + j], regs[_LARGEST + j] = _add_peak(rows[_X + 3 * LANES + j], state)
    for j in range(lanes):
        inverse = _BOTTOM / regs[_PEAK + j]
        regs[_PEAK + j] = inverse if regs[_LARGEST + j] >= EPSILON else ZERO
    for i in range(SUB):
        row = tile[i * LANES :]
        for j in range(lanes):
            x = row[_X + j]
            w = x * x
            wx = w * x
            level = clamp(np.rint(regs[_PEAK + j] * x), _BOTTOM, _TOP)
            row[_W + j], row[_WX + j], row[_L + j] = w, wx, level
            regs[_SUM_LX + j] += wx * level
            regs[_SUM_LL + j] += (w * level) * level


@inline
def _add_peak(x, state):  # type: ignore[no-untyped-def]
    peak, largest = state
    size = magnitude(x)
    larger = size > largest
    return (x if larger else peak), (size if larger else largest)


@inline
def _move(tile, regs, ones):  # type: ignore[no-untyped-def]
    """One pass over the levels; True when any lane changed."""
    changed = False
    low, high = np.int32(_BOTTOM), np.int32(_TOP)
    for i in range(SUB):
        row = tile[i * LANES :]
        for j in range(LANES):
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
            changed |= better
    return changed
