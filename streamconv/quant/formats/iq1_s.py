"""IQ1_S: 256 weights of three levels; every eight are a point of a grid of 2048, every 32 share a 3-bit scale and a shift.

Block, 50 bytes: d f16 · qs uint8[32], low bits of the points · qh uint16[8], three more bits for each of four points | scale << 12
| 0x8000 when the shift is negative
Value: d · (1 + 2 · scale) · (level − 1 ± 0.125)

Bit-exact with ggml 0.25.3 (``quantize_iq1_s``), which needs importance weights, where its C library sorts stably (as glibc
does). Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ONE, ZERO, aligned, get_f16, inline, kernel, put_f16
from ...kernels.simd import lane_bits, load32
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq1_search import (
    CUT,
    EIGHTH,
    FIRST,
    LARGEST,
    PICKS_SIZE,
    POINTS,
    RANK,
    REGS_SIZE,
    SCALE,
    SECOND,
    SHIFT,
    STEPS,
    keep_better,
    place,
    rank,
    round_scales,
    start_search,
)
from ._iq_calls import flat, quantize_with
from ._iq_lanes import W, X, load_weights

_BYTES = 50
_SUBS = 8
_N = 32
_ROW = (_N + 1) * LANES
_LEAST = np.float32(1e-12)
_TUNED = np.float32(1.125)
#: what the levels 0 and 2 stand for, with a positive and with a negative shift; level 1 is the shift itself
_LOW_P, _HIGH_P = np.float32(-0.875), np.float32(1.125)
_LOW_M, _HIGH_M = np.float32(-1.125), np.float32(0.875)

# matrices of a tile after X and W, 33 rows each: prefix sums of w·x and w in sorted order, and what the run from a cut to the
# end adds to a and b, for both shifts
_SUM_X, _SUM_W, _A_P, _B_P, _A_M, _B_M = (2 * _N * LANES + k * _ROW for k in range(6))
_TILE_SIZE = 2 * _N * LANES + 6 * _ROW
# rows of regs: what the run up to the first cut adds
_A0_P, _B0_P, _A0_M, _B0_M = (REGS_SIZE + k * LANES for k in range(4))


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks, four at a time; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 50]; weights : float32[n_cols]; grid : int32, its table
    """
    tile, regs, picks = aligned(_TILE_SIZE), aligned(REGS_SIZE + 4 * LANES), np.empty(PICKS_SIZE, np.int32)
    group, levels = np.empty(16, np.float32), np.empty(LANES, np.int32)
    n_subs = len(x) // _N
    for start in range(0, n_subs, LANES):
        n_lanes = min(LANES, n_subs - start)
        load_weights(tile, regs, x, start, n_lanes, weights, _N, _SUBS)
        rank(tile, picks, _N)
        _sum_sorted(tile, picks)
        start_search(tile, regs, _N)
        _search(tile, regs)
        failed = place(grid, group, tile, regs, picks, _N, _unpack(regs, picks))
        if failed < n_lanes:
            return (start + failed) // _SUBS
        for lane in range(0, n_lanes, _SUBS):
            top = round_scales(regs[SCALE + lane : SCALE + lane + _SUBS], levels[lane : lane + _SUBS])
            _pack(out, (start + lane) // _SUBS * _BYTES, top, levels, regs, picks, lane)
    return -1


@inline
def _unpack(regs, picks):  # type: ignore[no-untyped-def]
    """FIRST, SECOND and SHIFT from CUT; returns which lanes have levels, as bits."""
    for j in range(LANES):
        cut = np.int32(regs[CUT + j])
        alive = regs[LARGEST + j] >= _LEAST and cut >= 0
        picks[FIRST + j], picks[SECOND + j] = (cut >> 1) // (_N + 1), (cut >> 1) % (_N + 1)
        shift = -EIGHTH if alive and (cut & 1) ^ (regs[SCALE + j] < ZERO) else EIGHTH
        for g in range(_N // 8):
            regs[SHIFT + g * LANES + j] = shift
    return lane_bits((load32(regs, LARGEST) >= _LEAST) & (load32(regs, CUT) >= ZERO))


@inline
def _sum_sorted(tile, picks):  # type: ignore[no-untyped-def]
    """Prefix sums in sorted order, and the tables of the last run."""
    for j in range(LANES):
        tile[_SUM_X + j] = ZERO
        tile[_SUM_W + j] = ZERO
    for row in range(0, _N * LANES, LANES):
        for j in range(LANES):
            to = (picks[RANK + row + j] + 1) * LANES + j
            w = tile[W + row + j]
            tile[_SUM_X + to] = w * tile[X + row + j]
            tile[_SUM_W + to] = w
    for row in range(LANES, _ROW, LANES):
        for j in range(LANES):
            tile[_SUM_X + row + j] += tile[_SUM_X + row - LANES + j]
            tile[_SUM_W + row + j] += tile[_SUM_W + row - LANES + j]
    for row in range(0, _ROW, LANES):
        for j in range(LANES):
            x = tile[_SUM_X + _N * LANES + j] - tile[_SUM_X + row + j]
            w = tile[_SUM_W + _N * LANES + j] - tile[_SUM_W + row + j]
            tile[_A_P + row + j] = x * _HIGH_P
            tile[_B_P + row + j] = w * _HIGH_P * _HIGH_P
            tile[_A_M + row + j] = x * _HIGH_M
            tile[_B_M + row + j] = w * _HIGH_M * _HIGH_M


@inline
def _search(tile, regs):  # type: ignore[no-untyped-def]
    """Best SCALE and CUT = 2 · (33 · first cut + second cut) + (1 with a negative shift)."""
    for first in range(_N + 1):
        at = first * LANES
        for j in range(LANES):
            x, w = tile[_SUM_X + at + j], tile[_SUM_W + at + j]
            regs[_A0_P + j] = x * _LOW_P
            regs[_B0_P + j] = w * _LOW_P * _LOW_P
            regs[_A0_M + j] = x * _LOW_M
            regs[_B0_M + j] = w * _LOW_M * _LOW_M
        for second in range(first, _N + 1):
            to = second * LANES
            cut = np.float32(2 * ((_N + 1) * first + second))
            for j in range(LANES):
                a = (tile[_SUM_X + to + j] - tile[_SUM_X + at + j]) * EIGHTH
                b = (tile[_SUM_W + to + j] - tile[_SUM_W + at + j]) * EIGHTH * EIGHTH
                keep_better(
                    regs, j, regs[_A0_P + j] + a + tile[_A_P + to + j], regs[_B0_P + j] + b + tile[_B_P + to + j], cut
                )
                # with a negative shift the middle run adds -a and the same b
                keep_better(
                    regs,
                    j,
                    regs[_A0_M + j] - a + tile[_A_M + to + j],
                    regs[_B0_M + j] + b + tile[_B_M + to + j],
                    cut + ONE,
                )


@inline
def _pack(out, at, top, levels, regs, picks, lane):  # type: ignore[no-untyped-def]
    """Store the block in the lanes from ``lane`` on, from ``out[at]`` on.

    Points are kept even when all scales are zero, signs of shifts are not.
    """
    put_f16(out, at, top / STEPS * _TUNED)
    for ib in range(_SUBS):
        minus = regs[SHIFT + lane + ib] < ZERO and top != ZERO
        word = levels[lane + ib] << 12 | (0x8000 if minus else 0)
        for k in range(4):
            point = picks[POINTS + k * LANES + lane + ib]
            out[at + 2 + 4 * ib + k] = np.uint8(point & 255)
            word |= point >> 8 << 3 * k
        out[at + 34 + 2 * ib] = np.uint8(word & 255)
        out[at + 35 + 2 * ib] = np.uint8(word >> 8)


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 50]; out : float32[n_blocks * 256], filled; values : float32[n_points, 8]."""
    for sub in range(len(out) // _N):
        at = sub // _SUBS * _BYTES
        ib = sub % _SUBS
        word = np.int64(data[at + 34 + 2 * ib]) | np.int64(data[at + 35 + 2 * ib]) << 8
        d = get_f16(data, at) * np.float32(2 * (word >> 12 & 7) + 1)
        shift = -EIGHTH if word & 0x8000 else EIGHTH
        for k in range(4):
            point = np.int64(data[at + 2 + 4 * ib + k]) | (word >> 3 * k & 7) << 8
            for i in range(8):
                out[sub * _N + 8 * k + i] = d * (values[point, i] + shift)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ1_S"], grid_table("IQ1_S"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ1_S"))


CODEC = Codec(TYPES["IQ1_S"], _quantize, _dequantize, needs_weights=True)
