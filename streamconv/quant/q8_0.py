"""Q8_0: 32 weights in 34 bytes; d f16 and int8 levels.

Source: ggml-quants.c ``quantize_row_q8_0_ref``. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ..rows import Bytes, Floats
from .base import Codec
from .lanes import HALF, ONE, ZERO, bits, from_bits, get_f16, kernel, magnitude, put_f16, to_int32
from .types import TYPES

_BLOCK, _BYTES = 32, 34
_127 = np.float32(127.0)
_WILD = np.float32(1e9)


@kernel
def _quantize(x, out):  # type: ignore[no-untyped-def]
    """x : float32[n_blocks, 32], finite; out : uint8[n_blocks, 34]."""
    for b in range(len(x)):
        values, block = x[b], out[b]
        largest = np.int32(0)  # the bits of non-negative floats order like the floats
        for i in range(_BLOCK):
            size_bits = bits(magnitude(values[i]))
            largest = size_bits if size_bits > largest else largest
        d = from_bits(largest) / _127
        inverse = ONE / d if d != ZERO else ZERO
        put_f16(block, 0, d)
        for i in range(_BLOCK):
            v = values[i] * inverse
            # half away from zero: |v| - trunc|v| is exact, so this is roundf
            size = magnitude(v)
            whole = to_int32(size)
            whole += np.int32(1) if size - np.float32(whole) >= HALF else np.int32(0)
            whole = whole if size < _WILD else np.int32(0)  # 1 / d overflows for denormal d
            block[2 + i] = np.uint8((-whole if v < ZERO else whole) & 0xFF)


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 34]; out : float32[n_blocks, 32] = level · d."""
    for b in range(len(out)):
        block, values = data[b], out[b]
        d = get_f16(block, 0)
        for i in range(_BLOCK):
            values[i] = np.float32(np.int8(block[2 + i])) * d


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    _quantize(x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES))


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["Q8_0"], _encode, _decode)
