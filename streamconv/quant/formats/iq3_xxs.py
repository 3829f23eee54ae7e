"""IQ3_XXS: 256 weights; every four are a point of a grid of 256 with signs, every 32 share a 4-bit scale.

Block, 98 bytes: d f16 · points uint8[64] · uint32[8]: four times seven sign bits, each for eight weights, | scale << 28
Value: d · (0.5 + scale) / 2 · grid value (4 … 62) · sign; the eighth sign makes their product positive

Bit-exact with ggml 0.25.3 (``quantize_iq3_xxs``), with and without importance weights. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, ZERO, aligned, get_f16, kernel, put_f16
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq_block import (
    FULL_SIGNS,
    decode_points,
    get_u32,
    load_weights,
    put_u32,
    round_scales,
    start_scales,
    sum_squares,
    take_signs,
)
from ._iq_calls import flat, quantize_with
from ._iq_search import PICKS_SIZE, TWO, WORK_SIZE, SearchSettings, make_search

_BYTES = 98
_SIGNS = 66
_WEIGHTS = np.float32(256)
_LEAST = np.float32(1e-8)
_TUNED = np.float32(1.0125)
_PLAN = SearchSettings(n=32, dims=4, levels=8, trials=31, step=np.float32(0.2), all_groups=False, always=False)
_search = make_search(_PLAN)


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 98]; weights : float32[n_cols] or empty; grid : int32, its table
    """
    work = aligned(WORK_SIZE)
    picks = np.empty(PICKS_SIZE, np.int32)
    tops, scales, levels = np.empty(8, np.float32), np.empty(8, np.float32), np.empty(8, np.int32)
    points, signs = np.empty(64, np.int32), np.empty(32, np.int32)
    for block in range(len(x) // 256):
        sigma2 = TWO * sum_squares(x, block * 256) / _WEIGHTS
        load_weights(work, 0, x, block * 256, weights, sigma2, ZERO)
        take_signs(work, 0, signs, True)
        start_scales(_PLAN, _LEAST, work, tops, scales)
        if not _search(grid, work, picks, 0, tops, scales, points, signs):
            return block
        d = round_scales(scales, levels)
        at = block * _BYTES
        put_f16(out, at, d * _TUNED)
        for k in range(64):
            out[at + 2 + k] = np.uint8(points[k] if d != ZERO else 0)
        for ib in range(8):
            word = np.int64(levels[ib]) << 28
            for k in range(4):
                word |= np.int64(signs[4 * ib + k] & 127) << 7 * k
            put_u32(out, at + _SIGNS + 4 * ib, word if d != ZERO else 0)
    return -1


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 98]; out : float32[n_blocks * 256], filled; values : float32[n_points, 4]."""
    for sub in range(len(out) // 32):
        at = sub // 8 * _BYTES
        ib = sub % 8
        word = get_u32(data, at + _SIGNS + 4 * ib)
        db = get_f16(data, at) * (HALF + np.float32(word >> 28)) * HALF
        for k in range(8):
            signs = FULL_SIGNS[word >> (k // 2 * 7) & 127] >> (k % 2 * 4)
            decode_points(out, sub * 32 + k * 4, values, data[at + 2 + 8 * ib + k], 4, signs, db)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ3_XXS"], grid_table("IQ3_XXS"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ3_XXS"))


CODEC = Codec(TYPES["IQ3_XXS"], _quantize, _dequantize)
