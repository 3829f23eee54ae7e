"""Random numbers that are a function of a key and a counter, and what is kept by chance with them.

Source: Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3, 2011: Philox4x32-10. Element ``i`` of a
tensor gets word ``i mod 4`` of block ``i / 4``, whatever rows are made together.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ZERO, bits, inline, kernel
from .divergence import log

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_NONE = np.uint64(0)
#: blocks at a time
_STEP = 256


@inline
def _round(a, b, c, d, k0, k1):  # type: ignore[no-untyped-def]
    """One round of four uint64, whose upper halves mean nothing, and the next key."""
    p, q = (a & _LOW) * _M0, (c & _LOW) * _M1
    return (q >> _32) ^ b ^ k0, q, (p >> _32) ^ d ^ k1, p, k0 + _W0, k1 + _W1


@inline
def draw(key, first, low, high, out):  # type: ignore[no-untyped-def]
    """Blocks ``first``, ``first + 1``, … of the stream of ``key``.

    key : uint32[n] or uint64[n] of which the first two count
    first : int64 >= 0, number of the first block
    low, high : uint64[n_blocks], scratch
    out : uint64[n_blocks, 2], two words each, the first one in the lower half
    """
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for j in range(len(low)):  # ten rounds without a loop, into two arrays: only so LLVM makes vectors of blocks
        a = np.uint64(first + j)
        b, c, d, u, v = a >> _32, _NONE, _NONE, k0, k1
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        a, b, c, d, u, v = _round(a, b, c, d, u, v)
        low[j], high[j] = (a & _LOW) | (b << _32), (c & _LOW) | (d << _32)
    for j in range(len(low)):
        out[j, 0], out[j, 1] = low[j], high[j]


@kernel
def philox(key, first, out):  # type: ignore[no-untyped-def]
    """Blocks ``first``, ``first + 1``, … of the stream of ``key``.

    key : uint32[2]
    first : int64 >= 0, number of the first block
    out : uint64[n_blocks, 2], two words each, the first one in the lower half
    """
    low, high = np.empty(_STEP, np.uint64), np.empty(_STEP, np.uint64)
    for at in range(0, len(out), _STEP):
        part = out[at : at + _STEP]
        draw(key, first + at, low[: len(part)], high[: len(part)], part)


@kernel
def normals(words, out):  # type: ignore[no-untyped-def]
    """Normally distributed numbers from uniform words, by the inverse of the cumulative distribution.

    Source: Acklam's rational approximation, 2003, relative error below 1.2e-9; in float64, with a logarithm of our own.

    words : uint32[n]
    out : float32[n]
    """
    for k in range(len(words)):
        p = (np.float64(words[k]) + 0.5) * 2.0**-32
        tail = p if p < 0.5 else 1.0 - p
        if tail < 0.02425:
            q = np.sqrt(-2.0 * log(tail))
            top = ((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838) * q
                    - 2.549732539343734) * q + 4.374664141464968) * q + 2.938163982698783  # fmt: skip
            low = (((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996) * q
                   + 3.754408661907416) * q + 1.0  # fmt: skip
            out[k] = np.float32(top / low if p < 0.5 else -(top / low))
        else:
            q = p - 0.5
            r = q * q
            top = (((((-3.969683028665376e01 * r + 2.209460984245205e02) * r - 2.759285104469687e02) * r
                     + 1.383577518672690e02) * r - 3.066479806614716e01) * r + 2.506628277459239) * q  # fmt: skip
            low = ((((-5.447609879822406e01 * r + 1.615858368580409e02) * r - 1.556989798598866e02) * r
                    + 6.680131188771972e01) * r - 1.328068155288572e01) * r + 1.0  # fmt: skip
            out[k] = np.float32(top / low)


@kernel
def keep_by_rank(x, words, low, high):  # type: ignore[no-untyped-def]
    """Clear elements of rows by chance; the larger an element among those of its row, the likelier it stays.

    The smallest is kept with probability ``low``, the largest with ``high``, those between in steps of equal size; equal ones
    are ranked as they stand. A row of one element takes the mean.

    x : float32[n_rows, n_cols], changed in place
    words : uint32[n_rows, n_cols]
    low, high : float64 probabilities
    """
    n_cols = x.shape[1]
    order, spare = np.empty(n_cols, np.uint32), np.empty(n_cols, np.uint32)
    counts = np.empty(1 << 11, np.int64)
    for row in range(len(x)):
        for k in range(n_cols):
            order[k] = k
        ranked = _sorted(x[row], order, spare, counts)
        for rank in range(n_cols):
            share = rank / (n_cols - 1) if n_cols > 1 else 0.5
            k = ranked[rank]
            if np.float64(words[row, k]) >= (low + share * (high - low)) * 4294967296.0:
                x[row, k] = ZERO


@kernel
def _sorted(x, order, spare, counts):  # type: ignore[no-untyped-def]
    """Indices of ``x`` in ascending order of |x|: a radix sort of 11, 10 and 10 bits, stable.

    x : float32[n]
    order, spare : uint32[n]; ``order`` counts up; the result is one of them
    counts : int64[2048]
    """
    for shift, width in ((0, 11), (11, 10), (21, 10)):
        mask = np.int32((1 << width) - 1)
        counts[:] = 0
        for k in range(len(x)):
            counts[((bits(x[k]) & np.int32(0x7FFFFFFF)) >> np.int32(shift)) & mask] += 1
        total = 0
        for digit in range(1 << width):
            total, counts[digit] = total + counts[digit], total
        for k in range(len(x)):
            index = order[k]
            digit = ((bits(x[index]) & np.int32(0x7FFFFFFF)) >> np.int32(shift)) & mask
            spare[counts[digit]] = index
            counts[digit] += 1
        order, spare = spare, order
    return order
