"""TQ2_0: 256 ternary weights in 66 bytes, two bits each.

qs 64 | d f16        byte 32h + m holds weights 128h + m + 32n at bits 2n
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import get_f16, kernel, put_f16
from ...kernels.tiles import block_largest
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._ternary import reciprocal, trit

_BLOCK, _BYTES = 256, 66


@kernel
def _pack(x, out, scale):  # type: ignore[no-untyped-def]
    """x : float32[n_halves, 128]; out : uint8[n_halves / 2, 66]; scale : float32[n_halves / 2]."""
    for half in range(len(x)):
        b = half // 2
        factor = reciprocal(scale[b])
        values, qs = x[half], out[b, 32 * (half % 2) : 64]
        for m in range(len(values) // 4):
            low = np.int32(trit(values[m], factor) | np.int32(trit(values[m + 32], factor) << 2))
            high = np.int32(trit(values[m + 64], factor) | np.int32(trit(values[m + 96], factor) << 2))
            qs[m] = np.uint8(low | np.int32(high << 4))
        put_f16(out[b], 64, scale[b])


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_halves / 2, 66]; out : float32[n_halves, 128] = (level - 1) · d."""
    for half in range(len(out)):
        block, values = data[half // 2], out[half]
        d = get_f16(block, 64)
        qs = block[32 * (half % 2) : 64]
        for m in range(len(values) // 4):
            for n in range(4):
                values[32 * n + m] = np.float32(np.int32((qs[m] >> np.uint8(2 * n)) & np.uint8(3)) - 1) * d


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    values = x.reshape(-1, _BLOCK)
    scale = np.empty(len(values), np.float32)
    block_largest(values, scale)
    _pack(x.reshape(-1, 128), out.reshape(-1, _BYTES), scale)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, 128))


CODEC = Codec(TYPES["TQ2_0"], _encode, _decode)
