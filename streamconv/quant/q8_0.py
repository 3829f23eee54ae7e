"""Q8_0: 32 weights in 34 bytes; d f16 and int8 levels.

Source: ggml-quants.c ``quantize_row_q8_0_ref``. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ..rows import Bytes, Floats
from .base import Codec
from .lanes import ONE, ZERO, f32_to_f16, get_f16, kernel
from .tiles import block_largest
from .types import TYPES

_BLOCK, _BYTES = 32, 34
_127 = np.float32(127.0)
_INF = np.float32(np.inf)
#: the largest float32 below one half: added before truncating it gives C ``roundf``, which 0.5 would not
_BELOW_HALF = np.float32(0.49999997)


@kernel
def _scales(top, factor, head):  # type: ignore[no-untyped-def]
    """d = top / 127: its reciprocal and its float16 bits; the levels of a d too small to have a reciprocal are 0.

    top, factor : float32[n_blocks]; head : uint16[n_blocks]
    """
    for b in range(len(top)):
        d = top[b] / _127
        inverse = ONE / d if d != ZERO else ZERO
        factor[b] = inverse if inverse < _INF else ZERO
        head[b] = f32_to_f16(d)


@kernel
def _pack(x, out, factor, head):  # type: ignore[no-untyped-def]
    """x : float32[n_blocks, 32], finite; out : uint8[n_blocks, 34]; factor : float32[n_blocks]; head : uint16[n_blocks]."""
    for b in range(len(x)):
        values, block = x[b], out[b]
        block[0], block[1] = np.uint8(head[b] & 0xFF), np.uint8(head[b] >> 8)
        f, qs = factor[b], block[2:]
        for i in range(len(qs)):
            v = values[i] * f
            qs[i] = np.uint8(np.int32(v + np.copysign(_BELOW_HALF, v)) & 0xFF)


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 34]; out : float32[n_blocks, 32] = level · d."""
    for b in range(len(out)):
        block, values = data[b], out[b]
        d = get_f16(block, 0)
        for i in range(_BLOCK):
            values[i] = np.float32(np.int8(block[2 + i])) * d


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    values, blocks = x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES)
    top, factor = np.empty((2, len(values)), np.float32)
    head = np.empty(len(values), np.uint16)
    block_largest(values, top)
    _scales(top, factor, head)
    _pack(values, blocks, factor, head)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["Q8_0"], _encode, _decode)
