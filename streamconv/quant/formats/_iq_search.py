"""The search for scale and grid points of one sub-block, shared by IQ2 and IQ3.

The reference tries 13 to 31 scales. For each it rounds the weights to levels, replaces groups whose levels are not on the
grid by a neighbouring point, and keeps the scale that fits best. Here

* all trials of a sub-block stand side by side, one a lane: rounding, keys and the sums of the fit;
* successive trials that round a group to the same key, a *run*, decide its grid point together. The squared distance of a
  point is ``a·s² - b·s + c`` with ``c`` common to all, so the difference between two points, divided by s, is linear in s: a
  point that is farther than another at the first and at the last scale of a run is farther at all between, too. Mostly
  that leaves one point; else the trials are searched one by one. ``a`` and ``b`` of 16 neighbours are looked up at a time, in
  tables for the quarters of a point. It is done in rounded arithmetic, hence a lead counts only when it exceeds all rounding
  errors, here and in the reference; see ``_LEAD`` in ``_iq_runs``.

Source: ggml-quants.c, ``quantize_row_iq2_xxs_impl``, ``quantize_row_iq2_xs_impl``, ``quantize_row_iq2_s_impl``,
``quantize_row_iq3_xxs_impl``, ``quantize_row_iq3_s_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.lanes import HALF, ONE, ZERO, inline
from ...kernels.simd import (
    as_floats,
    as_ints,
    choose,
    first_bit,
    lane_bits,
    largest_lane,
    load16,
    load32,
    shift_lanes,
    spread,
    store,
    to_floats,
)
from ._grids import KEYS
from ._iq_nearest import POINT, nearest4, nearest8
from ._iq_runs import (
    ABS,
    BATCH,
    BIAS,
    CLOSE,
    CODES,
    FOR_A,
    FOR_B,
    FOR_NEED,
    INVERSE,
    LEVELS,
    MAGIC,
    MANTISSA,
    OPEN,
    PICKS_SIZE,
    POINTS,
    RATIO,
    ROOT,
    SCALE,
    SUM_A,
    SUM_B,
    SURE_LEAST,
    SURE_MOST,
    TRIAL_KEYS,
    TRIAL_NUMBERS,
    TWO,
    WORK_SIZE,
    SearchSettings,
    W,
    X,
    make_settle,
)

__all__ = ["BATCH", "PICKS_SIZE", "ROOT", "TWO", "WORK_SIZE", "SearchSettings", "W", "X", "make_search"]


def _make_level_of(plan: SearchSettings) -> Any:
    """Rounding."""
    top_level = np.int32(plan.levels - 1)

    @inline
    def level_of(v):  # type: ignore[no-untyped-def]
        """The levels nearest to lanes ``v`` = 2 * level + 1, int32, as ``rint_any``."""
        level = (as_ints((v - ONE) * HALF + MAGIC) & MANTISSA) - BIAS
        level = choose(level > np.int32(0), level, spread(np.int32(0), level))
        return choose(level < top_level, level, spread(top_level, level))

    return level_of


def _make_rounding(plan: SearchSettings) -> Any:
    """How trials start, and round a group."""
    n = plan.n
    dims = plan.dims
    levels = plan.levels
    end = 1 << plan.trials
    load = load16 if plan.trials <= 16 else load32
    highest_level = np.float32(2 * plan.levels - 1)
    offsets = np.arange(32, dtype=np.float32) - np.float32(plan.trials // 2)
    inverses = np.float32(2 * plan.levels - 1) + offsets * plan.step
    level_of = _make_level_of(plan)

    @inline
    def start_trials(work, at, top):  # type: ignore[no-untyped-def]
        inverse = load(inverses, 0) / top
        scales = ONE / inverse
        store(work, INVERSE, inverse)
        store(work, SCALE, scales)
        first = work[INVERSE]
        unit = work[SCALE]
        store(work, RATIO, scales * first)
        highest = unit * highest_level
        for i in range(0, n, 16):
            x, root = load16(work, X + at + i), load16(work, ROOT + at + i)
            store(work, FOR_A + i, root * unit * unit)
            store(work, FOR_B + i, root * unit * TWO * x)
            reach = as_floats(as_ints(x) & ABS) + highest
            store(work, FOR_NEED + i, root * reach * reach)

    @inline
    def round_trials(work, picks, at):  # type: ignore[no-untyped-def]
        """Keys of the group that starts at ``at`` for all trials; where runs start, as bits."""
        inverse = load(work, INVERSE)
        key = level_of(inverse * work[X + at + dims - 1])
        for i in range(dims - 2, -1, -1):
            level = level_of(inverse * work[X + at + i])
            if levels == 8:
                key = (key << np.int32(3)) + level
            else:
                key = key + key + key + level
        store(picks, TRIAL_KEYS, key)
        return (lane_bits(key != shift_lanes(key)) | 1) & (end - 1)

    return start_trials, round_trials


def _make_choice(plan: SearchSettings) -> Any:
    """Which trial wins."""
    dims = plan.dims
    trials = plan.trials
    groups = plan.n // plan.dims
    all_groups = plan.all_groups
    always = plan.always
    load = load16 if plan.trials <= 16 else load32
    width = np.int32(24 // plan.dims)
    mask_of_level = np.int32((1 << 24 // plan.dims) - 1)

    @inline
    def add_up(work, picks, at, sub):  # type: ignore[no-untyped-def]
        """SUM_A = Σ w·x·q and SUM_B = Σ w·q·q of all trials."""
        a = spread(ZERO, load(work, RATIO))
        b = a
        for g in range(groups):
            code = load(picks, CODES + (sub * groups + g) * 32)
            for i in range(g * dims, g * dims + dims):
                q = to_floats(code & mask_of_level)
                code = code >> width
                w = work[W + at + i]
                a = a + q * (w * work[X + at + i])
                b = b + q * w * q
        store(work, SUM_A + 32 * sub, a)
        store(work, SUM_B + 32 * sub, b)

    @inline
    def winner_of(work, sub, scale):  # type: ignore[no-untyped-def]
        """The trial that fits best, -1 for none, and its scale."""
        at_a, at_b = SUM_A + 32 * sub, SUM_B + 32 * sub
        a, b = load(work, at_a), load(work, at_b)
        scales = a / b
        scores = choose((b > ZERO) & (load(TRIAL_NUMBERS, 0) < np.int32(trials)), scales * a, spread(ZERO, a))
        top = largest_lane(scores)
        close = lane_bits(scores >= top * CLOSE)
        winner = np.int64(first_bit(close))
        square = work[at_a + winner] * work[at_a + winner]
        if close & (close - 1) == 0 and SURE_LEAST < top < SURE_MOST and SURE_LEAST < square < SURE_MOST:
            return winner, work[at_a + winner] / work[at_b + winner]
        winner = np.int64(-1)
        best = ZERO
        for t in range(trials):
            a, b = work[at_a + t], work[at_b + t]
            if b > ZERO and a * a > best * b:
                scale = a / b
                best = scale * a
                winner = np.int64(t)
        return winner, scale

    @inline
    def start_points(grid, picks, sub, winner, points, mine):  # type: ignore[no-untyped-def]
        """Points of the winning trial; whether to refine them."""
        again = always or (winner < 0 and all_groups)
        for g in range(groups):
            # no trial fits: all levels are 0
            point = grid[grid[KEYS] + 1] & POINT
            if winner >= 0:
                point = picks[POINTS + (sub * groups + g) * 32 + winner]
            points[mine + g] = point
            again |= point < 0
        return again

    return add_up, winner_of, start_points


def _make_refinement(plan: SearchSettings) -> Any:
    """What is done with the scale found."""
    n = plan.n
    dims = plan.dims
    levels = plan.levels
    groups = plan.n // plan.dims
    all_groups = plan.all_groups
    width = np.int32(24 // plan.dims)
    mask_of_level = np.int32((1 << 24 // plan.dims) - 1)
    nearest = nearest4 if plan.dims == 4 else nearest8
    level_of = _make_level_of(plan)

    @inline
    def refine(grid, work, picks, at, scale, points):  # type: ignore[no-untyped-def]
        """Round groups once more with the scale found: those with negative ``points``, or all; False if there is no point."""
        inverse = ONE / scale
        for i in range(0, n, 16):
            store(picks, LEVELS + i, level_of(load16(work, X + at + i) * inverse))
        found = True
        for g in range(groups):
            mine = at // dims + g
            if all_groups or points[mine] < 0:
                key = np.int32(0)
                for i in range(dims * (g + 1) - 1, dims * g - 1, -1):
                    key = np.int32(key * levels + picks[LEVELS + i])
                start = grid[KEYS + key]
                if grid[start] & 1:
                    points[mine] = grid[start + 1] & POINT
                else:
                    first = at + dims * g
                    points[mine] = nearest(grid, start, work, X + first, ROOT + first, scale, ONE, TWO)
                    found &= points[mine] >= 0
        return found

    @inline
    def fit(grid, work, at, scale, points):  # type: ignore[no-untyped-def]
        """The scale that fits the points best."""
        a = ZERO
        b = ZERO
        for g in range(groups):
            code = grid[points[at // dims + g]]
            for i in range(at + g * dims, at + g * dims + dims):
                w = work[W + i]
                q = np.float32(code & mask_of_level)
                code >>= width
                a += w * work[X + i] * q
                b += w * q * q
        return a / b if b > ZERO else scale

    return refine, fit


def make_search(plan: SearchSettings, optimized: bool = True) -> Any:
    """The search of a type, to be inlined by a kernel; see ``inline`` for ``optimized``."""
    n = plan.n
    dims = plan.dims
    groups = plan.n // plan.dims
    subs = 256 // plan.n
    start_trials, round_trials = _make_rounding(plan)
    settle = make_settle(plan)
    add_up, winner_of, start_points = _make_choice(plan)
    refine, fit = _make_refinement(plan)

    @inline(optimized=optimized)
    def search(grid, work, picks, at, tops, scales, points, signs):  # type: ignore[no-untyped-def]
        """Scales, grid points and final signs of the sub-blocks of the block that starts at ``at``.

        Steps are taken for all sub-blocks before the next one: a step waits for the one before, sub-blocks do not.

        Parameters
        ----------
        grid : int32, table of the grid
        work : float32[WORK_SIZE], X, W and ROOT set
        picks : int32[PICKS_SIZE], scratch
        tops : float32[256 / n], what the largest level stands for in the middle trial; 0 for a sub-block that counts as zero
        scales : float32[256 / n], the result when no trial fits; receives scales
        points : int32, receives point numbers from ``at // dims`` on
        signs : int32, sign bytes from ``at // 8`` on, flipped where a scale came out negative, 0 for zero sub-blocks

        Returns
        -------
        found : bool, False where the reference terminates: some group has no neighbour at a finite distance (weights so
            large that their squares overflow), or a scale is NaN
        """
        found = True
        for sub in range(subs):
            if tops[sub] != ZERO:
                start_trials(work, at + sub * n, tops[sub])
                for g in range(groups):
                    weight = at + sub * n + g * dims
                    runs = round_trials(work, picks, weight)
                    found &= settle(grid, work, picks, weight, g * dims, sub * groups + g, runs)
        for sub in range(subs):
            add_up(work, picks, at + sub * n, sub)
        for sub in range(subs):
            winner, scales[sub] = winner_of(work, sub, scales[sub])
            again = start_points(grid, picks, sub, winner, points, (at + sub * n) // dims)
            picks[OPEN + sub] = again and scales[sub] > ZERO and tops[sub] != ZERO
        for sub in range(subs):
            if picks[OPEN + sub]:
                found &= refine(grid, work, picks, at + sub * n, scales[sub], points)
        for sub in range(subs):
            first, mine = at + sub * n, (at + sub * n) // dims
            if picks[OPEN + sub]:
                scales[sub] = fit(grid, work, first, scales[sub], points)
            if tops[sub] == ZERO:
                scales[sub] = ZERO
                for g in range(mine, mine + groups):
                    points[g] = 0
                for k in range(first // 8, (first + n) // 8):
                    signs[k] = 0
            for g in range(mine, mine + groups):
                points[g] = points[g] if points[g] >= 0 else ~points[g]
            if scales[sub] < ZERO:
                # bits that are not stored flip, too
                scales[sub] = -scales[sub]
                for k in range(first // 8, (first + n) // 8):
                    signs[k] = ~signs[k]
            # a NaN compares false
            found &= scales[sub] >= ZERO
        return found

    return search
