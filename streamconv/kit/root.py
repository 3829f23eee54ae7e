"""Square roots of float32, the same bits on every processor: those that torch gives with MKL on processors with AVX-512.

Reference files hold what torch computes. MKL takes an estimate y of 1/sqrt(x), of 14 bits, and makes it better once, in float32
with fused multiply-adds: ``s = x y, s + (x - s s) y/2``; this is off the nearest float32 in six cases of a thousand. The estimate
is that of the instruction VRSQRT14PS: linear in the first 15 bits behind the point in each of 32 parts of an octave, found by
comparing results.
"""

from __future__ import annotations

import numpy as np

from ..rows import Floats
from .exponential import fused

#: of each part of [1, 2) and of [2, 4): the estimate where it begins, and what it loses from one step to the next, times 2^26
_START = np.array((
    67105920, 66080896, 65102464, 64166144, 63268608, 62407552, 61580928, 60786816, 60022016, 59285632, 58575744, 57891328,
    57229568, 56589568, 55971712, 55373184, 54793088, 54231424, 53686144, 53156864, 52643456, 52144512, 51659776, 51188096,
    50728832, 50281856, 49847040, 49422080, 49008512, 48605952, 48211840, 47828224, 47450752, 46726272, 46034432, 45371904,
    44738048, 44129152, 43544704, 42982528, 42442368, 41921920, 41419392, 40935040, 40467072, 40015104, 39577728, 39155072,
    38744960, 38347136, 37961600, 37588096, 37224832, 36871936, 36528640, 36195328, 35870976, 35554944, 35246976, 34946816,
    34654848, 34369152, 34091008, 33819392,
))  # fmt: skip
_LOSS = np.array((
    1001, 955, 915, 877, 841, 807, 775, 747, 719, 693, 669, 647, 625, 603, 585, 567, 549, 533, 517, 501, 487, 473, 461,
    449, 437, 425, 415, 403, 393, 385, 375, 367, 707, 675, 647, 619, 595, 571, 549, 527, 509, 491, 473, 457, 441, 427, 413,
    401, 389, 377, 365, 355, 345, 335, 325, 317, 309, 301, 293, 285, 279, 271, 265, 259,
))  # fmt: skip
#: beyond, the nearest float32 is given
_LEAST, _MOST = np.float32(1e-30), np.float32(1e30)


def root(x: Floats) -> Floats:
    """Square root; not a number below 0.

    >>> root(np.array([1.1748605, 4.0, 0.0], np.float32)).tolist() == [1.0839097499847412, 2.0, 0.0]
    True
    """
    usual = (x > _LEAST) & (x < _MOST)
    half = (np.frexp(x)[1] - 1) >> 1
    near = np.where(usual, np.ldexp(x, -2 * half), np.float32(1))
    bits = near.view(np.uint32).astype(np.int64)
    part = (((bits >> 23) - 127) << 5) | ((bits >> 18) & 31)
    estimate = ((_START[part] - _LOSS[part] * ((bits >> 8) & 1023)) >> 9).astype(np.float32) * np.float32(2**-17)
    first = near * estimate
    better = fused(fused(-first, first, near), np.float32(0.5) * estimate, first)
    with np.errstate(invalid="ignore"):
        return np.where(usual, np.ldexp(better, half), np.sqrt(x)).astype(np.float32)
