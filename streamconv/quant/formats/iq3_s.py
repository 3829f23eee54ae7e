"""IQ3_S: 256 weights; every four are a point of a grid of 512 with signs, every 32 share a 4-bit scale.

Block, 110 bytes: d f16 · points uint8[64] · qh uint8[8], the ninth bits of eight points each · signs uint8[32], each for
eight weights · scales uint8[4], two to a byte
Value: d · (1 + 2 · scale) · grid value (1, 3 … 15) · sign

Bit-exact with ggml 0.25.3 (``quantize_iq3_s``), with and without importance weights, but for blocks with a sub-block of 32
zeros before another one: the reference moves the points and signs of the later ones (not their ninth bits and scales) to the
front by one sub-block for every zero one, so that they decode to something else. Here they stay in place; with ``compat``
they are moved. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, ZERO, aligned, get_f16, inline, kernel, put_f16
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq_block import decode_points, load_weights, round_scales, start_scales, sum_squares, take_signs
from ._iq_calls import flat, quantize_with
from ._iq_search import PICKS_SIZE, TWO, WORK_SIZE, SearchSettings, make_search

_BYTES = 110
_HIGH, _SIGNS, _SCALES = 66, 74, 106
_WEIGHTS = np.float32(256)
_TUNED = np.float32(1.033)
#: only a sub-block without any weight but zeros counts as zero
_LEAST = np.float32(1e-45)
_PLAN = SearchSettings(n=32, dims=4, levels=8, trials=19, step=np.float32(0.2), all_groups=True, always=False)
_search = make_search(_PLAN)


@kernel
def _quantize_blocks(x, out, weights, grid, compat):  # type: ignore[no-untyped-def]
    """Encode all blocks; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 110]; weights : float32[n_cols] or empty; grid : int32, its table
    compat : bool, misplace sub-blocks as the reference does
    """
    work = aligned(WORK_SIZE)
    picks = np.empty(PICKS_SIZE, np.int32)
    tops, scales, levels = np.empty(8, np.float32), np.empty(8, np.float32), np.empty(8, np.int32)
    points, signs = np.empty(64, np.int32), np.empty(32, np.int32)
    for block in range(len(x) // 256):
        sigma2 = TWO * sum_squares(x, block * 256) / _WEIGHTS
        load_weights(work, 0, x, block * 256, weights, sigma2, ZERO)
        take_signs(work, 0, signs, False)
        start_scales(_PLAN, _LEAST, work, tops, scales)
        if not _search(grid, work, picks, 0, tops, scales, points, signs):
            return block
        d = round_scales(scales, levels)
        at = block * _BYTES
        put_f16(out, at, d * _TUNED)
        for i in range(at + 2, at + _BYTES):
            out[i] = 0
        place = 0
        for ib in range(8):
            to = place if compat else ib
            place += not _is_zero(x, block * 256 + ib * 32)
            if to < place or not compat:
                for k in range(8):
                    out[at + 2 + 8 * to + k] = np.uint8(points[8 * ib + k] & 255)
                    out[at + _HIGH + ib] |= np.uint8(points[8 * ib + k] >> 8 << k)
                for k in range(4):
                    out[at + _SIGNS + 4 * to + k] = np.uint8(signs[4 * ib + k] & 255)
            out[at + _SCALES + ib // 2] |= np.uint8(levels[ib] << 4 * (ib % 2))
    return -1


@inline
def _is_zero(x, first):  # type: ignore[no-untyped-def]
    """Whether the 32 weights from ``x[first]`` on are all zero."""
    zeros = 0
    for i in range(first, first + 32):
        zeros += x[i] == ZERO
    return zeros == 32


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 110]; out : float32[n_blocks * 256], filled; values : float32[n_points, 4]."""
    for sub in range(len(out) // 32):
        at = sub // 8 * _BYTES
        ib = sub % 8
        level = data[at + _SCALES + ib // 2] >> (ib % 2 * 4) & 15
        db = get_f16(data, at) * (ONE + TWO * np.float32(level))
        high = np.int64(data[at + _HIGH + ib])
        for k in range(8):
            point = np.int64(data[at + 2 + 8 * ib + k]) | (high >> k & 1) << 8
            signs = data[at + _SIGNS + 4 * ib + k // 2] >> (k % 2 * 4)
            decode_points(out, sub * 32 + k * 4, values, point, 4, signs, db)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ3_S"], grid_table("IQ3_S"), compat)


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ3_S"))


CODEC = Codec(TYPES["IQ3_S"], _quantize, _dequantize)
