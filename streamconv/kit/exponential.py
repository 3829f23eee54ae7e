"""exp of float32, the same bits on every processor: those that torch gives with MKL on processors with AVX-512.

Reference files hold what torch computes, and what that is depends on the processor: MKL's bits with AVX2 or SSE4 are others, each
off the nearest float32 in about one case of a hundred. Those of AVX-512 follow from this, found by comparing results:

    x = (n + 32 k) ln2/32 + r,  0 <= r < ln2/32,  exp x = 2^k T (1 + p),  p = r + t + (c2 + c3 r) r^2,  T (1 + t) = 2^(n/32)

in float32 with fused multiply-adds. Beyond ±87, where float32 ends, MKL does something else; we do not.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats

_N = 32
_BITS = 160
#: beyond, all is 0 or infinite
_LIMIT = np.float32(110)
_SCALE, _STEP, _STEP_LOW, _C2, _C3 = (np.float32(float.fromhex(h)) for h in (
    "0x1.715476p+5", "0x1.62e43p-6", "-0x1.05c61p-34", "0x1.0001ecp-1", "0x1.5557e6p-3",
))  # fmt: skip


@cache
def _table() -> tuple[Floats, Floats]:
    """``T`` and ``t`` above, float32[32]."""
    whole = [_root_of_power(n) for n in range(_N)]
    near = [np.float32(float(w)) for w in whole]
    rest = [float((w - Fraction(float(t))) / w) for w, t in zip(whole, near, strict=True)]
    return np.array(near, np.float32), np.array(rest, np.float32)


def _root_of_power(n: int) -> Fraction:
    """2 ** (n / 32), by five square roots of integers."""
    root = 1 << (n + _N * _BITS)
    for _ in range(5):
        root = math.isqrt(root)
    return Fraction(root, 1 << _BITS)


def fused(a: Floats, b: Floats | np.float32, c: Floats | np.float32) -> Floats:
    """``a * b + c`` of float32, rounded once.

    The product is exact in float64; of the sum, the last bit is set where something is lost, so that rounding again is right.
    """
    product, addend = a.astype(np.float64) * b, np.asarray(c, np.float64)
    total = product + addend
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    bits: NDArray[np.int64] = total.view(np.int64)
    towards = np.where((lost > 0) == (total > 0), 1, -1)
    bits += np.where((lost != 0) & (bits & 1 == 0), towards, 0)
    return total.astype(np.float32)


def exp(x: Floats) -> Floats:
    """exp of every number of float32 ``x``."""
    near, rest = _table()
    y = np.clip(np.nan_to_num(x), -_LIMIT, _LIMIT)
    n = np.floor(y.astype(np.float64) * _SCALE).astype(np.float32)
    r = fused(n, -_STEP_LOW, fused(n, -_STEP, y))
    k, j = np.divmod(n.astype(np.int32), _N)
    p = fused(fused(r, _C3, _C2), r * r, r + rest[j])
    with np.errstate(over="ignore"):
        made = np.ldexp(fused(near[j], p, near[j]).astype(np.float64), k).astype(np.float32)
    return np.where(np.isnan(x), x, made)
