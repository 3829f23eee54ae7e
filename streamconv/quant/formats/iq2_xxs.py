"""IQ2_XXS: 256 weights; every eight are a point of a grid of 256 with signs, every 32 share a 4-bit scale.

Block, 66 bytes: d f16 · for each of eight sub-blocks: points uint8[4] · uint32, four times seven sign bits | scale << 28
Value: d · (0.5 + scale) / 4 · grid value (8, 25 or 43) · sign; the eighth sign makes their product positive

Bit-exact with ggml 0.25.3 (``quantize_iq2_xxs``), which needs importance weights. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, ZERO, aligned, get_f16, inline, kernel, put_f16
from ...kernels.simd import store
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
    sum_squares,
    take_signs,
)
from ._iq_calls import flat, quantize_with
from ._iq_search import BATCH, PICKS_SIZE, WORK_SIZE, SearchSettings, W, X, make_search
from ._search import TILE_SIZE
from ._search_positive import fit_positive

_BYTES = 66
_SUBS = 8
_PER_WEIGHT = np.float32(1 / 256)
_QUARTER = np.float32(0.25)
_THREE, _FOUR = np.float32(3), np.float32(4)
_PLAN = SearchSettings(n=32, dims=8, levels=3, trials=13, step=np.float32(0.1), all_groups=True, always=True)
_search = make_search(_PLAN, optimized=False)  # which runs as fast here, and compiles faster


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 66]; weights : float32[n_cols]; grid : int32, its table
    """
    work, tile = aligned(WORK_SIZE), aligned(TILE_SIZE)
    picks = np.empty(PICKS_SIZE, np.int32)
    scales, tops, levels = np.empty(BATCH * _SUBS, np.float32), np.empty(_SUBS, np.float32), np.empty(_SUBS, np.int32)
    points, signs = np.empty(BATCH * 32, np.int32), np.empty(BATCH * 32, np.int32)
    n_blocks = len(x) // 256
    for first in range(0, n_blocks, BATCH):
        n = min(BATCH, n_blocks - first)
        for b in range(n):
            sigma2 = sum_squares(x, (first + b) * 256) * _PER_WEIGHT
            load_weights(work, b * 256, x, (first + b) * 256, weights, sigma2, ZERO)
            take_signs(work, b * 256, signs, True)
        # the lanes of this search are sub-blocks, hence the batch
        store(scales, 0, fit_positive(tile, work[X : X + n * 256], work[W : W + n * 256], 0, 32, _FOUR))
        for b in range(n):
            mine = scales[b * _SUBS : (b + 1) * _SUBS]
            for sub in range(_SUBS):
                top = mine[sub] * _THREE
                tops[sub] = ZERO if top <= ZERO else top  # not where it is NaN
            if not _search(grid, work, picks, b * 256, tops, mine, points, signs):
                return first + b
        for b in range(n):
            d = round_scales(scales[b * _SUBS : (b + 1) * _SUBS], levels)
            _pack(out, (first + b) * _BYTES, d, levels, points[b * 32 : (b + 1) * 32], signs[b * 32 : (b + 1) * 32])
    return -1


@inline
def _pack(out, at, d, levels, points, signs):  # type: ignore[no-untyped-def]
    """Store a block from ``out[at]`` on."""
    put_f16(out, at, d)
    for ib in range(_SUBS):
        word = np.int64(levels[ib]) << 28
        for k in range(4):
            out[at + 2 + 8 * ib + k] = np.uint8(points[4 * ib + k] if d != ZERO else 0)
            word |= np.int64(signs[4 * ib + k] & 127) << 7 * k
        put_u32(out, at + 6 + 8 * ib, word if d != ZERO else 0)


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 66]; out : float32[n_blocks * 256], filled; values : float32[n_points, 8]."""
    for sub in range(len(out) // 32):
        at = sub // _SUBS * _BYTES
        start = at + 2 + 8 * (sub % _SUBS)
        word = get_u32(data, start + 4)
        db = get_f16(data, at) * (HALF + np.float32(word >> 28)) * _QUARTER
        for k in range(4):
            signs = FULL_SIGNS[word >> 7 * k & 127]
            decode_points(out, sub * 32 + k * 8, values, data[start + k], 8, signs, db)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ2_XXS"], grid_table("IQ2_XXS"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ2_XXS"))


CODEC = Codec(TYPES["IQ2_XXS"], _quantize, _dequantize, needs_weights=True)
