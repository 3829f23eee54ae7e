"""What IQ4_NL and IQ4_XS share: the 16 values, rounding to them, and the search for the scale of 32 weights.

The reference tries 16 scales for every sub-block and rounds every weight for each, at up to 15 comparisons a weight. Here
only three of them are done that way. The other candidates, ``(t - 127) / mx`` for t = -7…7, differ by at most 134 : 120,
while neighbouring midpoints between values differ by 1.2 or more, and rounding is monotonic. So the first and the last of
these candidates give a weight the same value or two adjacent ones, and those between only choose among the two, with
one comparison. Values are integers, hence their midpoint ``(low + high) / 2`` is exact.

Layout: tiles and regs as in ``lanes``, one sub-block of 32 weights per lane.
Source: ggml-quants.c, ``quantize_row_iq4_nl_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, HALF, LANES, ONE, WIDE, ZERO, inline, magnitude

#: what the codes 0…15 stand for
VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_LOWEST = VALUES[0]
_GAPS = VALUES[1:] - VALUES[:-1]
_MIDPOINTS = (VALUES[1:] + VALUES[:-1]) / np.float32(2)
_LAST = np.float32(7)
_SIXTEEN = np.float32(16)

#: matrices of a tile: weights, their importance, the values a weight may take and the midpoint between
_MATRIX = 32 * LANES
X, W, LOW, HIGH, MIDDLE = (k * _MATRIX for k in range(5))
TILE_SIZE = 5 * _MATRIX
#: rows of regs: results, then the state of the search
SCALE, INVERSE, SIGMA2 = (k * LANES for k in range(3))
_LARGEST, _MX, _BEST, _A, _B, _A_LAST, _B_LAST = (k * LANES for k in range(3, 10))
REGS_SIZE = 10 * LANES
#: elements handled per visit of a lane, so that running sums are loaded and stored once in so many
_CHUNK = 4


@inline(vector_bits=WIDE)
def load(tile, matrix, values, start, n_lanes, period):  # type: ignore[no-untyped-def]
    """Lane ``j`` of a matrix = 32 of ``values`` from ``(start + j) % period * 32`` on; zeros from lane ``n_lanes`` on."""
    for j in range(LANES):
        at = (start + j) % period * 32
        for i in range(32):
            tile[matrix + i * LANES + j] = values[at + i] if j < n_lanes else ZERO


@inline(vector_bits=WIDE)
def sum_squares(tile, regs):  # type: ignore[no-untyped-def]
    """SIGMA2 = Σ x·x."""
    for j in range(LANES):
        regs[SIGMA2 + j] = ZERO
    for row in range(0, _MATRIX, LANES):
        for j in range(LANES):
            x = tile[X + row + j]
            regs[SIGMA2 + j] += x * x


@inline(vector_bits=WIDE)
def square(tile):  # type: ignore[no-untyped-def]
    """Importance without an imatrix: W = x·x."""
    for k in range(_MATRIX):
        x = tile[X + k]
        tile[W + k] = x * x


@inline(vector_bits=WIDE)
def weigh(tile, regs):  # type: ignore[no-untyped-def]
    """Importance with one, which stands in W: W = q · sqrt(SIGMA2 + x·x)."""
    for row in range(0, _MATRIX, LANES):
        for j in range(LANES):
            x = tile[X + row + j]
            tile[W + row + j] *= np.sqrt(regs[SIGMA2 + j] + x * x)


@inline(vector_bits=WIDE)
def search_scales(tile, regs):  # type: ignore[no-untyped-def]
    """SCALE = the best scale of every lane, 0 where all weights are; X and W are read, the other matrices overwritten."""
    _find_largest(tile, regs)
    for j in range(LANES):
        regs[INVERSE + j] = ONE / (-regs[_MX + j] / _LOWEST)
    _try_all_values(tile, regs, LOW)
    for j in range(LANES):
        a, b = regs[_A + j], regs[_B + j]
        scale = a / b if b > ZERO else ZERO
        regs[SCALE + j] = scale
        regs[_BEST + j] = scale * a
    _invert(regs, _LAST)
    _try_all_values(tile, regs, HIGH)
    for j in range(LANES):
        regs[_A_LAST + j] = regs[_A + j]
        regs[_B_LAST + j] = regs[_B + j]
    _invert(regs, -_LAST)
    _try_all_values(tile, regs, LOW)
    _keep_better(regs, _A, _B)
    for k in range(_MATRIX):
        low, high = tile[LOW + k], tile[HIGH + k]
        tile[MIDDLE + k] = (low + high) * HALF
        tile[LOW + k] = low if low < high else high
        tile[HIGH + k] = high if low < high else low
    for t in range(-6, 7):
        _invert(regs, np.float32(t))
        _try_two_values(tile, regs)
        _keep_better(regs, _A, _B)
    _keep_better(regs, _A_LAST, _B_LAST)
    for j in range(LANES):
        scale = regs[SCALE + j]
        regs[SCALE + j] = ZERO if regs[_LARGEST + j] < EPSILON else scale


@inline(vector_bits=WIDE)
def _find_largest(tile, regs):  # type: ignore[no-untyped-def]
    for j in range(LANES):
        regs[_LARGEST + j] = ZERO
        regs[_MX + j] = ZERO
    for row in range(0, _MATRIX, LANES):
        for j in range(LANES):
            x = tile[X + row + j]
            largest, mx = regs[_LARGEST + j], regs[_MX + j]
            larger = magnitude(x) > largest
            regs[_LARGEST + j] = magnitude(x) if larger else largest
            regs[_MX + j] = x if larger else mx


@inline(vector_bits=WIDE)
def _invert(regs, t):  # type: ignore[no-untyped-def]
    """INVERSE = that of candidate ``t``."""
    for j in range(LANES):
        regs[INVERSE + j] = (t + _LOWEST) / regs[_MX + j]


@inline(vector_bits=WIDE)
def _try_all_values(tile, regs, matrix):  # type: ignore[no-untyped-def]
    """_A = Σ w·q·x and _B = Σ w·q·q for the values q nearest to INVERSE · x, which go into ``matrix``."""
    for j in range(LANES):
        regs[_A + j] = ZERO
        regs[_B + j] = ZERO
    for row in range(0, _MATRIX, LANES):
        for j in range(LANES):
            x = tile[X + row + j]
            q = _value_of(regs[INVERSE + j] * x)
            wq = tile[W + row + j] * q
            regs[_A + j] += wq * x
            regs[_B + j] += wq * q
            tile[matrix + row + j] = q


@inline(vector_bits=WIDE)
def _try_two_values(tile, regs):  # type: ignore[no-untyped-def]
    """The same when the nearest value can only be LOW or HIGH."""
    for j in range(LANES):
        regs[_A + j] = ZERO
        regs[_B + j] = ZERO
    for chunk in range(0, _MATRIX, _CHUNK * LANES):
        for j in range(LANES):
            inverse, a, b = regs[INVERSE + j], regs[_A + j], regs[_B + j]
            for i in range(_CHUNK):
                at = chunk + i * LANES + j
                x = tile[X + at]
                low, high = tile[LOW + at], tile[HIGH + at]
                q = low if inverse * x < tile[MIDDLE + at] else high
                wq = tile[W + at] * q
                a += wq * x
                b += wq * q
            regs[_A + j] = a
            regs[_B + j] = b


@inline(vector_bits=WIDE)
def _keep_better(regs, sum_a, sum_b):  # type: ignore[no-untyped-def]
    """Take the scale a / b where it fits better: where a² / b is larger."""
    for j in range(LANES):
        a, b = regs[sum_a + j], regs[sum_b + j]
        scale, best = regs[SCALE + j], regs[_BEST + j]
        better = (b > ZERO) & (a * a > best * b)
        scale = a / b if better else scale
        regs[SCALE + j] = scale
        regs[_BEST + j] = scale * a if better else best


@inline(vector_bits=WIDE)
def encode(tile, regs, codes):  # type: ignore[no-untyped-def]
    """Codes of INVERSE · x, two to a byte: ``codes[j * 16 + i]`` holds weight ``i`` (low) and ``i + 16`` of lane ``j``."""
    for row in range(0, _MATRIX, LANES):
        for j in range(LANES):
            tile[LOW + row + j] = _code_of(regs[INVERSE + j] * tile[X + row + j])
    for j in range(LANES):
        for i in range(16):
            pair = tile[LOW + i * LANES + j] + _SIXTEEN * tile[LOW + (i + 16) * LANES + j]
            codes[j * 16 + i] = np.uint8(np.int32(pair))


@inline
def _value_of(y):  # type: ignore[no-untyped-def]
    """The value nearest to ``y`` (ties up): the lowest one plus the gaps that ``y`` has passed."""
    q = _LOWEST
    for k in range(15):
        q += ZERO if y < _MIDPOINTS[k] else _GAPS[k]
    return q


@inline
def _code_of(y):  # type: ignore[no-untyped-def]
    """The code of that value: the number of midpoints passed, as float32. NaN passes all, as in the reference."""
    c = ZERO
    for k in range(15):
        c += ZERO if y < _MIDPOINTS[k] else ONE
    return c
