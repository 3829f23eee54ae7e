"""IQ1_M: 256 weights of three levels; every eight are a point of a grid of 2048 and share a shift, every sixteen a 3-bit scale.

Block, 56 bytes: qs uint8[32], low bits of the points · qh uint8[16], in every nibble three more bits of a point | 8 when the shift
is negative · scales uint16[4], four scales each; their top nibbles together are d f16
Value: d · (1 + 2 · scale) · (level − 1 ± 0.125)

Bit-exact with ggml 0.25.3 (``quantize_iq1_m``), with and without importance weights, where its C library sorts stably (as
glibc does). Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ONE, ZERO, aligned, f16_to_f32, f32_to_f16, inline, kernel
from ...kernels.simd import lane_bits, load32, store, to_floats
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq1_m_search import LEAST, TILE_SIZE, N, search, sum_sorted
from ._iq1_search import (
    CUT,
    EIGHTH,
    FIRST,
    LARGEST,
    LEVELS,
    PICKS_SIZE,
    POINTS,
    REGS_SIZE,
    SCALE,
    SECOND,
    SHIFT,
    STEPS,
    next_value,
    place,
    rank,
    round_scales,
    start_search,
)
from ._iq_calls import flat, quantize_with
from ._iq_lanes import W, X, load_weights

_BYTES = 56
_SUBS = 16
_HIGH, _SCALES = 32, 48
_TUNED = np.float32(1.1125)
_BLOCKS = LANES // _SUBS
# what the weights add to the sums of ``_fit``: matrices in the place of prefix sums
_TERMS_A, _TERMS_B = 64 * LANES, 80 * LANES


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks, two at a time; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 56]; weights : float32[n_cols] or empty; grid : int32, its table
    """
    tile, regs, picks = aligned(TILE_SIZE), aligned(REGS_SIZE), np.empty(PICKS_SIZE, np.int32)
    group, levels, tops = np.empty(16, np.float32), np.empty(LANES, np.int32), np.empty(_BLOCKS, np.float32)
    n_subs = len(x) // N
    for start in range(0, n_subs, LANES):
        n_lanes = min(LANES, n_subs - start)
        load_weights(tile, regs, x, start, n_lanes, weights, N, _SUBS)
        rank(tile, picks, N)
        sum_sorted(tile, picks)
        start_search(tile, regs, N)
        for first in range(0, LANES, 16):
            search(tile, regs, first)
        failed = place(grid, group, tile, regs, picks, N, _unpack(regs, picks))
        if failed < n_lanes:
            return (start + failed) // _SUBS
        for b in range(_BLOCKS):
            lane, end = b * _SUBS, (b + 1) * _SUBS
            tops[b] = round_scales(regs[SCALE + lane : SCALE + end], levels[lane:end])
        steps = _fit(tile, regs, picks, levels, tops)
        for b in range(n_lanes // _SUBS):
            _pack(out, (start // _SUBS + b) * _BYTES, tops[b], steps[b], levels, regs, picks, b * _SUBS)
    return -1


@inline
def _unpack(regs, picks):  # type: ignore[no-untyped-def]
    """FIRST, SECOND and SHIFT from CUT; returns which lanes have levels, as bits."""
    for j in range(LANES):
        cut = np.int32(regs[CUT + j])
        # bit 1 is the sign of the first shift, bit 0 that of the second
        signs = 0 if cut < 0 else (cut & 3) ^ (3 if regs[SCALE + j] < ZERO else 0)
        pair = cut >> 2
        picks[FIRST + j], picks[SECOND + j] = pair // (N + 1), pair % (N + 1)
        regs[SHIFT + j] = -EIGHTH if signs & 2 else EIGHTH
        regs[SHIFT + LANES + j] = -EIGHTH if signs & 1 else EIGHTH
    return lane_bits((load32(regs, LARGEST) >= LEAST) & (load32(regs, CUT) >= ZERO))


@inline
def _fit(tile, regs, picks, levels, tops):  # type: ignore[no-untyped-def]
    """The steps that fit all of each block best, with its scales as rounded."""
    factor = to_floats(load32(levels, 0) * np.int32(2) + np.int32(1))
    for g in range(2):
        point = load32(picks, LEVELS + g * LANES)
        lowest = load32(regs, SHIFT + g * LANES) - ONE
        for row in range(8 * g * LANES, 8 * (g + 1) * LANES, LANES):
            q, point = next_value(point, lowest)
            w = load32(tile, W + row) * (q * factor)
            store(tile, _TERMS_A + row, w * load32(tile, X + row))
            store(tile, _TERMS_B + row, w * (q * factor))
    # sums in order wait for each addition, those of two blocks do not wait for each other
    a0, b0, a1, b1 = ZERO, ZERO, ZERO, ZERO
    for sub in range(_SUBS):
        for row in range(sub, N * LANES + sub, LANES):
            a0 += tile[_TERMS_A + row]
            b0 += tile[_TERMS_B + row]
            a1 += tile[_TERMS_A + row + _SUBS]
            b1 += tile[_TERMS_B + row + _SUBS]
    return (a0 / b0 if b0 > ZERO else tops[0] / STEPS, a1 / b1 if b1 > ZERO else tops[1] / STEPS)


@inline
def _pack(out, at, top, d, levels, regs, picks, lane):  # type: ignore[no-untyped-def]
    """Store the block in the lanes from ``lane`` on, from ``out[at]`` on; one whose scales are all zero keeps its points alone."""
    half = f32_to_f16(d * _TUNED) if top != ZERO else np.int32(0)
    for ib in range(_SUBS):
        low, high = picks[POINTS + lane + ib], picks[POINTS + LANES + lane + ib]
        out[at + 2 * ib] = np.uint8(low & 255)
        out[at + 2 * ib + 1] = np.uint8(high & 255)
        minus = regs[SHIFT + lane + ib] < ZERO, regs[SHIFT + LANES + lane + ib] < ZERO
        signs = (8 if minus[0] else 0) | (128 if minus[1] else 0)
        out[at + _HIGH + ib] = np.uint8(low >> 8 | high >> 8 << 4 | (signs if top != ZERO else 0))
    for k in range(4):
        word = (half >> 4 * k & 15) << 12
        for i in range(4):
            word |= levels[lane + 4 * k + i] << 3 * i
        out[at + _SCALES + 2 * k] = np.uint8(word & 255)
        out[at + _SCALES + 2 * k + 1] = np.uint8(word >> 8)


@kernel
def _dequantize_blocks(data, out, values):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 56]; out : float32[n_blocks * 256], filled; values : float32[n_points, 8]."""
    for sub in range(len(out) // N):
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
                out[sub * N + 8 * k + i] = d * (values[point, i] + shift)


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ1_M"], grid_table("IQ1_M"))


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1), grid_values("IQ1_M"))


CODEC = Codec(TYPES["IQ1_M"], _quantize, _dequantize)
