"""NVFP4: 64 weights in 36 bytes; every sixteen share a small float, and each weight has four bits (``_e2m1.py``).

    d 4 | qs 32        d[s] scales weights 16s …; byte 8s + j holds weights 16s + j (low) and 16s + j + 8 (high)

d has four exponent and three mantissa bits and no sign, and counts half: the step is d / 2. There is no scale of the whole
tensor, so magnitudes below 0.006 are lost and those above 2688 saturate.

Source: ggml-quants.c ``quantize_row_nvfp4_ref`` (ggml 0.25.3); bit-exact with one exception. Beside a weight far above 2688
the steps vanish in float32 rounding, and the reference stores it as 0 or another small code. Here it saturates unless
``compat`` asks for the reference's bytes. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, ZERO, bits, from_bits, inline, kernel, magnitude
from ...kernels.tiles import block_largest
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._e2m1 import VALUES, encode

_BLOCK, _SUB, _BYTES = 64, 16, 36
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
    """Half the value of scale byte int32 0..255, whose sign does not count; 0 and 127 are zero."""
    mantissa, field = np.int32(scale & 7), np.int32(scale >> 3 & 15)
    small = np.float32(mantissa) * np.float32(2.0**-10)
    normal = from_bits(np.int32(np.int32(np.int32(field + 119) << 23) | np.int32(mantissa << 20)))
    return ZERO if scale == 0x7F else (normal if field > 0 else small)


@kernel
def _scales(top, step, out):  # type: ignore[no-untyped-def]
    """The scale byte of sixteen weights each and the step it means.

    top, step : float32[n_subs]; out : uint8[n_subs / 4, 36]
    """
    for sub in range(len(top)):
        scale = _scale_byte(top[sub] / _SIX)
        out[sub // 4, sub % 4] = np.uint8(scale)
        step[sub] = _step(scale)


@kernel
def _first_of_equals(x, codes, top, step):  # type: ignore[no-untyped-def]
    """Beside huge weights the first code of least difference, as the reference takes it.

    x : float32[n_subs, 16]; codes : uint8[n_subs, 16]; top, step : float32[n_subs]
    """
    for sub in range(len(x)):
        if top[sub] > _ROUNDED:
            for i in range(_SUB):
                best, least = 0, magnitude(x[sub, i])
                for k in range(1, 16):
                    difference = magnitude(VALUES[k] * step[sub] - x[sub, i])
                    if difference < least:
                        best, least = k, difference
                codes[sub, i] = np.uint8(best)


@kernel
def _pack(codes, out):  # type: ignore[no-untyped-def]
    """codes : uint64[n_subs, 2], eight weights each; out : uint8[n_subs / 4, 36]."""
    for sub in range(len(codes)):
        pairs = np.uint64(codes[sub, 0] | (codes[sub, 1] << np.uint64(4)))
        qs = out[sub // 4, 4 + 8 * (sub % 4) : 12 + 8 * (sub % 4)]
        for j in range(8):
            qs[j] = np.uint8((pairs >> np.uint64(8 * j)) & np.uint64(0xFF))


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
    values, blocks = x.reshape(-1, _SUB), out.reshape(-1, _BYTES)
    top, step = np.empty((2, len(values)), np.float32)
    codes = np.empty(values.shape, np.uint8)
    block_largest(values, top)
    _scales(top, step, blocks)
    encode(values, codes, step)
    if compat:
        _first_of_equals(values, codes, top, step)
    _pack(codes.view(np.uint64), blocks)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _SUB))


CODEC = Codec(TYPES["NVFP4"], _encode, _decode)
