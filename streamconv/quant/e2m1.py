"""What MXFP4 and NVFP4 share: weights of four bits, a sign and one of the magnitudes 0, 1, 2, 3, 4, 6, 8, 12 of a step.

The reference takes the code whose value differs least, the first of equals. Seven comparisons with the midpoints find the
same one: a step has at most four bits, so midpoints are float32 numbers; beside a midpoint the reference's differences are
exact; and on a tie both take the smaller magnitude.
"""

from __future__ import annotations

import numpy as np

from .lanes import inline, magnitude

#: value of each code in steps; code 8, a negative zero, is never made
VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)

_INF = np.float32(np.inf)
_EIGHT = np.float32(8.0)
_M0, _M1, _M2, _M3, _M4, _M5, _M6 = (np.float32(m) for m in (0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0))


@inline
def midpoints(step):  # type: ignore[no-untyped-def]
    """The seven midpoints between magnitudes of this step; infinite before a magnitude that overflows."""
    last = _M5 * step if step * _EIGHT < _INF else _INF
    return _M0 * step, _M1 * step, _M2 * step, _M3 * step, _M4 * step, last, _M6 * step


@inline
def nearest(v, m):  # type: ignore[no-untyped-def]
    """The code 0..15 of ``v`` as int32, given the midpoints of its step."""
    size = magnitude(v)
    level = np.int32(np.int32(size > m[0]) + np.int32(size > m[1]))
    level = np.int32(level + np.int32(np.int32(size > m[2]) + np.int32(size > m[3])))
    level = np.int32(level + np.int32(np.int32(size > m[4]) + np.int32(size > m[5])))
    level = np.int32(level + np.int32(size > m[6]))
    return np.int32(level | np.int32(8)) if v < -m[0] else level
