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
from ...kernels.simd import choose, first_bit, lane_bits, load16, load32, spread, store, to_floats
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._grids import grid_table, grid_values
from ._iq1_search import (
    CUT,
    EIGHTH,
    FIRST,
    LARGEST,
    LEVELS,
    PICKS_SIZE,
    POINTS,
    RANK,
    REGS_SIZE,
    SCALE,
    SECOND,
    SHIFT,
    STEPS,
    keep_better,
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
_LAST = _N * LANES
_BLOCKS = LANES // _SUBS
#: Scores below this part of the best one cannot win. Σ w·q² is at least Σ w / 64, and Σ w·q·x of what comes close to the best at
#: least 0.09 · Σ w·|x|; so rounding moves a score by no more than 2^-12 of it, here and in the reference.
_CLOSE = np.float32(1 - 2.0**-10)
_INFINITY = np.float32(np.inf)
#: what Σ w·|x|, Σ w, their ratio and a score must lie between for that
_X_LEAST, _X_MOST = np.float32(1e-16), np.float32(1e17)
_W_LEAST, _W_MOST = np.float32(1e-25), np.float32(1e25)
_RATIO_LEAST, _RATIO_MOST = np.float32(1e-30), np.float32(1e30)
_SCORE_LEAST, _SCORE_MOST = np.float32(1e-32), np.float32(1e34)

# matrices of a tile after X and W, 17 rows each: prefix sums of w·x and w in sorted order, of the weights in either half
_X0, _X1, _W0, _W1 = (64 * LANES + k * _ROW for k in range(4))
#: for 16 lanes: what ``_estimate`` subtracts for a cut, five rows a cut, and the score of each pair of cuts
_CUTS = 64 * LANES + 4 * _ROW
_SCORES = _CUTS + 5 * 16 * (_N + 1)
_TILE_SIZE = _SCORES + 16 * (_N + 1) * (_N + 2) // 2
# what the weights add to the sums of ``_fit``, in the place of the prefix sums
_TERMS_A, _TERMS_B = _X0, _W0


@kernel
def _quantize_blocks(x, out, weights, grid):  # type: ignore[no-untyped-def]
    """Encode all blocks, two at a time; returns the number of one that cannot be encoded, else -1.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 56]; weights : float32[n_cols] or empty; grid : int32, its table
    """
    tile, regs, picks = aligned(_TILE_SIZE), aligned(REGS_SIZE), np.empty(PICKS_SIZE, np.int32)
    group, levels, tops = np.empty(16, np.float32), np.empty(LANES, np.int32), np.empty(_BLOCKS, np.float32)
    n_subs = len(x) // _N
    for start in range(0, n_subs, LANES):
        n_lanes = min(LANES, n_subs - start)
        load_weights(tile, regs, x, start, n_lanes, weights, _N, _SUBS)
        rank(tile, picks, _N)
        _sum_sorted(tile, picks)
        start_search(tile, regs, _N)
        for first in range(0, LANES, 16):
            _search(tile, regs, first)
        failed = place(grid, group, tile, regs, picks, _N, _unpack(regs, picks))
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
def _sum_sorted(tile, picks):  # type: ignore[no-untyped-def]
    """Prefix sums in sorted order; where one half has a weight the other adds nothing."""
    for k in range(4 * _ROW):
        tile[_X0 + k] = ZERO
    for half in range(2):
        for i in range(8 * half, 8 * half + 8):
            for j in range(LANES):
                to = half * _ROW + (picks[RANK + i * LANES + j] + 1) * LANES + j
                w = tile[W + i * LANES + j]
                tile[_X0 + to] = w * tile[X + i * LANES + j]
                tile[_W0 + to] = w
    for half in range(0, 4 * _ROW, _ROW):
        for row in range(LANES, _ROW, LANES):
            for j in range(LANES):
                tile[_X0 + half + row + j] += tile[_X0 + half + row - LANES + j]


@inline
def _search(tile, regs, lane):  # type: ignore[no-untyped-def]
    """Best SCALE and CUT = 4 · (17 · first cut + second cut) + signs of the two shifts, as two bits; of 16 lanes from ``lane`` on.

    Whatever order is kept, a pair of cuts that is much worse than the best one changes nothing. So scores are estimated, without
    the reference's order of additions, and only what comes close to the best one is tried as the reference does.
    """
    live, least = _estimate(tile, regs, lane)
    at = _SCORES
    for first in range(_N + 1):
        for second in range(first, _N + 1):
            close = live & ~lane_bits(load16(tile, at) < least)
            at += 16
            while close:
                _try_cuts(tile, regs, lane + first_bit(close), first, second)
                close &= close - 1


@inline
def _estimate(tile, regs, lane):  # type: ignore[no-untyped-def]
    """Scores of all pairs of cuts, each with its best shifts.

    Sums are in units of Σ w·|x| and Σ w, so that nothing under- or overflows.

    Returns
    -------
    live : int64, the lanes that have something to find
    least : float32 lanes, what a score must come to
    """
    x0, x1 = load16(tile, _X0 + _LAST + lane), load16(tile, _X1 + _LAST + lane)
    w0, w1 = load16(tile, _W0 + _LAST + lane), load16(tile, _W1 + _LAST + lane)
    lowest, negative = spread(ZERO, x0), spread(ZERO, x0)
    for row in range(lane, _ROW + lane, LANES):
        total = load16(tile, _X0 + row) + load16(tile, _X1 + row)
        lowest = choose(total < lowest, total, lowest)
    for row in range(lane, _LAST + lane, LANES):
        w = load16(tile, W + row)
        negative = choose(w >= ZERO, negative, w)
    whole_x, whole_w = x0 + x1 - (lowest + lowest), w0 + w1
    sure, live = _is_usual(whole_x, whole_w) & (negative == ZERO), lane_bits(load16(regs, LARGEST + lane) >= _LEAST)
    live &= ~lane_bits((whole_w == ZERO) & (negative == ZERO))
    per_x, per_w = ONE / whole_x, ONE / whole_w
    for cut in range(_N + 1):
        row, to = cut * LANES + lane, _CUTS + cut * 80
        store(tile, to, (load16(tile, _X0 + row) + load16(tile, _X1 + row)) * per_x)
        v0, v1 = load16(tile, _W0 + row) * per_w, load16(tile, _W1 + row) * per_w
        far0, far1, near0, near1 = v0 * _FIRST_M, v1 * _FIRST_M, v0 * _FIRST_P, v1 * _FIRST_P
        store(tile, to + 16, far0 + far1)
        store(tile, to + 32, far0 + near1)
        store(tile, to + 48, near0 + far1)
        store(tile, to + 64, near0 + near1)
    x0, x1, w0, w1 = x0 * per_x, x1 * per_x, w0 * per_w, w1 * per_w
    a_pp, a_pm, a_mp, a_mm = (
        (x0 + x1) * _TOP_P,
        x0 * _TOP_P + x1 * _TOP_M,
        x0 * _TOP_M + x1 * _TOP_P,
        (x0 + x1) * _TOP_M,
    )
    top_p, top_m = _TOP_P * _TOP_P, _TOP_M * _TOP_M
    b_pp, b_pm, b_mp, b_mm = (w0 + w1) * top_p, w0 * top_p + w1 * top_m, w0 * top_m + w1 * top_p, (w0 + w1) * top_m
    top = spread(ZERO, x0)
    at = _SCORES
    for first in range(_CUTS, _SCORES, 80):
        # what falls by little from level 2 to 1 falls by much from level 1 to 0
        x, pp, pm, mp, mm = _cut(tile, first)
        first_pp, first_pm, first_mp, first_mm = b_pp + mm, b_pm + mp, b_mp + pm, b_mm + pp
        rest_pp, rest_pm, rest_mp, rest_mm = a_pp - x, a_pm - x, a_mp - x, a_mm - x
        for second in range(first, _SCORES, 80):
            x, pp, pm, mp, mm = _cut(tile, second)
            a, b = _better(rest_pp - x, first_pp - pp, rest_mm - x, first_mm - mm)
            c, d = _better(rest_pm - x, first_pm - pm, rest_mp - x, first_mp - mp)
            more = c * b > a * d
            score = choose(more, c, a) / choose(more, d, b)
            store(tile, at, score)
            at += 16
            top = choose(score > top, score, top)
    return live, choose(sure, top * _CLOSE, spread(-_INFINITY, top))


@inline
def _is_usual(whole_x, whole_w):  # type: ignore[no-untyped-def]
    """Where sums of these sizes and their squares, products and ratios are rounded as usual."""
    ratio = whole_x / whole_w
    usual = (whole_x > _X_LEAST) & (whole_x < _X_MOST) & (whole_w > _W_LEAST) & (whole_w < _W_MOST)
    usual = usual & (ratio > _RATIO_LEAST) & (ratio < _RATIO_MOST)
    return usual & (whole_x * ratio > _SCORE_LEAST) & (whole_x * ratio < _SCORE_MOST)


@inline
def _cut(tile, at):  # type: ignore[no-untyped-def]
    """The five rows of a cut."""
    pairs = load16(tile, at + 16), load16(tile, at + 32), load16(tile, at + 48), load16(tile, at + 64)
    return load16(tile, at), pairs[0], pairs[1], pairs[2], pairs[3]


@inline
def _better(a, b, c, d):  # type: ignore[no-untyped-def]
    """a² and b, or c² and d where c² / d is more."""
    a, c = a * a, c * c
    more = c * b > a * d
    return choose(more, c, a), choose(more, d, b)


@inline
def _try_cuts(tile, regs, j, first, second):  # type: ignore[no-untyped-def]
    """All shifts with a pair of cuts in lane ``j``, as the reference does."""
    at, to = first * LANES + j, second * LANES + j
    cut = np.float32(4 * ((_N + 1) * first + second))
    x0, x1, w0, w1 = tile[_X0 + _LAST + j], tile[_X1 + _LAST + j], tile[_W0 + _LAST + j], tile[_W1 + _LAST + j]
    s0, s1 = tile[_X0 + at] + tile[_X0 + to], tile[_X1 + at] + tile[_X1 + to]
    v0, v1, u0, u1 = tile[_W0 + at], tile[_W1 + at], tile[_W0 + to], tile[_W1 + to]
    a0_p, a0_m, a1_p, a1_m = x0 * _TOP_P - s0, x0 * _TOP_M - s0, x1 * _TOP_P - s1, x1 * _TOP_M - s1
    b0_p = w0 * _TOP_P * _TOP_P + v0 * _FIRST_P + u0 * _SECOND_P
    b0_m = w0 * _TOP_M * _TOP_M + v0 * _FIRST_M + u0 * _SECOND_M
    b1_p = w1 * _TOP_P * _TOP_P + v1 * _FIRST_P + u1 * _SECOND_P
    b1_m = w1 * _TOP_M * _TOP_M + v1 * _FIRST_M + u1 * _SECOND_M
    keep_better(regs, j, a0_p + a1_p, b0_p + b1_p, cut)
    keep_better(regs, j, a0_p + a1_m, b0_p + b1_m, cut + _ONE)
    keep_better(regs, j, a0_m + a1_p, b0_m + b1_p, cut + _TWO)
    keep_better(regs, j, a0_m + a1_m, b0_m + b1_m, cut + _THREE)


@inline
def _unpack(regs, picks):  # type: ignore[no-untyped-def]
    """FIRST, SECOND and SHIFT from CUT; returns which lanes have levels, as bits."""
    for j in range(LANES):
        cut = np.int32(regs[CUT + j])
        # bit 1 is the sign of the first shift, bit 0 that of the second
        signs = 0 if cut < 0 else (cut & 3) ^ (3 if regs[SCALE + j] < ZERO else 0)
        pair = cut >> 2
        picks[FIRST + j], picks[SECOND + j] = pair // (_N + 1), pair % (_N + 1)
        regs[SHIFT + j] = -EIGHTH if signs & 2 else EIGHTH
        regs[SHIFT + LANES + j] = -EIGHTH if signs & 1 else EIGHTH
    return lane_bits((load32(regs, LARGEST) >= _LEAST) & (load32(regs, CUT) >= ZERO))


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
        for row in range(sub, _LAST + sub, LANES):
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
