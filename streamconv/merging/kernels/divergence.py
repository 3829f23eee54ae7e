"""Kullback-Leibler divergence between the softmax of two rows, in float64.

``exp`` and ``log`` are our own, so that results do not depend on the machine's mathematical library and loops become SIMD
code. Both are good to 1e-14, far more than the float32 that comes out.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import inline, kernel, magnitude
from .sums import LANES, total_of

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LN2 = 0.6931471805599453
#: 2^52 + 2^51: adding it leaves an integer in the low bits
_MAGIC = 6755399441055744.0
_FLOOR = 1e-8


@inline
def _exp(v):  # type: ignore[no-untyped-def]
    """e^v for -700 <= v <= 0."""
    shifted = v * _LOG2E + _MAGIC
    whole = shifted - _MAGIC
    r = (v - whole * _LN2_HIGH) - whole * _LN2_LOW
    # Taylor series to r^12; |r| <= 0.35
    p = 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    exponent = np.int64((np.float64(shifted).view(np.int64) + 1023) << 52)
    return p * exponent.view(np.float64)


@inline
def log(v):  # type: ignore[no-untyped-def]
    """ln v for normal v > 0."""
    u = np.float64(v).view(np.int64)
    # mantissa in sqrt(1/2) … sqrt(2)
    u -= 0x3FE6A09E667F3BCD
    exponent = u >> 52
    m = np.int64((u & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    # 2 artanh s; |s| <= 0.172
    p = 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    p = p * z + 2.0
    return np.float64(exponent) * _LN2 + s * p


@kernel
def _softmax(row, out):  # type: ignore[no-untyped-def]
    """Softmax plus 1e-8.

    row : float32[n]
    out : float64[n]
    """
    largest = row[0]
    for k in range(len(row)):
        largest = row[k] if row[k] > largest else largest
    top = np.float64(largest)
    for k in range(len(row)):
        v = np.float64(row[k]) - top
        out[k] = _exp(v if v > -700.0 else -700.0)
    total = total_of(out, np.empty(LANES, np.float64))
    for k in range(len(row)):
        out[k] = out[k] / total + _FLOOR


@kernel
def importance(b, x, spare, out):  # type: ignore[no-untyped-def]
    """``|x - b|`` times the divergence of ``softmax(x)`` from ``softmax(b)`` of its row.

    b, x : float32[n_rows, n_cols]
    spare : float64[2, n_cols]
    out : float32[n_rows, n_cols], not negative
    """
    p, q = spare[0], spare[1]
    n_cols = b.shape[1]
    sums = np.empty(LANES, np.float64)
    for row in range(len(out)):
        _softmax(x[row], p)
        _softmax(b[row], q)
        for k in range(n_cols):
            q[k] = p[k] * log(p[k] / q[k])
        total = total_of(q, sums)
        divergence = np.float32(total if total > 0.0 else 0.0)
        for k in range(n_cols):
            out[row, k] = magnitude(x[row, k] - b[row, k]) * divergence
