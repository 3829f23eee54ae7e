"""The one rounding at the end of every decoder: float32 to the values of a 16-bit type, in place."""

from __future__ import annotations

import numpy as np

from ...quant.lanes import HALF, bits, f32_to_bf16, from_bits, kernel

_ABS, _SIGN = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
_INFINITE = np.int32(0x7F800000)
#: bits of 2^-14, the smallest normal float16, and of 2^16, where float16 ends
_F16_NORMAL, _F16_END = np.int32(0x38800000), np.int32(0x47800000)


@kernel
def round_bf16(x):  # type: ignore[no-untyped-def]
    """Round to bfloat16, ties to even.

    x : float32[n], changed in place
    """
    for i in range(len(x)):
        x[i] = from_bits(np.int32(f32_to_bf16(x[i]) << 16))


@kernel
def round_f16(x):  # type: ignore[no-untyped-def]
    """Round to float16, ties to even; overflow becomes infinity.

    Normal numbers are rounded as integers; below them adding and subtracting 0.5 rounds at 2^-24, the step of float16 there.

    x : float32[n], changed in place
    """
    for i in range(len(x)):
        u = bits(x[i])
        a = np.int32(u & _ABS)
        normal = np.int32(np.int32(a + np.int32(0xFFF) + np.int32((a >> 13) & 1)) & np.int32(-0x2000))
        small = bits((from_bits(a) + HALF) - HALF)
        rounded = small if a < _F16_NORMAL else normal
        rounded = _INFINITE if rounded >= _F16_END else rounded
        rounded = a if a > _INFINITE else rounded
        x[i] = from_bits(np.int32(rounded | np.int32(u & _SIGN)))
