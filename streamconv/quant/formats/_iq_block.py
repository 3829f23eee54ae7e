"""What the quantizers of IQ2 and IQ3 do around the search: importance, signs, the sub-blocks of a block and its scale.

Source: ggml-quants.c, ``quantize_row_iq2_xxs_impl`` and its siblings (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, ONE, ZERO, clamp, inline, rint_any
from ._iq_search import ROOT, W, X

_STEPS = np.float32(31)
_MOST = np.int32(15)
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
    for g in range(at // 8, at // 8 + 32):
        start = g * 8
        byte = np.int32(0)
        odd = np.int32(0)
        for i in range(8):
            v = work[X + start + i]
            negative = np.int32(0 if v >= ZERO else 1)
            work[X + start + i] = -v if negative else v
            byte |= negative << i
            odd ^= negative
        if parity and odd:
            least = 0
            cost = work[W + start] * work[X + start] * work[X + start]
            for i in range(1, 8):
                v = work[X + start + i]
                this = work[W + start + i] * v * v
                least = i if this < cost else least
                cost = this if this < cost else cost
            byte ^= 1 << least
            work[X + start + least] = -work[X + start + least]
        signs[g] = byte & 127 if parity else byte


@inline
def largest(work, at, n):  # type: ignore[no-untyped-def]
    """The largest of ``n`` magnitudes."""
    top = work[X + at]
    for i in range(at + 1, at + n):
        top = top if top > work[X + i] else work[X + i]
    return top


@inline
def search_block(grid, plan, search, least, work, picks, scales, points, signs):  # type: ignore[no-untyped-def]
    """Scale, grid points and final signs of all sub-blocks; False where the reference terminates.

    search : made for ``plan``
    least : float32; a sub-block below it counts as zero: scale, points and signs 0
    scales : float32[256 / plan.n]; points : int32[256 / plan.dims]; signs : int32[32]
    """
    found = True
    for sub in range(256 // plan.n):
        at = sub * plan.n
        top = largest(work, at, plan.n)
        if top < least:
            scales[sub] = ZERO
            clear(plan, at, points, signs)
        else:
            scales[sub] = search(grid, work, picks, at, top, top / np.float32(2 * plan.levels - 1), points)
            flip(plan, at, scales, sub, signs)
            # a NaN compares false
            found &= points[at // plan.dims] >= 0 and scales[sub] >= ZERO
    return found


@inline
def clear(plan, at, points, signs):  # type: ignore[no-untyped-def]
    """Points and signs of a zero sub-block."""
    for g in range(at // plan.dims, (at + plan.n) // plan.dims):
        points[g] = 0
    for k in range(at // 8, (at + plan.n) // 8):
        signs[k] = 0


@inline
def flip(plan, at, scales, sub, signs):  # type: ignore[no-untyped-def]
    """Make a negative scale positive by flipping all signs (also bits that are not stored)."""
    if scales[sub] < ZERO:
        scales[sub] = -scales[sub]
        for k in range(at // 8, (at + plan.n) // 8):
            signs[k] = ~signs[k]


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
