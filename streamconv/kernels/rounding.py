"""float32 to the values of a 16-bit type: the rounding at the end of every decoder and merge."""

from __future__ import annotations

import numpy as np

from .lanes import HALF, bf16_to_f32, bits, f32_to_bf16, from_bits, inline, kernel

_ABS, _SIGN = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
_INFINITE = np.int32(0x7F800000)
#: what makes a NaN a quiet one, which keeps it a NaN when its lower half goes; and the half that stays
_QUIET, _HIGH_HALF = np.int32(0x400000), np.int32(-0x10000)
#: bits of 2^-14, the smallest normal float16, and of 2^16, where float16 ends
_F16_NORMAL, _F16_END = np.int32(0x38800000), np.int32(0x47800000)


@inline
def rounded_bf16(v):  # type: ignore[no-untyped-def]
    """The nearest bfloat16, ties to even, still float32."""
    u = bits(v)
    nearest = np.int32(np.int32(u + np.int32(0x7FFF)) + np.int32((u >> 16) & 1))
    return from_bits(np.int32((nearest if v == v else np.int32(u | _QUIET)) & _HIGH_HALF))


@inline
def rounded_f16(v):  # type: ignore[no-untyped-def]
    """The nearest float16, ties to even, still float32; overflow becomes infinity.

    Normal numbers are rounded as integers; below them adding and subtracting 0.5 rounds at 2^-24, the step of float16 there.
    """
    u = bits(v)
    a = np.int32(u & _ABS)
    normal = np.int32(np.int32(a + np.int32(0xFFF) + np.int32((a >> 13) & 1)) & np.int32(-0x2000))
    small = bits((from_bits(a) + HALF) - HALF)
    rounded = small if a < _F16_NORMAL else normal
    rounded = _INFINITE if rounded >= _F16_END else rounded
    rounded = a if a > _INFINITE else rounded
    return from_bits(np.int32(rounded | np.int32(u & _SIGN)))


@kernel
def round_bf16(x):  # type: ignore[no-untyped-def]
    """Round to bfloat16.

    x : float32[n], changed in place
    """
    for i in range(len(x)):
        x[i] = rounded_bf16(x[i])


@kernel
def round_f16(x):  # type: ignore[no-untyped-def]
    """Round to float16.

    x : float32[n], changed in place
    """
    for i in range(len(x)):
        x[i] = rounded_f16(x[i])


@kernel
def pack_bf16(x, words):  # type: ignore[no-untyped-def]
    """Round to bfloat16 as it is stored, ties to even; return the largest magnitude, NaN when there is one.

    x : float32[n]
    words : uint16[n]
    """
    found = np.int32(0)
    for i in range(len(words)):
        word = f32_to_bf16(x[i])
        words[i] = word
        size = np.int32(word & 0x7FFF)
        found = size if size > found else found
    return bf16_to_f32(found)


def warm_up() -> None:
    """Compile the kernels that decoders need."""
    x = np.zeros(1, np.float32)
    round_bf16(x)
    round_f16(x)
