"""IQ4_NL: 32 weights, each one of 16 unevenly spaced values, times a scale.

Block, 18 bytes: d f16 · qs uint8[16]; byte ``i`` holds weight ``i`` in the low and weight ``i + 16`` in the high nibble.
Value: d · VALUES[code]

Bit-exact with ggml 0.25.3 (``quantize_iq4_nl``), with and without importance weights. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ONE, WIDE, ZERO, get_f16, kernel, put_f16
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._iq4_search import (
    INVERSE,
    REGS_SIZE,
    SCALE,
    SIGMA2,
    TILE_SIZE,
    VALUES,
    W,
    X,
    encode,
    load,
    search_scales,
    square,
    sum_squares,
    weigh,
)
from ._iq_calls import flat, quantize_with

_BYTES = 18
_SIXTEENTH = np.float32(2 / 32)


@kernel(vector_bits=WIDE)
def _quantize_blocks(x, out, weights):  # type: ignore[no-untyped-def]
    """Encode all blocks.

    x : float32[n_blocks * 32]; out : uint8[n_blocks * 18]; weights : float32[n_cols], or empty without importance
    """
    tile = np.empty(TILE_SIZE, np.float32)
    regs = np.empty(REGS_SIZE, np.float32)
    codes = np.empty(LANES * 16, np.uint8)
    n_blocks = len(x) // 32
    for start in range(0, n_blocks, LANES):
        n_lanes = min(LANES, n_blocks - start)
        load(tile, X, x, start, n_lanes, n_blocks)
        if len(weights):
            load(tile, W, weights, start, n_lanes, len(weights) // 32)
            sum_squares(tile, regs)
            for j in range(LANES):
                regs[SIGMA2 + j] *= _SIXTEENTH
            weigh(tile, regs)
        else:
            square(tile)
        search_scales(tile, regs)
        for j in range(LANES):
            scale = regs[SCALE + j]
            regs[INVERSE + j] = ONE / scale if scale != ZERO else ZERO
        encode(tile, regs, codes)
        for j in range(n_lanes):
            at = (start + j) * _BYTES
            put_f16(out, at, regs[SCALE + j])
            for i in range(16):
                out[at + 2 + i] = codes[j * 16 + i]


@kernel
def _dequantize_blocks(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 18]; out : float32[n_blocks * 32], filled."""
    for block in range(len(out) // 32):
        at = block * _BYTES
        d = get_f16(data, at)
        for i in range(16):
            byte = data[at + 2 + i]
            out[block * 32 + i] = d * VALUES[byte & 15]
            out[block * 32 + i + 16] = d * VALUES[byte >> 4]


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ4_NL"])


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1))


CODEC = Codec(TYPES["IQ4_NL"], _quantize, _dequantize)
