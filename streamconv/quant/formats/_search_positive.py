"""The search for a scale of non-negative values, 32 runs at a time: how scales themselves are quantized by importance.

Bit-exact with ggml 0.25.3 (``make_qp_quants``), uncontracted float32. See ``_search`` for the tile and the lanes.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, LANES, ONE, ZERO, inline, kernel, rint_any
from ._search import TILE_SIZE, L, W, X, gather

#: rows of ``regs``, one value per lane
SCALE, INVERSE, _HIGH, _BEST, _TRIAL, _ERROR, _SUM_LX, _SUM_LL = (k * LANES for k in range(8))
_REGS_SIZE = 8 * LANES
_TENTH = np.float32(0.1)


@kernel
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
    tile = np.empty(TILE_SIZE, np.float32)
    regs = np.empty(_REGS_SIZE, np.float32)
    n_runs = x.size // n
    for first in range(0, n_runs, LANES):
        gather(tile[X:], x, first, n)
        gather(tile[W:], w, first, n)
        _start_positive(tile, regs, n, n_max)
        for trial in range(-4, 5):
            if trial:
                _try_positive(tile, regs, n, n_max, np.float32(trial) * _TENTH + n_max)
        _settle_positive(tile, regs, n, n_max)
        for _ in range(5):
            if not _improve_positive(tile, regs, n, n_max):
                break
        for j in range(min(LANES, n_runs - first)):
            lx, ll = regs[_SUM_LX + j], regs[_SUM_LL + j]
            scale = lx / ll
            scales[first + j] = scale if (ll > ZERO) & (regs[_HIGH + j] >= EPSILON) else ZERO
            for i in range(n):
                levels[(first + j) * n + i] = np.uint8(np.int32(tile[L + i * LANES + j]))


@inline
def _as_uint8(level):  # type: ignore[no-untyped-def]
    """int32 ``level`` stored to uint8 and read back, as float32."""
    return np.float32(np.int32(level & 0xFF))


@inline
def _capped(v, n_max):  # type: ignore[no-untyped-def]
    """int32 min(n_max, nearest integer of v)."""
    level = rint_any(v)
    top = np.int32(n_max)
    return level if level < top else top


@inline
def _start_positive(tile, regs, n, n_max):  # type: ignore[no-untyped-def]
    """_HIGH = the largest value, and the plain scale with its error."""
    for j in range(LANES):
        regs[_HIGH + j] = ZERO
    for i in range(n):
        row = tile[i * LANES :]
        for j in range(LANES):
            x, high = row[X + j], regs[_HIGH + j]
            regs[_HIGH + j] = x if x > high else high
    for j in range(LANES):
        inverse = n_max / regs[_HIGH + j]
        regs[INVERSE + j] = inverse
        regs[SCALE + j] = ONE / inverse
        regs[_BEST + j] = ZERO
        regs[_SUM_LX + j] = ZERO
        regs[_SUM_LL + j] = ZERO
    for i in range(n):
        row = tile[i * LANES :]
        for j in range(LANES):
            x = row[X + j]
            e = x - regs[SCALE + j] * _as_uint8(rint_any(regs[INVERSE + j] * x))
            regs[_BEST + j] += (row[W + j] * e) * e


@inline
def _try_positive(tile, regs, n, n_max, numerator):  # type: ignore[no-untyped-def]
    """Keep numerator / highest as INVERSE where it lowers the squared error."""
    for j in range(LANES):
        trial = numerator / regs[_HIGH + j]
        regs[_TRIAL + j] = trial
        regs[SCALE + j] = ONE / trial
        regs[_ERROR + j] = ZERO
    for i in range(n):
        row = tile[i * LANES :]
        for j in range(LANES):
            x = row[X + j]
            e = x - regs[SCALE + j] * np.float32(_capped(regs[_TRIAL + j] * x, n_max))
            regs[_ERROR + j] += (row[W + j] * e) * e
    for j in range(LANES):
        error, best = regs[_ERROR + j], regs[_BEST + j]
        trial, inverse = regs[_TRIAL + j], regs[INVERSE + j]
        regs[_BEST + j] = error if error < best else best
        regs[INVERSE + j] = trial if error < best else inverse


@inline
def _settle_positive(tile, regs, n, n_max):  # type: ignore[no-untyped-def]
    """L = levels of the best scale (0 in empty lanes), Σ w·x·l, Σ w·l·l."""
    for i in range(n):
        row = tile[i * LANES :]
        for j in range(LANES):
            w, x = row[W + j], row[X + j]
            level = _capped(regs[INVERSE + j] * x, n_max)
            level = level if regs[_HIGH + j] >= EPSILON else np.int32(0)
            l = np.float32(level)
            row[L + j] = _as_uint8(level)
            regs[_SUM_LX + j] += (w * x) * l
            regs[_SUM_LL + j] += (w * l) * l


@inline
def _improve_positive(tile, regs, n, n_max):  # type: ignore[no-untyped-def]
    """One pass that moves each level to where the other levels want it; True when any lane changed."""
    changed = False
    for i in range(n):
        row = tile[i * LANES :]
        for j in range(LANES):
            w, x, l = row[W + j], row[X + j], row[L + j]
            lx, ll, high = regs[_SUM_LX + j], regs[_SUM_LL + j], regs[_HIGH + j]
            rest_lx = lx - (w * x) * l
            rest_ll = ll - (w * l) * l
            level = _capped((x * rest_ll) / rest_lx, n_max)
            new = np.float32(level)
            new_lx = rest_lx + (w * x) * new
            new_ll = rest_ll + (w * new) * new
            better = (rest_lx > ZERO) & (rest_ll > ZERO) & (new != l) & (high >= EPSILON)
            better &= (new_lx * new_lx) * ll > (lx * lx) * new_ll
            row[L + j] = _as_uint8(level) if better else l
            regs[_SUM_LX + j] = new_lx if better else lx
            regs[_SUM_LL + j] = new_ll if better else ll
            changed |= better
    return changed
