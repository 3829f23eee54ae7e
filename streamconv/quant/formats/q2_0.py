"""Q2_0: 64 ternary weights in 18 bytes, two bits each; the fourth level is never made, but decodes.

d f16 | qs 16        byte j holds weights 4j … 4j + 3, the first in the lowest bits
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ZERO, get_f16, kernel, put_f16
from ...kernels.tiles import block_largest
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._ternary import reciprocal, trit

_BLOCK, _BYTES = 64, 18
#: moves the low bits of four bytes to bits 24-25, 26-27, 28-29 and 30-31 of the product
_GATHER = np.uint32(1 << 24 | 1 << 18 | 1 << 12 | 1 << 6)


@kernel
def _pack(x, out, scale):  # type: ignore[no-untyped-def]
    """x : float32[n_blocks, 64]; out : uint8[n_blocks, 18]; scale : float32[n_blocks]."""
    levels = np.empty(_BLOCK, np.uint8)
    words = levels.view(np.uint32)
    for b in range(len(x)):
        factor = reciprocal(scale[b])
        kept = np.int32(
            0 if (factor == ZERO) & (scale[b] != ZERO) else 3
        )  # unlike its kin: level 0 without a reciprocal
        values, block = x[b], out[b]
        for i in range(len(values)):
            levels[i] = np.uint8(trit(values[i], factor) & kept)
        put_f16(block, 0, scale[b])
        for j in range(len(words)):
            block[2 + j] = np.uint8(np.uint32(words[j] * _GATHER) >> np.uint32(24))


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 18]; out : float32[n_blocks, 64] = (level - 1) · d."""
    for b in range(len(out)):
        block, values = data[b], out[b]
        d = get_f16(block, 0)
        for j in range(16):
            for n in range(4):
                values[4 * j + n] = np.float32(np.int32((block[2 + j] >> np.uint8(2 * n)) & np.uint8(3)) - 1) * d


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    values, blocks = x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES)
    scale = np.empty(len(values), np.float32)
    block_largest(values, scale)
    _pack(values, blocks, scale)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["Q2_0"], _encode, _decode)
