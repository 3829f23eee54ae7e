"""IQ2_S: 256 weights; every eight are a point of a grid of 1024 with signs, every sixteen share a 4-bit scale.

Block, 82 bytes: d f16 · points uint8[32] · signs uint8[32] · qh uint8[8], two more bits of every point · scales uint8[8],
two to a byte
Value: d · (0.5 + scale) / 4 · grid value (8, 25 or 43) · sign

Bit-exact with ggml 0.25.3 (``quantize_iq2_s``), with and without importance weights. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, aligned, get_f16, kernel, put_f16
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq_block import decode_points, load_weights, round_scales, start_scales, sum_squares, take_signs
from ._iq_calls import flat, quantize_with
from ._iq_search import PICKS_SIZE, TWO, WORK_SIZE, SearchSettings, make_search

_BYTES = 82
_SIGNS, _HIGH, _SCALES = 34, 66, 74
_WEIGHTS = np.float32(256)
_QUARTER = np.float32(0.25)
_LEAST = np.float32(1e-8)
_TUNED = np.float32(0.9875)
_PLAN = SearchSettings(n=16, dims=8, levels=3, trials=19, step=np.float32(0.1), all_groups=False, always=False)
_search = make_search(_PLAN)


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 82]; weights : float32[n_cols] or empty; grid : int32, its table
    """
    work = aligned(WORK_SIZE)
    picks = np.empty(PICKS_SIZE, np.int32)
    tops, scales, levels = np.empty(16, np.float32), np.empty(16, np.float32), np.empty(16, np.int32)
    points, signs = np.empty(32, np.int32), np.empty(32, np.int32)
    for block in range(len(x) // 256):
        sigma2 = TWO * sum_squares(x, block * 256) / _WEIGHTS
        load_weights(work, 0, x, block * 256, weights, sigma2, _QUARTER * sigma2)
        take_signs(work, 0, signs, False)
        start_scales(_PLAN, _LEAST, work, tops, scales)
        if not _search(grid, work, picks, 0, tops, scales, points, signs):
            return block
        d = round_scales(scales, levels)
        at = block * _BYTES
        put_f16(out, at, d * _TUNED)
        for k in range(32):
            out[at + 2 + k] = np.uint8(points[k] & 255)
            out[at + _SIGNS + k] = np.uint8(signs[k] & 255)
        for k in range(8):
            high = 0
            for i in range(4):
                high |= points[4 * k + i] >> 8 << 2 * i
            out[at + _HIGH + k] = np.uint8(high)
            out[at + _SCALES + k] = np.uint8(levels[2 * k] | levels[2 * k + 1] << 4)
    return -1


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 82]; out : float32[n_blocks * 256], filled; values : float32[n_points, 8]."""
    for g in range(len(out) // 8):
        at = g // 32 * _BYTES
        k = g % 32
        level = data[at + _SCALES + k // 4] >> (k // 2 % 2 * 4) & 15
        db = get_f16(data, at) * (HALF + np.float32(level)) * _QUARTER
        point = np.int64(data[at + 2 + k]) | (np.int64(data[at + _HIGH + k // 4]) >> (k % 4 * 2) & 3) << 8
        decode_points(out, g * 8, values, point, 8, data[at + _SIGNS + k], db)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ2_S"], grid_table("IQ2_S"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ2_S"))


CODEC = Codec(TYPES["IQ2_S"], _quantize, _dequantize)
