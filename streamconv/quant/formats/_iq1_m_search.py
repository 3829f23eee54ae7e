"""The search of IQ1_M: where to cut sixteen sorted weights into three levels, and the shift of either half.

The reference tries 153 pairs of cuts with four pairs of shifts each and keeps what has the best score a² / b so far, rounded.
What is much worse than the best one never decides anything, in whatever order it comes. So scores are estimated first, without
the order of the reference's additions, and only pairs that come close to the best one are tried as the reference does.

Source: ggml-quants.c, ``quantize_row_iq1_m_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ONE, ZERO, inline
from ...kernels.simd import choose, first_bit, lane_bits, load16, spread, store
from ._iq1_search import LARGEST, RANK, keep_better
from ._iq_lanes import W, X

#: weights of a sub-block
N = 16
#: a sub-block without a larger one counts as zero
LEAST = np.float32(1e-7)
_ROW = (N + 1) * LANES
_LAST = N * LANES
#: what level 2 stands for with a positive and with a negative shift; level 0 and 1 follow at distances of 1
_TOP_P, _TOP_M = np.float32(1.125), np.float32(0.875)
_SQ_P, _SQ_M = _TOP_P * _TOP_P, _TOP_M * _TOP_M
#: what these squares fall by from level 2 to 1 and from level 1 to 0
_FIRST_P, _SECOND_P = np.float32(0.75), np.float32(-1.25)
_FIRST_M, _SECOND_M = np.float32(1.25), np.float32(-0.75)
_ONE, _TWO, _THREE = np.float32(1), np.float32(2), np.float32(3)
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
#: for 16 lanes: five rows for each cut, see ``_weigh_cuts``, and the score of each pair of cuts
_CUTS, _CUT = 64 * LANES + 4 * _ROW, 5 * 16
_SCORES = _CUTS + _CUT * (N + 1)
TILE_SIZE = _SCORES + 16 * (N + 1) * (N + 2) // 2


@inline
def sum_sorted(tile, picks):  # type: ignore[no-untyped-def]
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
def search(tile, regs, lane):  # type: ignore[no-untyped-def]
    """Best SCALE and CUT = 4 · (17 · first cut + second cut) + signs of the two shifts, as two bits; of 16 lanes from ``lane``."""
    live, least = _estimate(tile, regs, lane)
    at = _SCORES
    for first in range(N + 1):
        for second in range(first, N + 1):
            close = live & ~lane_bits(load16(tile, at) < least)
            at += 16
            while close:
                _try_cuts(tile, regs, lane + first_bit(close), first, second)
                close &= close - 1


@inline
def _estimate(tile, regs, lane):  # type: ignore[no-untyped-def]
    """Scores of all pairs of cuts, in units that neither under- nor overflow: of Σ w·|x| and Σ w.

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
    whole_x, whole_w, is_sum = x0 + x1 - (lowest + lowest), w0 + w1, negative == ZERO
    live = lane_bits(load16(regs, LARGEST + lane) >= LEAST) & ~lane_bits(is_sum & (whole_w == ZERO))
    per_x, per_w = ONE / whole_x, ONE / whole_w
    _weigh_cuts(tile, lane, per_x, per_w)
    top = _score_pairs(tile, x0 * per_x, x1 * per_x, w0 * per_w, w1 * per_w)
    return live, choose(is_sum & _is_usual(whole_x, whole_w), top * _CLOSE, spread(-_INFINITY, top))


@inline
def _weigh_cuts(tile, lane, per_x, per_w):  # type: ignore[no-untyped-def]
    """Fill _CUTS: what is below a cut of Σ w·x, and of Σ w for each pair of shifts."""
    for cut in range(N + 1):
        row, to = cut * LANES + lane, _CUTS + cut * _CUT
        store(tile, to, (load16(tile, _X0 + row) + load16(tile, _X1 + row)) * per_x)
        w0, w1 = load16(tile, _W0 + row) * per_w, load16(tile, _W1 + row) * per_w
        far0, far1, near0, near1 = w0 * _FIRST_M, w1 * _FIRST_M, w0 * _FIRST_P, w1 * _FIRST_P
        store(tile, to + 16, far0 + far1)
        store(tile, to + 32, far0 + near1)
        store(tile, to + 48, near0 + far1)
        store(tile, to + 64, near0 + near1)


@inline
def _score_pairs(tile, x0, x1, w0, w1):  # type: ignore[no-untyped-def]
    """Fill _SCORES with the score of each pair of cuts and its best shifts; returns the best of all.

    x0, x1, w0, w1 : float32 lanes, Σ w·x and Σ w of either half
    """
    x_pp, x_pm, x_mp, x_mm = (
        (x0 + x1) * _TOP_P,
        x0 * _TOP_P + x1 * _TOP_M,
        x0 * _TOP_M + x1 * _TOP_P,
        (x0 + x1) * _TOP_M,
    )
    w_pp, w_pm, w_mp, w_mm = (w0 + w1) * _SQ_P, w0 * _SQ_P + w1 * _SQ_M, w0 * _SQ_M + w1 * _SQ_P, (w0 + w1) * _SQ_M
    top = spread(ZERO, x0)
    at = _SCORES
    for first in range(_CUTS, _SCORES, _CUT):
        # where the step from level 2 to 1 is large that from level 1 to 0 is small
        x, pp, pm, mp, mm = _cut(tile, first)
        a_pp, a_pm, a_mp, a_mm = x_pp - x, x_pm - x, x_mp - x, x_mm - x
        b_pp, b_pm, b_mp, b_mm = w_pp + mm, w_pm + mp, w_mp + pm, w_mm + pp
        for second in range(first, _SCORES, _CUT):
            x, pp, pm, mp, mm = _cut(tile, second)
            a, b = _better(a_pp - x, b_pp - pp, a_mm - x, b_mm - mm)
            c, d = _better(a_pm - x, b_pm - pm, a_mp - x, b_mp - mp)
            more = c * b > a * d
            score = choose(more, c, a) / choose(more, d, b)
            store(tile, at, score)
            at += 16
            top = choose(score > top, score, top)
    return top


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
    cut = np.float32(4 * ((N + 1) * first + second))
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
