"""TQ1_0: 256 ternary weights in 54 bytes, five to a byte.

    qs 48 | qh 4 | d f16        bytes 0-31: weights m + 32n; 32-47: 160 + m + 16n; qh: 240 + m + 4n, only four a byte

A byte is the fraction of 256 that its number of five ternary digits is of 243, rounded up, so that multiplying by 3 moves
the next digit over the point.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import get_f16, inline, kernel, put_f16
from ...kernels.tiles import block_largest
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._ternary import reciprocal, trit

_BLOCK, _BYTES = 256, 54


@inline
def _fraction(a, b, c, d, e):  # type: ignore[no-untyped-def]
    """ceil(256/243 of the number with the ternary digits a … e); the multiplication divides exactly for all 243 numbers."""
    number = a
    for digit in (b, c, d, e):
        number = np.int32(np.int32(number * np.int32(3)) + digit)
    return np.uint8(np.int32(np.int32(np.int32(number << 8) + np.int32(242)) * np.int32(8631)) >> 21)


@kernel
def _pack(x, out, scale):  # type: ignore[no-untyped-def]
    """x : float32[n_blocks, 256]; out : uint8[n_blocks, 54]; scale : float32[n_blocks]."""
    for b in range(len(x)):
        f = reciprocal(scale[b])
        v, qs = x[b, :160], out[b, :32]
        for m in range(len(qs)):
            first, second = trit(v[m], f), trit(v[m + 32], f)
            qs[m] = _fraction(first, second, trit(v[m + 64], f), trit(v[m + 96], f), trit(v[m + 128], f))
        v, qs = x[b, 160:240], out[b, 32:48]
        for m in range(len(qs)):
            first, second = trit(v[m], f), trit(v[m + 16], f)
            qs[m] = _fraction(first, second, trit(v[m + 32], f), trit(v[m + 48], f), trit(v[m + 64], f))
        v, qs = x[b, 240:], out[b, 48:52]
        for m in range(4):
            first, second = trit(v[m], f), trit(v[m + 4], f)
            qs[m] = _fraction(first, second, trit(v[m + 8], f), trit(v[m + 12], f), np.int32(0))
        put_f16(out[b], 52, scale[b])


@inline
def _digit(fraction, power):  # type: ignore[no-untyped-def]
    """The ternary digit of ``fraction`` that stands behind ``power`` = 3^n others, less one, as float32."""
    left = np.int32(np.int32(np.int32(fraction) * np.int32(power)) & 0xFF)
    return np.float32(np.int32(np.int32(left * np.int32(3)) >> 8) - 1)


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 54]; out : float32[n_blocks, 256] = (level - 1) · d."""
    for b in range(len(out)):
        d = get_f16(data[b], 52)
        power = 1
        for n in range(5):
            qs, values = data[b, :32], out[b, 32 * n : 160]
            for m in range(len(qs)):
                values[m] = _digit(qs[m], power) * d
            qs, values = data[b, 32:48], out[b, 160 + 16 * n : 240]
            for m in range(len(qs)):
                values[m] = _digit(qs[m], power) * d
            for m in range(4 if n < 4 else 0):
                out[b, 240 + 4 * n + m] = _digit(data[b, 48 + m], power) * d
            power *= 3


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    values, blocks = x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES)
    scale = np.empty(len(values), np.float32)
    block_largest(values, scale)
    _pack(values, blocks, scale)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["TQ1_0"], _encode, _decode)
