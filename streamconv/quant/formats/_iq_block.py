"""What the quantizers of IQ2 and IQ3 do around the search: importance, signs, the sub-blocks of a block and its scale.

Source: ggml-quants.c, ``quantize_row_iq2_xxs_impl`` and its siblings (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, ONE, ZERO, clamp, inline, rint_any
from ...kernels.simd import (
    as_floats,
    as_ints,
    choose,
    count_bits,
    first_bit,
    lane_bits,
    largest_lane,
    least_lane,
    load16,
    spread,
    store,
)
from ._iq_nearest import NUMBERS
from ._iq_search import ROOT, W, X

_STEPS = np.float32(31)
_MOST = np.int32(15)
_INFINITY = np.float32(np.inf)
#: the sign byte that seven stored bits stand for
FULL_SIGNS = np.array([s | (bin(s).count("1") & 1) << 7 for s in range(128)], np.uint8)


@inline
def sum_squares(x, first):  # type: ignore[no-untyped-def]
    """Σ x² of the 256 weights from ``x[first]`` on."""
    total = ZERO
    for i in range(first, first + 256):
        total += x[i] * x[i]
    return total


@inline
def load_weights(work, at, x, first, weights, sigma2, plain):  # type: ignore[no-untyped-def]
    """X, W, ROOT of ``work`` from ``at`` on = 256 weights from ``x[first]`` on, their importance, its root.

    Importance is q · sqrt(sigma2 + x²) with importance weights q, and ``plain`` + x² without (``weights`` is empty).
    """
    for i in range(256):
        work[X + at + i] = x[first + i]
    if len(weights):
        column = first % len(weights)
        for i in range(256):
            v = work[X + at + i]
            work[W + at + i] = weights[column + i] * np.sqrt(sigma2 + v * v)
    else:
        for i in range(256):
            v = work[X + at + i]
            work[W + at + i] = plain + v * v
    for i in range(256):
        work[ROOT + at + i] = np.sqrt(work[W + at + i])


@inline
def take_signs(work, at, signs, parity):  # type: ignore[no-untyped-def]
    """Replace 256 weights from ``at`` on by their magnitudes; their signs go to ``signs``, a byte for every eight weights.

    With ``parity`` every byte gets an even number of bits, of which seven tell the eighth: in a group with an odd number of
    negative weights the one that matters least keeps the wrong sign and so has a negative "magnitude".
    """
    numbers = load16(NUMBERS, 0)
    for start in range(at, at + 256, 16):
        v = load16(work, X + start)
        flips = choose(v >= ZERO, numbers & 0, (numbers | 1) << 31)
        size = as_floats(as_ints(v) ^ flips)
        byte = lane_bits(flips < 0)
        if parity:
            cost = load16(work, W + start) * v * v
            for first in range(0, 16, 8):
                odd = count_bits(byte >> first & 255) & 1
                least = first + _least(work, cost, start, first)
                byte ^= odd << least
                size = choose(
                    numbers == np.int32(least if odd else 16), as_floats(as_ints(size) ^ (numbers | 1) << 31), size
                )
        store(work, X + start, size)
        for k in range(2):
            signs[start // 8 + k] = byte >> 8 * k & (127 if parity else 255)


@inline
def _least(work, cost, start, first):  # type: ignore[no-untyped-def]
    """Which of eight lanes from ``first`` on has the least ``cost``, the first of equals; 0 if that of 0 is NaN."""
    numbers = load16(NUMBERS, 0)
    cost = choose((numbers & 8) == np.int32(first), cost, spread(_INFINITY, cost))
    place = first_bit(lane_bits(cost <= least_lane(cost)) >> first)
    if lane_bits(cost == cost) != 65535 or place > 7:
        place = np.int64(0)
        lowest = work[W + start + first] * work[X + start + first] * work[X + start + first]
        for i in range(1, 8):
            v = work[X + start + first + i]
            this = work[W + start + first + i] * v * v
            place = np.int64(i) if this < lowest else place
            lowest = this if this < lowest else lowest
    return place


@inline
def largest(work, at, n):  # type: ignore[no-untyped-def]
    """The largest of ``n`` magnitudes, 16 or 32."""
    first, last = load16(work, X + at), load16(work, X + at + n - 16)
    return largest_lane(choose(first > last, first, last))


@inline
def start_scales(plan, least, work, tops, scales):  # type: ignore[no-untyped-def]
    """``tops`` and ``scales`` that the search of a block starts from; a sub-block below ``least`` counts as zero."""
    for sub in range(256 // plan.n):
        top = largest(work, sub * plan.n, plan.n)
        tops[sub] = ZERO if top < least else top
        scales[sub] = top / np.float32(2 * plan.levels - 1)


@inline
def round_scales(scales, levels):  # type: ignore[no-untyped-def]
    """Step of the scales of sub-blocks and their 4-bit ``levels``: scale ≈ step · (2 · level + 1); 0 for a zero block."""
    top = ZERO
    for sub in range(len(scales)):
        top = top if top > scales[sub] else scales[sub]
    d = top / _STEPS
    inverse = ONE / d
    for sub in range(len(scales)):
        levels[sub] = clamp(rint_any(HALF * (inverse * scales[sub] - ONE)), np.int32(0), _MOST) if top != ZERO else 0
    return d if top != ZERO else ZERO


@inline
def put_u32(out, at, word):  # type: ignore[no-untyped-def]
    """Store the low 32 bits of ``word`` in four bytes."""
    for k in range(4):
        out[at + k] = np.uint8(word >> 8 * k & 255)


@inline
def get_u32(data, at):  # type: ignore[no-untyped-def]
    """What ``put_u32`` stored, int64."""
    low = np.int64(data[at]) | np.int64(data[at + 1]) << 8
    return low | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24


@inline
def decode_points(out, at, values, point, n, signs, d):  # type: ignore[no-untyped-def]
    """``n`` weights from ``out[at]`` on: the values of a grid point times ``d``, negative where a bit of ``signs`` is set."""
    for i in range(n):
        v = d * values[point, i]
        out[at + i] = -v if signs >> i & 1 else v
