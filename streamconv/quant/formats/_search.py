"""The searches for scales shared by the block formats, 32 sub-blocks at a time.

Three searches, each over all sub-blocks ("runs") of a stretch of rows: ``affine_runs`` here, ``symmetric_runs`` and
``positive_runs`` in files of their own. Each is one kernel that Python calls once per tile of rows: kernels that call kernels
would be optimized again with every caller, which multiplies compile time.

A run's values and weights are gathered into a tile (see ``lanes``): matrix ``X`` holds the values, ``W`` their weights, ``L``
is scratch and, where said so, the levels found. Per-lane results stand in named rows of ``regs``. Levels that a scale and
an offset determine are not kept: the caller recomputes them from ``INVERSE`` and ``LOW``.

Bit-exact with ggml 0.25.3 (``make_qkx2_quants``/``make_qkx3_quants``), uncontracted float32.
"""

from __future__ import annotations

import numpy as np

from ...kernels.blocks import transpose
from ...kernels.lanes import (
    LANES,
    ONE,
    RINT_LIMIT,
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

INFINITY = np.float32(np.inf)
NAN = np.float32(np.nan)
MATRIX = 32 * LANES
#: the matrices of a tile
X, W, L = 0, MATRIX, 2 * MATRIX
TILE_SIZE = 3 * MATRIX

#: kinds of weights: given, |x|, sqrt(mean of x²) + |x|, x²
GIVEN, MAGNITUDE, MEAN_AND_MAGNITUDE, SQUARE = range(4)

#: rows of ``found``: what a search finds for each run
SCALE_ROW, MINIMUM_ROW, INVERSE_ROW, LOW_ROW, SUM_W_ROW = range(5)
N_RESULTS = 5
#: the same in ``regs``, one value per lane
SCALE, MINIMUM, INVERSE, LOW, SUM_W = (k * LANES for k in range(5))
#: the state of a search
_HIGH, _LOWEST, _BEST, _TRIAL, _NOW = (k * LANES for k in range(5, 10))
_SUM_X, _SUM_L, _SUM_LL, _SUM_LX = (k * LANES for k in range(10, 14))
_FIT_SCALE, _FIT_MIN, _ERROR = (k * LANES for k in range(14, 17))
REGS_ROWS = 17
REGS_SIZE = REGS_ROWS * LANES

#: rows of a tile handled per visit of a lane, so that running sums are loaded and stored once in so many; n is a multiple
ROWS = 4


def padded(n_runs: int) -> int:
    """Columns that ``found`` needs for ``n_runs``: whole groups of lanes."""
    return -(-n_runs // LANES) * LANES


@inline(vector_bits=WIDE)
def gather(matrix, x, first, n):  # type: ignore[no-untyped-def]
    """``matrix`` = the ``LANES`` runs of ``n`` values of ``x`` from run ``first`` on, one a lane; zeros past the end."""
    runs = min(LANES, x.size // n - first)
    if runs == LANES and n % 16 == 0:
        for j in range(0, LANES, 16):
            for i in range(0, n, 16):
                transpose(x, (first + j) * n + i, n, matrix, i * LANES + j, LANES)
        return
    for j in range(runs):
        run = x[(first + j) * n :]
        for i in range(n):
            matrix[i * LANES + j] = run[i]
    for j in range(runs, LANES):
        for i in range(n):
            matrix[i * LANES + j] = ZERO


# LLVM unrolls short loops of known length before it could vectorize them. Loops whose bodies are small therefore run to
# ``lanes``, which is always LANES (all ``regs`` here have REGS_ROWS rows).


@inline(vector_bits=WIDE)
def own_weights(tile, regs, n, kind):  # type: ignore[no-untyped-def]
    """W from the values themselves, as ``kind`` says."""
    lanes = len(regs) // REGS_ROWS
    for j in range(lanes):
        regs[j] = ZERO
    if kind == MEAN_AND_MAGNITUDE:
        for i in range(n):
            row = tile[i * LANES :]
            for j in range(lanes):
                regs[j] += row[X + j] * row[X + j]
        for j in range(lanes):
            regs[j] = np.sqrt(regs[j] / np.float32(n))
    for i in range(n):
        row = tile[i * LANES :]
        if kind == SQUARE:
            for j in range(lanes):
                row[W + j] = row[X + j] * row[X + j]
        else:
            for j in range(lanes):
                row[W + j] = regs[j] + magnitude(row[X + j])


@inline(vector_bits=WIDE)
def collect(found, regs, first):  # type: ignore[no-untyped-def]
    """Store the results of runs ``first``, ``first + 1``, … in the rows of ``found``."""
    for k in range(N_RESULTS):
        for j in range(LANES):
            found[k, first + j] = regs[k * LANES + j]


@kernel(vector_bits=WIDE)
def affine_runs(x, w, kind, found, n, n_max, r_min, r_delta, n_step, absolute):  # type: ignore[no-untyped-def]
    """Scale and minimum for x ≈ scale · level − minimum, levels 0..n_max: ``make_qkx2_quants`` and ``make_qkx3_quants``.

    Starts from the range of the values, then tries ``n_step + 1`` slightly different scales; each is refitted by weighted
    least squares and kept when it lowers the error.

    Parameters
    ----------
    x : float32[n_runs * n], values; n a multiple of 4, up to 32
    w : float32[n_runs * n], weights, when ``kind`` is GIVEN; else they follow from the values
    found : float32[N_RESULTS, padded(n_runs)]; receives scale, minimum, Σ w, and inverse, low:
        level = clamp(rint(inverse · (x - low)), 0, n_max)
    n_max, r_min, r_delta : float32
    absolute : weigh |error| instead of its square
    """
    tile = aligned(TILE_SIZE)
    regs = aligned(REGS_SIZE)
    ones = all_bits(n_max)
    for first in range(0, x.size // n, LANES):
        gather(tile[X:], x, first, n)
        if kind == GIVEN:
            gather(tile[W:], w, first, n)
        else:
            own_weights(tile, regs, n, kind)
        _range_and_sums(tile, regs, n)
        for step in range(-1, n_step + 1):
            opening = step < 0
            numerator = n_max if opening else (r_min + r_delta * np.float32(step)) + n_max
            _try_levels(tile, regs, n, numerator, n_max)
            _fit(regs, opening)
            _errors(tile, regs, n, absolute)
            _keep_better(regs, opening, ones)
        for j in range(LANES):
            regs[MINIMUM + j] = -regs[_NOW + j]
        collect(found, regs, first)


@inline(vector_bits=WIDE)
def _range_and_sums(tile, regs, n):  # type: ignore[no-untyped-def]
    """Lowest (at most 0) and highest value, Σ w and Σ w·x of each lane."""
    for j in range(LANES):
        x, w = tile[X + j], tile[W + j]
        state = x, x, w, w * x
        state = _add_value(tile, j + LANES, state)
        state = _add_value(tile, j + 2 * LANES, state)
        state = _add_value(tile, j + 3 * LANES, state)
        regs[_LOWEST + j], regs[_HIGH + j], regs[SUM_W + j], regs[_SUM_X + j] = state
    for i in range(ROWS, n, ROWS):
        rows = tile[i * LANES :]
        for j in range(LANES):
            state = regs[_LOWEST + j], regs[_HIGH + j], regs[SUM_W + j], regs[_SUM_X + j]
            state = _add_value(rows, j, state)
            state = _add_value(rows, j + LANES, state)
            state = _add_value(rows, j + 2 * LANES, state)
            state = _add_value(rows, j + 3 * LANES, state)
            regs[_LOWEST + j], regs[_HIGH + j], regs[SUM_W + j], regs[_SUM_X + j] = state
    lanes = len(regs) // REGS_ROWS
    for j in range(lanes):
        low = regs[_LOWEST + j]
        low = ZERO if low > ZERO else low
        regs[_LOWEST + j] = low
        regs[_NOW + j] = low


@inline
def _add_value(rows, at, state):  # type: ignore[no-untyped-def]
    x, w = rows[X + at], rows[W + at]
    low, high, sum_w, sum_x = state
    return (x if x < low else low), (x if x > high else high), sum_w + w, sum_x + w * x


@inline(vector_bits=WIDE)
def _try_levels(tile, regs, n, numerator, n_max):  # type: ignore[no-untyped-def]
    """L = levels for the trial scale numerator / (highest - lowest), 0 in flat lanes; Σ w·l, Σ w·l·l, Σ w·l·x."""
    wild = False
    for j in range(LANES):
        high, lowest, now = regs[_HIGH + j], regs[_LOWEST + j], regs[_NOW + j]
        trial = numerator / (high - now)
        trial = ZERO if high == lowest else trial
        top = magnitude(trial * (high - now))
        bottom = magnitude(trial * (lowest - now))
        wild |= not (top < RINT_LIMIT and bottom < RINT_LIMIT)
        regs[_TRIAL + j] = trial
        regs[_SUM_L + j] = ZERO
        regs[_SUM_LL + j] = ZERO
        regs[_SUM_LX + j] = ZERO
        regs[_ERROR + j] = ZERO
    for i in range(0, n, ROWS):
        if wild:
            _wild_sums(tile[i * LANES :], regs, n_max)
        else:
            _sums(tile[i * LANES :], regs, n_max)


@inline(vector_bits=WIDE)
def _sums(rows, regs, n_max):  # type: ignore[no-untyped-def]
    for j in range(LANES):
        trial, now = regs[_TRIAL + j], regs[_NOW + j]
        sums = regs[_SUM_L + j], regs[_SUM_LL + j], regs[_SUM_LX + j]
        sums = _add(rows, j, trial, now, n_max, sums)
        sums = _add(rows, j + LANES, trial, now, n_max, sums)
        sums = _add(rows, j + 2 * LANES, trial, now, n_max, sums)
        sums = _add(rows, j + 3 * LANES, trial, now, n_max, sums)
        regs[_SUM_L + j], regs[_SUM_LL + j], regs[_SUM_LX + j] = sums


@inline
def _add(rows, at, trial, now, n_max, sums):  # type: ignore[no-untyped-def]
    """Store the level of one value and add it to the sums."""
    x = rows[X + at]
    level = clamp(np.rint(trial * (x - now)), ZERO, n_max)
    wl = rows[W + at] * level
    rows[L + at] = level
    return sums[0] + wl, sums[1] + wl * level, sums[2] + wl * x


@kernel
def _wild_sums(rows, regs, n_max):  # type: ignore[no-untyped-def]
    """As ``_sums`` for ranges so small that 1 / range overflows the cheap rounding; rare.

    rows : float32, a tile from one of its rows on; regs : float32, the sums are added to; n_max : float32, the highest level
    """
    for at in range(ROWS * LANES):
        j = at % LANES
        x = rows[X + at]
        level = clamp(np.float32(rint_any(regs[_TRIAL + j] * (x - regs[_NOW + j]))), ZERO, n_max)
        wl = rows[W + at] * level
        regs[_SUM_L + j] += wl
        regs[_SUM_LL + j] += wl * level
        regs[_SUM_LX + j] += wl * x
        rows[L + at] = level


@inline(vector_bits=WIDE)
def _fit(regs, opening):  # type: ignore[no-untyped-def]
    """Scale and (non-positive) minimum that fit the trial levels best; a lane without solution gets NaN.

    The opening trial is not fitted: its scale is that of the range, infinite where the range is. In flat lanes it is 0.
    """
    lanes = len(regs) // REGS_ROWS
    if opening:
        for j in range(lanes):
            plain = ONE / regs[_TRIAL + j]
            regs[_FIT_SCALE + j] = ZERO if regs[_HIGH + j] == regs[_LOWEST + j] else plain
            regs[_FIT_MIN + j] = regs[_LOWEST + j]
        return
    above = False
    for j in range(LANES):
        w, x = regs[SUM_W + j], regs[_SUM_X + j]
        l, ll, lx = regs[_SUM_L + j], regs[_SUM_LL + j], regs[_SUM_LX + j]
        determinant = w * ll - l * l
        determinant = determinant if determinant > ZERO else NAN
        minimum = (ll * x - l * lx) / determinant
        regs[_FIT_SCALE + j] = (w * lx - x * l) / determinant
        regs[_FIT_MIN + j] = minimum
        above |= minimum > ZERO
    if above:
        for j in range(lanes):
            minimum, scale = regs[_FIT_MIN + j], regs[_FIT_SCALE + j]
            through_zero = regs[_SUM_LX + j] / regs[_SUM_LL + j]
            regs[_FIT_SCALE + j] = through_zero if minimum > ZERO else scale
            regs[_FIT_MIN + j] = ZERO if minimum > ZERO else minimum


@inline(vector_bits=WIDE)
def _errors(tile, regs, n, absolute):  # type: ignore[no-untyped-def]
    """ERROR (zero so far) = Σ w·e of the fitted scale and minimum on the levels L, e = |difference| or its square."""
    if absolute:
        for i in range(0, n, ROWS):
            _add_errors(tile[i * LANES :], regs, True)
    else:
        for i in range(0, n, ROWS):
            _add_errors(tile[i * LANES :], regs, False)


@inline(vector_bits=WIDE)
def _add_errors(rows, regs, absolute):  # type: ignore[no-untyped-def]
    for j in range(LANES):
        scale, minimum = regs[_FIT_SCALE + j], regs[_FIT_MIN + j]
        error = _add_error(rows, j, scale, minimum, absolute, regs[_ERROR + j])
        error = _add_error(rows, j + LANES, scale, minimum, absolute, error)
        error = _add_error(rows, j + 2 * LANES, scale, minimum, absolute, error)
        regs[_ERROR + j] = _add_error(rows, j + 3 * LANES, scale, minimum, absolute, error)


@inline
def _add_error(rows, at, scale, minimum, absolute, error):  # type: ignore[no-untyped-def]
    e = (scale * rows[L + at] + minimum) - rows[X + at]
    e = magnitude(e) if absolute else e * e
    return error + rows[W + at] * e


@inline(vector_bits=WIDE)
def _keep_better(regs, opening, ones):  # type: ignore[no-untyped-def]
    """Take the fit where it lowers the error. The next trials then start from the fitted minimum, as in the reference."""
    for j in range(LANES):
        error, best = regs[_ERROR + j], regs[_BEST + j]
        trial, now = regs[_TRIAL + j], regs[_NOW + j]
        better = (error < best) | opening
        # nothing beats minus infinity: a flat lane keeps its zero scale
        error = -INFINITY if opening & (regs[_HIGH + j] == regs[_LOWEST + j]) else error
        regs[_BEST + j] = blend(better, error, best, ones)
        regs[SCALE + j] = blend(better, regs[_FIT_SCALE + j], regs[SCALE + j], ones)
        regs[INVERSE + j] = blend(better, trial, regs[INVERSE + j], ones)
        regs[LOW + j] = blend(better, now, regs[LOW + j], ones)
        regs[_NOW + j] = blend(better, regs[_FIT_MIN + j], now, ones)
