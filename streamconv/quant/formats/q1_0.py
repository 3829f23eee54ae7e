"""Q1_0: 128 weights in 18 bytes, the sign of each and their mean magnitude.

    d f16 | qs 16        bit j of the block is set where weight j is not negative, -0 included

Source: ggml-quants.c ``quantize_row_q1_0_ref`` (ggml 0.25.3); bit-exact. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ZERO, get_f16, kernel, magnitude, put_f16
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES

_BLOCK, _BYTES = 128, 18
_SIDE_BY_SIDE = 8
_128 = np.float32(128.0)
#: moves bit 0 of eight bytes to the top byte of the product, the first byte's lowest
_GATHER = np.uint64(0x0102040810204080)


@kernel
def _means(x, scale):  # type: ignore[no-untyped-def]
    """The mean magnitude of each block, summed in order; eight blocks at a time, as each addition waits for the last.

    x : float32[n_blocks * 128]; scale : float32[n_blocks]
    """
    n_blocks = len(scale)
    sums = np.empty(_SIDE_BY_SIDE, np.float32)
    for base in range(0, n_blocks, _SIDE_BY_SIDE):
        count = min(_SIDE_BY_SIDE, n_blocks - base)
        sums[:] = ZERO
        if count == _SIDE_BY_SIDE:
            for i in range(_BLOCK):
                for k in range(_SIDE_BY_SIDE):
                    sums[k] += magnitude(x[(base + k) * _BLOCK + i])
        else:
            for i in range(_BLOCK):
                for k in range(count):
                    sums[k] += magnitude(x[(base + k) * _BLOCK + i])
        for k in range(count):
            scale[base + k] = sums[k] / _128


@kernel
def _pack(x, out, scale):  # type: ignore[no-untyped-def]
    """x : float32[n_blocks, 128]; out : uint8[n_blocks, 18]; scale : float32[n_blocks]."""
    levels = np.empty(_BLOCK, np.uint8)
    words = levels.view(np.uint64)
    for b in range(len(x)):
        values, block = x[b], out[b]
        for i in range(len(values)):
            levels[i] = np.uint8(1) if values[i] >= ZERO else np.uint8(0)
        put_f16(block, 0, scale[b])
        for j in range(len(words)):
            block[2 + j] = np.uint8(np.uint64(words[j] * _GATHER) >> np.uint64(56))


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 18]; out : float32[n_blocks, 128] = d or -d."""
    for b in range(len(out)):
        block, values = data[b], out[b]
        d = get_f16(block, 0)
        for j in range(16):
            for n in range(8):
                values[8 * j + n] = d if (block[2 + j] >> np.uint8(n)) & np.uint8(1) else -d


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    values, blocks = x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES)
    scale = np.empty(len(values), np.float32)
    _means(x.reshape(-1), scale)
    _pack(values, blocks, scale)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["Q1_0"], _encode, _decode)
