"""What MXFP4 and NVFP4 share: weights of four bits, a sign and one of the magnitudes 0, 1, 2, 3, 4, 6, 8, 12 of a step.

The reference takes the code whose value differs least, the first of equals. Comparisons with the midpoints between magnitudes
find the same one: a step has at most four bits, so midpoints are float32 numbers; beside a midpoint the reference's differences are
exact; and on a tie both take the smaller magnitude.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, WIDE, ZERO, inline, kernel, magnitude

#: value of each code in steps; code 8, a negative zero, is never made
VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)

_INF = np.float32(np.inf)
_TWO, _FOUR, _EIGHT = np.float32(2.0), np.float32(4.0), np.float32(8.0)
_M0, _M1, _M2, _M3, _M4, _M5, _M6 = (np.float32(m) for m in (0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0))


@inline
def _midpoints(step):  # type: ignore[no-untyped-def]
    """The seven midpoints between magnitudes of this step; infinite before a magnitude that overflows."""
    last = _M5 * step if step * _EIGHT < _INF else _INF
    return _M0 * step, _M1 * step, _M2 * step, _M3 * step, _M4 * step, last, _M6 * step


@inline
def _nearest(v, m):  # type: ignore[no-untyped-def]
    """The code 0..15 of ``v`` as float32, given the midpoints of its step: a search in three comparisons.

    A float, because LLVM would make each comparison's integer a byte at once, which costs more than the comparison.
    """
    size = magnitude(v)
    upper = size > m[3]
    middle = m[5] if upper else m[1]
    high = size > middle
    above = m[6] if high else m[4]
    below = m[2] if high else m[0]
    last = above if upper else below
    code = (_FOUR if upper else ZERO) + (_TWO if high else ZERO)
    code += ONE if size > last else ZERO
    return code + (_EIGHT if v < -m[0] else ZERO)


@kernel(vector_bits=WIDE)
def encode(x, codes, step):  # type: ignore[no-untyped-def]
    """The nearest code of every weight; where the step is 0 every code is as near, and the first is taken.

    x : float32[n_groups, size]; codes : uint8[n_groups, size], one a byte; step : float32[n_groups]
    """
    for g in range(len(x)):
        values, found = x[g], codes[g]
        m = _midpoints(step[g] if step[g] > ZERO else _INF)
        for i in range(len(values)):
            found[i] = np.uint8(np.int32(_nearest(values[i], m)) & 0xFF)
