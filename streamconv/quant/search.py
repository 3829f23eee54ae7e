"""The searches for scales shared by the block formats, 32 sub-blocks at a time.

Three searches, each over all sub-blocks ("runs") of a stretch of rows: ``affine_runs``, ``symmetric_runs`` and, in a file of
its own, ``positive_runs``. Each is one kernel that Python calls once per tile of rows: kernels that call kernels would be
optimized again with every caller, which multiplies compile time.

A run's values and weights are gathered into a tile (see ``lanes``): matrix ``X`` holds the values, ``W`` their weights, ``L``
is scratch and, where said so, the levels found. Per-lane results stand in named rows of ``regs``. Levels that a scale and
an offset determine are not kept: the caller recomputes them from ``INVERSE`` and ``LOW``.

Bit-exact with ggml 0.25.3 (``make_qx_quants``, ``make_qkx2_quants``/``make_qkx3_quants``), uncontracted
float32.
"""

from __future__ import annotations

import numpy as np

from .lanes import (
    EPSILON,
    LANES,
    ONE,
    RINT_LIMIT,
    ZERO,
    clamp,
    inline,
    kernel,
    magnitude,
    rint_any,
    rint_small,
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
_ROWS = 4
_TENTH = np.float32(0.1)


def padded(n_runs: int) -> int:
    """Columns that ``found`` needs for ``n_runs``: whole groups of lanes."""
    return -(-n_runs // LANES) * LANES


@inline
def gather(matrix, x, first, n):  # type: ignore[no-untyped-def]
    """``matrix`` = the ``LANES`` runs of ``n`` values of ``x`` from run ``first`` on, one a lane; zeros past the end."""
    runs = min(LANES, x.size // n - first)
    for j in range(runs):
        start = (first + j) * n
        for i in range(n):
            matrix[i * LANES + j] = x[start + i]
    for j in range(runs, LANES):
        for i in range(n):
            matrix[i * LANES + j] = ZERO


# LLVM unrolls short loops of known length before it could vectorize them. Loops whose bodies are small therefore run to
# ``lanes``, which is always LANES.


@inline
def _own_weights(tile, regs, n, kind):  # type: ignore[no-untyped-def]
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


@inline
def _collect(found, regs, first):  # type: ignore[no-untyped-def]
    """Store the results of runs ``first``, ``first + 1``, … in the rows of ``found``."""
    for k in range(N_RESULTS):
        for j in range(LANES):
            found[k, first + j] = regs[k * LANES + j]


@kernel
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
    tile = np.empty(TILE_SIZE, np.float32)
    regs = np.empty(REGS_SIZE, np.float32)
    for first in range(0, x.size // n, LANES):
        gather(tile[X:], x, first, n)
        if kind == GIVEN:
            gather(tile[W:], w, first, n)
        else:
            _own_weights(tile, regs, n, kind)
        _range_and_sums(tile, regs, n)
        for step in range(-1, n_step + 1):
            opening = step < 0
            numerator = n_max if opening else (r_min + r_delta * np.float32(step)) + n_max
            _try_levels(tile, regs, n, numerator, n_max)
            _fit(regs, opening)
            _errors(tile, regs, n, absolute)
            _keep_better(regs, opening)
        for j in range(LANES):
            regs[MINIMUM + j] = -regs[_NOW + j]
        _collect(found, regs, first)


@inline
def _range_and_sums(tile, regs, n):  # type: ignore[no-untyped-def]
    """Lowest (at most 0) and highest value, Σ w and Σ w·x of each lane."""
    lanes = len(regs) // REGS_ROWS
    for j in range(lanes):
        x = tile[X + j]
        w = tile[W + j]
        regs[_LOWEST + j] = x
        regs[_HIGH + j] = x
        regs[SUM_W + j] = w
        regs[_SUM_X + j] = w * x
    for i in range(1, n):
        row = tile[i * LANES :]
        for j in range(lanes):
            x = row[X + j]
            w = row[W + j]
            low = regs[_LOWEST + j]
            high = regs[_HIGH + j]
            regs[_LOWEST + j] = x if x < low else low
            regs[_HIGH + j] = x if x > high else high
            regs[SUM_W + j] += w
            regs[_SUM_X + j] += w * x
    for j in range(lanes):
        low = regs[_LOWEST + j]
        low = ZERO if low > ZERO else low
        regs[_LOWEST + j] = low
        regs[_NOW + j] = low


@inline
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
    for i in range(0, n, _ROWS):
        if wild:
            _wild_sums(tile[i * LANES :], regs, n_max)
        else:
            _sums(tile[i * LANES :], regs, n_max)


@inline
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
    level = clamp(rint_small(trial * (x - now)), ZERO, n_max)
    wl = rows[W + at] * level
    rows[L + at] = level
    return sums[0] + wl, sums[1] + wl * level, sums[2] + wl * x


@kernel
def _wild_sums(rows, regs, n_max):  # type: ignore[no-untyped-def]
    """As ``_sums`` for ranges so small that 1 / range overflows the cheap rounding; rare."""
    for at in range(_ROWS * LANES):
        j = at % LANES
        x = rows[X + at]
        level = clamp(np.float32(rint_any(regs[_TRIAL + j] * (x - regs[_NOW + j]))), ZERO, n_max)
        wl = rows[W + at] * level
        regs[_SUM_L + j] += wl
        regs[_SUM_LL + j] += wl * level
        regs[_SUM_LX + j] += wl * x
        rows[L + at] = level


@inline
def _fit(regs, opening):  # type: ignore[no-untyped-def]
    """Scale and (non-positive) minimum that fit the trial levels best; a lane without solution gets NaN.

    The opening trial is not fitted: its scale is that of the range. In flat lanes, whose trial is 0, the scale is 0.
    """
    for j in range(LANES):
        w = regs[SUM_W + j]
        x = regs[_SUM_X + j]
        l = regs[_SUM_L + j]
        ll = regs[_SUM_LL + j]
        lx = regs[_SUM_LX + j]
        determinant = w * ll - l * l
        scale = (w * lx - x * l) / determinant
        minimum = (ll * x - l * lx) / determinant
        through_zero = lx / ll
        scale = through_zero if minimum > ZERO else scale
        minimum = ZERO if minimum > ZERO else minimum
        scale = scale if determinant > ZERO else NAN
        trial = regs[_TRIAL + j]
        plain = ONE / trial
        plain = ZERO if trial == ZERO else plain
        regs[_FIT_SCALE + j] = plain if opening else scale
        regs[_FIT_MIN + j] = regs[_LOWEST + j] if opening else minimum


@inline
def _errors(tile, regs, n, absolute):  # type: ignore[no-untyped-def]
    """ERROR (zero so far) = Σ w·e of the fitted scale and minimum on the levels L, e = |difference| or its square."""
    for i in range(0, n, _ROWS):
        rows = tile[i * LANES :]
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


@inline
def _keep_better(regs, opening):  # type: ignore[no-untyped-def]
    """Take the fit where it lowers the error. The next trials then start from the fitted minimum, as in the reference."""
    for j in range(LANES):
        error, best = regs[_ERROR + j], regs[_BEST + j]
        trial, inverse = regs[_TRIAL + j], regs[INVERSE + j]
        now, low = regs[_NOW + j], regs[LOW + j]
        fit_scale, scale = regs[_FIT_SCALE + j], regs[SCALE + j]
        fit_min = regs[_FIT_MIN + j]
        better = (error < best) | opening
        # nothing beats minus infinity: a flat lane keeps its zero scale
        error = -INFINITY if opening & (trial == ZERO) else error
        regs[_BEST + j] = error if better else best
        regs[SCALE + j] = fit_scale if better else scale
        regs[INVERSE + j] = trial if better else inverse
        regs[LOW + j] = now if better else low
        regs[_NOW + j] = fit_min if better else now


@kernel
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
    tile = np.empty(TILE_SIZE, np.float32)
    regs = np.zeros(REGS_SIZE, np.float32)
    for first in range(0, x.size // n, LANES):
        gather(tile[X:], x, first, n)
        if kind == GIVEN:
            gather(tile[W:], w, first, n)
        else:
            _own_weights(tile, regs, n, kind)
        _peak_and_products(tile, regs, n)
        for trial in range(19):
            offset = trial - 10 if trial < 10 else trial - 9  # -9..-1, 1..9
            offset = 0 if trial == 0 else offset
            numerator = -(n_max + _TENTH * np.float32(offset))
            for j in range(LANES):
                peak = regs[_HIGH + j]
                inverse = numerator / peak
                regs[_TRIAL + j] = inverse if magnitude(peak) >= EPSILON else ZERO
                regs[_SUM_LX + j] = ZERO
                regs[_SUM_LL + j] = ZERO
            _symmetric_sums(tile, regs, n, n_max)
            _keep_larger(regs, trial == 0)
        _collect(found, regs, first)


@inline
def _peak_and_products(tile, regs, n):  # type: ignore[no-untyped-def]
    """_HIGH = the value of largest magnitude, the first of equals; L = w·x."""
    lanes = len(regs) // REGS_ROWS
    for j in range(lanes):
        regs[_HIGH + j] = ZERO
        regs[_LOWEST + j] = ZERO
        regs[SUM_W + j] = ZERO
    for i in range(n):
        row = tile[i * LANES :]
        for j in range(lanes):
            x, w = row[X + j], row[W + j]
            peak, largest = regs[_HIGH + j], regs[_LOWEST + j]
            size = magnitude(x)
            regs[_HIGH + j] = x if size > largest else peak
            regs[_LOWEST + j] = size if size > largest else largest
            row[L + j] = w * x
            regs[SUM_W + j] += w


@inline
def _symmetric_sums(tile, regs, n, n_max):  # type: ignore[no-untyped-def]
    """Σ w·x·l and Σ w·l·l for the trial scale; |INVERSE · x| stays below n_max + 1, so the cheap rounding is exact."""
    top = n_max - ONE
    for i in range(0, n, _ROWS):
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
    level = clamp(rint_small(trial * rows[X + at]), -n_max, top)
    return sums[0] + rows[L + at] * level, sums[1] + (rows[W + at] * level) * level


@inline
def _keep_larger(regs, first):  # type: ignore[no-untyped-def]
    """Take the trial scale when (Σ w·x·l)² / Σ w·l·l grows, the first one always."""
    for j in range(LANES):
        lx, ll = regs[_SUM_LX + j], regs[_SUM_LL + j]
        trial, inverse = regs[_TRIAL + j], regs[INVERSE + j]
        best, scale = regs[_BEST + j], regs[SCALE + j]
        better = first | ((ll > ZERO) & (lx * lx > best * ll))
        fitted = lx / ll
        fitted = fitted if ll != ZERO else ZERO
        regs[INVERSE + j] = trial if better else inverse
        regs[SCALE + j] = fitted if better else scale
        regs[_BEST + j] = fitted * lx if better else best
