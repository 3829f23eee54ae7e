"""IQ1_M: 256 weights of three levels; every eight are a point of a grid of 2048 and share a shift, every sixteen a 3-bit scale.

Block, 56 bytes: qs uint8[32], low bits of the points · qh uint8[16], in every nibble three more bits of a point | 8 when the shift
is negative · scales uint16[4], four scales each; their top nibbles together are d f16
Value: d · (1 + 2 · scale) · (level − 1 ± 0.125)

Bit-exact with ggml 0.25.3 (``quantize_iq1_m``), with and without importance weights, where its C library sorts stably (as
glibc does). Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ONE, ZERO, f16_to_f32, f32_to_f16, inline, kernel
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq1_search import CUT, EIGHTH, LARGEST, REGS_SIZE, SCALE, keep_better, place, rank, round_scales, start_search
from ._iq_calls import flat, quantize_with
from ._iq_lanes import W, X, load_weights
from ._iq_nearest import level_value

_BYTES = 56
_SUBS = 16
_N = 16
_ROW = (_N + 1) * LANES
_HIGH, _SCALES = 32, 48
_LEAST = np.float32(1e-7)
_TUNED = np.float32(1.1125)
#: what level 2 stands for with a positive and with a negative shift; level 0 and 1 follow at distances of 1
_TOP_P, _TOP_M = np.float32(1.125), np.float32(0.875)
#: what the squares of these values fall by from level 2 to 1 and from level 1 to 0
_FIRST_P, _SECOND_P = np.float32(0.75), np.float32(-1.25)
_FIRST_M, _SECOND_M = np.float32(1.25), np.float32(-0.75)
_ONE, _TWO, _THREE = np.float32(1), np.float32(2), np.float32(3)

# matrices of a tile after X and W, 17 rows each: prefix sums of w·x and w in sorted order, of the weights in either half
_X0, _X1, _W0, _W1 = (64 * LANES + k * _ROW for k in range(4))
_TILE_SIZE = 64 * LANES + 4 * _ROW
# rows of regs: what a and b begin with, per half and sign of its shift; b includes the first cut
_A0_P, _A0_M, _A1_P, _A1_M, _B0_P, _B0_M, _B1_P, _B1_M = (REGS_SIZE + k * LANES for k in range(8))


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks, two at a time; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 56]; weights : float32[n_cols] or empty; grid : int32, its table
    """
    tile = np.empty(_TILE_SIZE, np.float32)
    regs = np.empty(REGS_SIZE + 8 * LANES, np.float32)
    ranks = np.empty(_N * LANES, np.int32)
    group, shifts = np.empty(16, np.float32), np.empty(2, np.float32)
    scales, levels = np.empty(_SUBS, np.float32), np.empty(_SUBS, np.int32)
    points, signs = np.empty(2 * _SUBS, np.int32), np.empty(_SUBS, np.int32)
    cuts = np.empty(2, np.int32)
    n_subs = len(x) // _N
    for start in range(0, n_subs, LANES):
        n_lanes = min(LANES, n_subs - start)
        load_weights(tile, regs, x, start, n_lanes, weights, _N, _SUBS)
        rank(tile, ranks, _N)
        _sum_sorted(tile, ranks)
        start_search(tile, regs, _N)
        _search(tile, regs)
        for j in range(n_lanes):
            sub = j % _SUBS
            scales[sub] = ZERO
            signs[sub] = 0
            points[2 * sub : 2 * sub + 2] = 0
            cut = np.int32(regs[CUT + j])
            if regs[LARGEST + j] >= _LEAST and cut >= 0:
                scale = regs[SCALE + j]
                # bit 1 is the sign of the first shift, bit 0 that of the second
                signs[sub] = (cut & 3) ^ (3 if scale < ZERO else 0)
                shifts[0] = -EIGHTH if signs[sub] & 2 else EIGHTH
                shifts[1] = -EIGHTH if signs[sub] & 1 else EIGHTH
                cuts[0], cuts[1] = (cut >> 2) // (_N + 1), (cut >> 2) % (_N + 1)
                scales[sub] = place(grid, group, tile, ranks, j, _N, cuts, scale, shifts, points, 2 * sub)
                if points[2 * sub] < 0:
                    return (start + j) // _SUBS
            if sub == _SUBS - 1:
                d = round_scales(scales, levels)
                if d != ZERO:
                    d = _fit(grid, tile, j - sub, levels, points, signs, d)
                _pack(out, (start + j) // _SUBS * _BYTES, d, levels, points, signs)
    return -1


@inline
def _sum_sorted(tile, ranks):  # type: ignore[no-untyped-def]
    """Prefix sums in sorted order; where one half has a weight the other adds nothing."""
    for k in range(4 * _ROW):
        tile[_X0 + k] = ZERO
    for half in range(2):
        for i in range(8 * half, 8 * half + 8):
            for j in range(LANES):
                to = half * _ROW + (ranks[i * LANES + j] + 1) * LANES + j
                w = tile[W + i * LANES + j]
                tile[_X0 + to] = w * tile[X + i * LANES + j]
                tile[_W0 + to] = w
    for half in range(0, 4 * _ROW, _ROW):
        for row in range(LANES, _ROW, LANES):
            for j in range(LANES):
                tile[_X0 + half + row + j] += tile[_X0 + half + row - LANES + j]


@inline
def _search(tile, regs):  # type: ignore[no-untyped-def]
    """Best SCALE and CUT = 4 · (17 · first cut + second cut) + signs of the two shifts, as two bits."""
    last = _N * LANES
    for first in range(_N + 1):
        at = first * LANES
        for j in range(LANES):
            x0, x1, w0, w1 = tile[_X0 + last + j], tile[_X1 + last + j], tile[_W0 + last + j], tile[_W1 + last + j]
            v0, v1 = tile[_W0 + at + j], tile[_W1 + at + j]
            regs[_A0_P + j] = x0 * _TOP_P
            regs[_A0_M + j] = x0 * _TOP_M
            regs[_A1_P + j] = x1 * _TOP_P
            regs[_A1_M + j] = x1 * _TOP_M
            regs[_B0_P + j] = w0 * _TOP_P * _TOP_P + v0 * _FIRST_P
            regs[_B0_M + j] = w0 * _TOP_M * _TOP_M + v0 * _FIRST_M
            regs[_B1_P + j] = w1 * _TOP_P * _TOP_P + v1 * _FIRST_P
            regs[_B1_M + j] = w1 * _TOP_M * _TOP_M + v1 * _FIRST_M
        for second in range(first, _N + 1):
            to = second * LANES
            cut = np.float32(4 * ((_N + 1) * first + second))
            for j in range(LANES):
                s0, s1 = tile[_X0 + at + j] + tile[_X0 + to + j], tile[_X1 + at + j] + tile[_X1 + to + j]
                w0, w1 = tile[_W0 + to + j], tile[_W1 + to + j]
                a0_p, a0_m = regs[_A0_P + j] - s0, regs[_A0_M + j] - s0
                a1_p, a1_m = regs[_A1_P + j] - s1, regs[_A1_M + j] - s1
                b0_p, b0_m = regs[_B0_P + j] + w0 * _SECOND_P, regs[_B0_M + j] + w0 * _SECOND_M
                b1_p, b1_m = regs[_B1_P + j] + w1 * _SECOND_P, regs[_B1_M + j] + w1 * _SECOND_M
                keep_better(regs, j, a0_p + a1_p, b0_p + b1_p, cut)
                keep_better(regs, j, a0_p + a1_m, b0_p + b1_m, cut + _ONE)
                keep_better(regs, j, a0_m + a1_p, b0_m + b1_p, cut + _TWO)
                keep_better(regs, j, a0_m + a1_m, b0_m + b1_m, cut + _THREE)


@inline
def _fit(grid, tile, lane, levels, points, signs, d):  # type: ignore[no-untyped-def]
    """The step that fits all of the block that starts in ``lane`` best, with its scales as rounded."""
    a, b = ZERO, ZERO
    for g in range(2 * _SUBS):
        sub = g // 2
        shift = -EIGHTH if signs[sub] & (1 if g % 2 else 2) else EIGHTH
        scale = np.float32(2 * levels[sub] + 1)
        for i in range(8):
            row = (g % 2 * 8 + i) * LANES + lane + sub
            q = level_value(grid[points[g]], i, 8, shift - ONE, ONE) * scale
            a += tile[W + row] * q * tile[X + row]
            b += tile[W + row] * q * q
    return a / b if b > ZERO else d


@inline
def _pack(out, at, d, levels, points, signs):  # type: ignore[no-untyped-def]
    """Store a block from ``out[at]`` on."""
    half = f32_to_f16(d * _TUNED) if d != ZERO else np.int32(0)
    for ib in range(_SUBS):
        low, high = points[2 * ib], points[2 * ib + 1]
        out[at + 2 * ib] = np.uint8(low & 255)
        out[at + 2 * ib + 1] = np.uint8(high & 255)
        sign_bits = (signs[ib] & 2) << 2 | (signs[ib] & 1) << 7
        out[at + _HIGH + ib] = np.uint8(low >> 8 | high >> 8 << 4 | (sign_bits if d != ZERO else 0))
    for k in range(4):
        word = (half >> 4 * k & 15) << 12
        for i in range(4):
            word |= levels[4 * k + i] << 3 * i
        out[at + _SCALES + 2 * k] = np.uint8(word & 255)
        out[at + _SCALES + 2 * k + 1] = np.uint8(word >> 8)


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 56]; out : float32[n_blocks * 256], filled; values : float32[n_points, 8]."""
    for sub in range(len(out) // _N):
        at = sub // _SUBS * _BYTES
        ib = sub % _SUBS
        half = 0
        for k in range(4):
            half |= np.int64(data[at + _SCALES + 2 * k + 1] >> 4) << 4 * k
        word = np.int64(data[at + _SCALES + ib // 4 * 2]) | np.int64(data[at + _SCALES + ib // 4 * 2 + 1]) << 8
        d = f16_to_f32(half) * np.float32(2 * (word >> ib % 4 * 3 & 7) + 1)
        for k in range(2):
            nibble = np.int64(data[at + _HIGH + ib] >> 4 * k & 15)
            shift = -EIGHTH if nibble & 8 else EIGHTH
            point = np.int64(data[at + 2 * ib + k]) | (nibble & 7) << 8
            for i in range(8):
                out[sub * _N + 8 * k + i] = d * (values[point, i] + shift)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ1_M"], grid_table("IQ1_M"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ1_M"))


CODEC = Codec(TYPES["IQ1_M"], _quantize, _dequantize)
