"""IQ2_XS: 256 weights; every eight are a point of a grid of 512 with signs, every sixteen share a 4-bit scale.

Block, 74 bytes: d f16 · qs uint16[32], point | seven sign bits << 9 · scales uint8[8], two to a byte
Value: d · (0.5 + scale) / 4 · grid value (8, 25 or 43) · sign; the eighth sign makes their product positive

Bit-exact with ggml 0.25.3 (``quantize_iq2_xs``), which needs importance weights. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, HALF, ZERO, aligned, get_f16, kernel, put_f16
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq_block import FULL_SIGNS, decode_points, load_weights, round_scales, start_scales, sum_squares, take_signs
from ._iq_calls import flat, quantize_with
from ._iq_search import PICKS_SIZE, WORK_SIZE, SearchSettings, make_search

_BYTES = 74
_SCALES = 66
_PER_WEIGHT = np.float32(1 / 256)
_QUARTER = np.float32(0.25)
_PLAN = SearchSettings(n=16, dims=8, levels=3, trials=19, step=np.float32(0.1), all_groups=False, always=False)
_search = make_search(_PLAN)


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 74]; weights : float32[n_cols]; grid : int32, its table
    """
    work = aligned(WORK_SIZE)
    picks = np.empty(PICKS_SIZE, np.int32)
    tops, scales, levels = np.empty(16, np.float32), np.empty(16, np.float32), np.empty(16, np.int32)
    points, signs = np.empty(32, np.int32), np.empty(32, np.int32)
    for block in range(len(x) // 256):
        sigma2 = sum_squares(x, block * 256) * _PER_WEIGHT
        load_weights(work, 0, x, block * 256, weights, sigma2, ZERO)
        take_signs(work, 0, signs, True)
        start_scales(_PLAN, EPSILON, work, tops, scales)
        if not _search(grid, work, picks, 0, tops, scales, points, signs):
            return block
        d = round_scales(scales, levels)
        at = block * _BYTES
        put_f16(out, at, d)
        for k in range(32):
            word = points[k] | (signs[k] & 127) << 9 if d != ZERO else 0
            out[at + 2 + 2 * k] = np.uint8(word & 255)
            out[at + 3 + 2 * k] = np.uint8(word >> 8)
        for k in range(8):
            out[at + _SCALES + k] = np.uint8(levels[2 * k] | levels[2 * k + 1] << 4)
    return -1


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 74]; out : float32[n_blocks * 256], filled; values : float32[n_points, 8]."""
    for g in range(len(out) // 8):
        at = g // 32 * _BYTES
        k = g % 32
        level = data[at + _SCALES + k // 4] >> (k // 2 % 2 * 4) & 15
        db = get_f16(data, at) * (HALF + np.float32(level)) * _QUARTER
        word = np.int64(data[at + 2 + 2 * k]) | np.int64(data[at + 3 + 2 * k]) << 8
        decode_points(out, g * 8, values, word & 511, 8, FULL_SIGNS[word >> 9], db)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ2_XS"], grid_table("IQ2_XS"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ2_XS"))


CODEC = Codec(TYPES["IQ2_XS"], _quantize, _dequantize, needs_weights=True)
