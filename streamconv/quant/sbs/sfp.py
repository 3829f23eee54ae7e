"""SFP: a float in a byte, of which values above 2^-8 have three bits of mantissa and the others two.

    sign 1 | code 7       code 0 is zero; 1 … 63: exponent 4, mantissa 2 bits; 64 … 127: exponent 3, mantissa 3 bits

Codes are the upper bits of bfloat16 with another bias, so both directions are shifts. What is below the smallest value but not
half of it becomes the smallest; -0 becomes 0.

Source: gemma.cpp ``compression/sfp-inl.h`` (October 2025); bit-exact. The reference truncates to bfloat16 and drops the lowest bit
of that before it rounds, so ties are found where there were none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.lanes import ONE, bits, from_bits, inline, kernel, magnitude
from ...kernels.tiles import GROUP, prefetch, value
from ...rows import Bytes, Floats
from .types import LARGEST, SbsCodec, inverse_of

#: a cache line of bfloat16
_ROW = 32
_TOP = np.float32(LARGEST)
#: bits of a bfloat16, without the lowest one of the mantissa, above which values have three bits of mantissa: rounding to two
#: would carry into the exponent where they begin
_FEW_BITS = np.int16(119 << 6 | 59)


@inline
def to_sfp(v):  # type: ignore[no-untyped-def]
    """The byte of float32 ``v``, uint8; the magnitude is at most 1.875. All in int16: twice as many fit a register."""
    word = np.int16(bits(v) >> 16)
    t = np.int16(np.int16(word >> 1) & 0x3FFF)  # eight bits of exponent and six of mantissa
    few = np.int16(np.int16(np.int16(t + 7) + np.int16(np.int16(t >> 4) & 1)) >> 4)
    few = np.int16(few - np.int16(104 << 2))
    # where the exponent is the smallest, zero is another code than a mantissa of zero
    few = np.int16(1) if few == 0 else few
    few = np.int16(0) if few < 0 else few
    many = np.int16(np.int16(np.int16(t << 1) + np.int16(7)) + np.int16(np.int16(t >> 3) & 1))
    many = np.int16(np.int16(many >> 4) - np.int16(112 << 3))
    code = many if t > _FEW_BITS else few
    sign = np.int16(np.int16(word >> 8) & 0x80)
    return np.uint8(code | (sign if code > 0 else np.int16(0)))


@inline
def from_sfp(byte):  # type: ignore[no-untyped-def]
    """The value of int32 ``byte``, float32; 0x80 is -0."""
    code = np.int32(byte & 0x7F)
    few = np.int32(np.int32(0x3400 + np.int32(code << 5)) << 16)
    many = np.int32(np.int32(0x3800 + np.int32(code << 4)) << 16)
    found = many if code >= 64 else few
    found = found if code > 0 else np.int32(0)
    return from_bits(np.int32(found | np.int32(np.int32(byte & 0x80) << 24)))


@inline
def in_range(v, inverse):  # type: ignore[no-untyped-def]
    """float32 ``v`` in units of the scale; what rounding leaves above the largest value is that."""
    v = v * inverse
    return np.copysign(_TOP, v) if magnitude(v) > _TOP else v


@kernel
def _encode(x, out, inverse):  # type: ignore[no-untyped-def]
    """x : float32[n_rows, n], or bfloat16 as uint16; out : uint8[n_rows, n]; inverse : float32, 1 / scale."""
    for b in range(len(x)):
        prefetch(x, b + GROUP)  # memory is slower than this
        values, codes = x[b], out[b]
        if inverse == ONE:
            for i in range(len(values)):
                codes[i] = to_sfp(value(values[i]))
        else:
            for i in range(len(values)):
                codes[i] = to_sfp(in_range(value(values[i]), inverse))


@kernel
def _decode(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n]; out : float32[n]."""
    for i in range(len(out)):
        out[i] = from_sfp(np.int32(data[i]))


def _packed(x: Any, out: Bytes, scale: np.float32) -> None:
    inverse, whole = inverse_of(scale), len(x) // _ROW * _ROW
    _encode(x[:whole].reshape(-1, _ROW), out[:whole].reshape(-1, _ROW), inverse)
    if whole < len(x):
        _encode(x[whole:].reshape(1, -1), out[whole:].reshape(1, -1), inverse)


def _unpacked(data: Bytes, out: Floats) -> None:
    _decode(data, out)


CODEC = SbsCodec(_packed, _unpacked)
