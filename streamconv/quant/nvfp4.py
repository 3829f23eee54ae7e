"""NVFP4: 64 weights in 36 bytes; every sixteen share a small float, and each weight has four bits (``e2m1.py``).

    d 4 | qs 32        d[s] scales weights 16s …; byte 8s + j holds weights 16s + j (low) and 16s + j + 8 (high)

d has four exponent and three mantissa bits and no sign, and counts half: the step is d / 2. There is no scale of the whole
tensor, so magnitudes below 0.006 are lost and those above 2688 saturate.

Source: ggml-quants.c ``quantize_row_nvfp4_ref`` (ggml 0.25.3); bit-exact with one exception. Beside a weight far above 2688
the steps vanish in float32 rounding, and the reference stores it as 0 or another small code. Here it saturates unless
``compat`` asks for the reference's bytes. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ..rows import Bytes, Floats
from .base import Codec
from .e2m1 import VALUES, midpoints, nearest
from .lanes import HALF, ZERO, bits, from_bits, inline, kernel, magnitude
from .types import TYPES

_BLOCK, _SUB, _BYTES = 64, 16, 36
_INF = np.float32(np.inf)
_SIX = np.float32(6.0)
_512 = np.float32(512.0)
#: the smallest normal scale, 2^-6
_NORMAL = np.float32(2.0**-6)
_TOP = np.int32(0x7E)
#: from here on the reference's differences are rounded
_ROUNDED = np.float32(2.0**24)


@inline
def _scale_byte(v):  # type: ignore[no-untyped-def]
    """``v`` >= 0 to 4 exponent and 3 mantissa bits, ties up, int32; what rounds to 256 or more becomes 448."""
    small = np.int32(v * _512 + HALF) if v < _NORMAL else np.int32(0)
    small = small if small < 7 else np.int32(7)
    # the exponent's bias is 7 here and 127 there; bit 19 of the float is the first to go
    normal = np.int32(np.int32(np.int32(bits(v) + 0x80000) >> 20) - np.int32(120 << 3))
    normal = normal if normal < np.int32(15 << 3) else _TOP
    return small if v < _NORMAL else normal


@inline
def _step(scale):  # type: ignore[no-untyped-def]
    """Half the value of scale byte int32 0..127; 0 and 127 are zero."""
    mantissa, field = np.int32(scale & 7), np.int32(scale >> 3)
    small = np.float32(mantissa) * np.float32(2.0**-10)
    normal = from_bits(np.int32(np.int32(np.int32(field + 119) << 23) | np.int32(mantissa << 20)))
    return ZERO if scale == 0x7F else (normal if field > 0 else small)


@inline
def _first_of_least(v, step):  # type: ignore[no-untyped-def]
    """The code of the reference where rounding makes differences equal."""
    best, least = np.int32(0), magnitude(VALUES[0] * step - v)
    for k in range(1, 16):
        difference = magnitude(VALUES[k] * step - v)
        best = np.int32(k) if difference < least else best
        least = difference if difference < least else least
    return best


@kernel
def _quantize(x, out, ties):  # type: ignore[no-untyped-def]
    """x : float32[n_subs, 16], finite; out : uint8[n_subs / 4, 36]; ties : bool, what huge weights become follows the reference."""
    for sub in range(len(x)):
        values, block, part = x[sub], out[sub // 4], sub % 4
        largest = np.int32(0)  # the bits of non-negative floats order like the floats
        for i in range(len(values)):
            size = bits(magnitude(values[i]))
            largest = size if size > largest else largest
        scale = _scale_byte(from_bits(largest) / _SIX)
        block[part] = np.uint8(scale)
        step = _step(scale)
        middle = midpoints(step if step > ZERO else _INF)  # without a step all differences are equal
        qs = block[4 + 8 * part : 12 + 8 * part]
        if ties & (from_bits(largest) > _ROUNDED):
            for j in range(8):
                high = _first_of_least(values[j + 8], step)
                qs[j] = np.uint8(_first_of_least(values[j], step) | np.int32(high << 4))
        else:
            for j in range(len(qs)):
                qs[j] = np.uint8(nearest(values[j], middle) | np.int32(nearest(values[j + 8], middle) << 4))


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_subs / 4, 36]; out : float32[n_subs, 16] = VALUES[code] · step."""
    for sub in range(len(out)):
        values, block, part = out[sub], data[sub // 4], sub % 4
        step = _step(np.int32(block[part]))
        qs = block[4 + 8 * part : 12 + 8 * part]
        for j in range(len(qs)):
            values[j] = VALUES[qs[j] & np.uint8(15)] * step
            values[j + 8] = VALUES[qs[j] >> np.uint8(4)] * step


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    _quantize(x.reshape(-1, _SUB), out.reshape(-1, _BYTES), compat)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _SUB))


CODEC = Codec(TYPES["NVFP4"], _encode, _decode)
