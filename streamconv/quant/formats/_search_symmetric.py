"""The search for a scale of values of both signs, 32 runs at a time.

Bit-exact with ggml 0.25.3 (``make_qx_quants``), uncontracted float32. See ``_search`` for the tile and the lanes.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, LANES, ONE, WIDE, ZERO, aligned, all_bits, blend, clamp, inline, kernel, magnitude
from ._search import (
    GIVEN,
    INVERSE,
    N_RESULTS,
    REGS_SIZE,
    ROWS,
    SCALE,
    SUM_W,
    TILE_SIZE,
    L,
    W,
    X,
    collect,
    gather,
    own_weights,
)

#: rows of ``regs`` after those of the results
_PEAK, _LARGEST, _BEST, _TRIAL, _SUM_LX, _SUM_LL = (k * LANES for k in range(N_RESULTS, N_RESULTS + 6))
_TENTH = np.float32(0.1)


@kernel(vector_bits=WIDE)
def symmetric_runs(x, w, kind, found, n, n_max):  # type: ignore[no-untyped-def]
    """Scale for x ≈ scale · level, levels -n_max..n_max - 1: ``make_qx_quants`` (``rmse_type`` 1 or explicit weights).

    Parameters
    ----------
    x : float32[n_runs * n], values; n a multiple of 4, up to 32
    w : float32[n_runs * n], weights, when ``kind`` is GIVEN; else they follow from the values
    found : float32[N_RESULTS, padded(n_runs)]; receives scale, Σ w and inverse: level = clamp(rint(inverse · x), -n_max,
        n_max - 1). The inverse is 0 in runs whose values are all below EPSILON; the reference gives those the *stored* level
        0, which stands for -n_max.
    n_max : float32
    """
    tile = aligned(TILE_SIZE)
    regs = aligned(REGS_SIZE)
    regs[:] = ZERO
    ones = all_bits(n_max)
    for first in range(0, x.size // n, LANES):
        gather(tile[X:], x, first, n)
        if kind == GIVEN:
            gather(tile[W:], w, first, n)
        else:
            own_weights(tile, regs, n, kind)
        _peak_and_products(tile, regs, n)
        for trial in range(19):
            offset = trial - 10 if trial < 10 else trial - 9  # -9..-1, 1..9
            offset = 0 if trial == 0 else offset
            numerator = -(n_max + _TENTH * np.float32(offset))
            for j in range(LANES):
                peak = regs[_PEAK + j]
                inverse = numerator / peak
                regs[_TRIAL + j] = inverse if magnitude(peak) >= EPSILON else ZERO
                regs[_SUM_LX + j] = ZERO
                regs[_SUM_LL + j] = ZERO
            _symmetric_sums(tile, regs, n, n_max)
            _keep_larger(regs, trial == 0, ones)
        collect(found, regs, first)


@inline(vector_bits=WIDE)
def _peak_and_products(tile, regs, n):  # type: ignore[no-untyped-def]
    """_PEAK = the value of largest magnitude, the first of equals; L = w·x; Σ w."""
    for j in range(LANES):
        regs[_PEAK + j] = ZERO
        regs[_LARGEST + j] = ZERO
        regs[SUM_W + j] = ZERO
    for i in range(0, n, ROWS):
        rows = tile[i * LANES :]
        for j in range(LANES):
            state = regs[_PEAK + j], regs[_LARGEST + j], regs[SUM_W + j]
            state = _add_peak(rows, j, state)
            state = _add_peak(rows, j + LANES, state)
            state = _add_peak(rows, j + 2 * LANES, state)
            regs[_PEAK + j], regs[_LARGEST + j], regs[SUM_W + j] = _add_peak(rows, j + 3 * LANES, state)


@inline
def _add_peak(rows, at, state):  # type: ignore[no-untyped-def]
    x, w = rows[X + at], rows[W + at]
    peak, largest, sum_w = state
    rows[L + at] = w * x
    size = magnitude(x)
    larger = size > largest
    return (x if larger else peak), (size if larger else largest), sum_w + w


@inline(vector_bits=WIDE)
def _symmetric_sums(tile, regs, n, n_max):  # type: ignore[no-untyped-def]
    """Σ w·x·l and Σ w·l·l for the trial scale; |INVERSE · x| stays below n_max + 1, so the cheap rounding is exact."""
    top = n_max - ONE
    for i in range(0, n, ROWS):
        rows = tile[i * LANES :]
        for j in range(LANES):
            trial = regs[_TRIAL + j]
            sums = regs[_SUM_LX + j], regs[_SUM_LL + j]
            sums = _add_symmetric(rows, j, trial, n_max, top, sums)
            sums = _add_symmetric(rows, j + LANES, trial, n_max, top, sums)
            sums = _add_symmetric(rows, j + 2 * LANES, trial, n_max, top, sums)
            sums = _add_symmetric(rows, j + 3 * LANES, trial, n_max, top, sums)
            regs[_SUM_LX + j], regs[_SUM_LL + j] = sums


@inline
def _add_symmetric(rows, at, trial, n_max, top, sums):  # type: ignore[no-untyped-def]
    level = clamp(np.rint(trial * rows[X + at]), -n_max, top)
    return sums[0] + rows[L + at] * level, sums[1] + (rows[W + at] * level) * level


@inline(vector_bits=WIDE)
def _keep_larger(regs, first, ones):  # type: ignore[no-untyped-def]
    """Take the trial scale when (Σ w·x·l)² / Σ w·l·l grows, the first one always; 0 in lanes without magnitude, whose trial is."""
    for j in range(LANES):
        lx, ll = regs[_SUM_LX + j], regs[_SUM_LL + j]
        best = regs[_BEST + j]
        better = first | ((ll > ZERO) & (lx * lx > best * ll))
        fitted = lx / ll
        fitted = fitted if (ll != ZERO) & (regs[_TRIAL + j] != ZERO) else ZERO
        regs[INVERSE + j] = blend(better, regs[_TRIAL + j], regs[INVERSE + j], ones)
        regs[SCALE + j] = blend(better, fitted, regs[SCALE + j], ones)
        regs[_BEST + j] = blend(better, fitted * lx, best, ones)
