"""The search for scale and grid points of one sub-block, shared by IQ2 and IQ3.

The reference tries 13 to 31 scales. For each it rounds the weights to levels, replaces groups whose levels are not on the
grid by a neighbouring point, and keeps the scale that fits best. Here

* all trials of a sub-block stand side by side, one a lane: rounding, keys and the sums of the fit;
* successive trials that round a group to the same key, a *run*, decide its grid point together. The squared distance of a
  point is ``a·s² - b·s + c`` with ``c`` common to all, so the difference between two points, divided by s, is linear in s: a
  point that is farther than another at the first and at the last scale of a run is farther at all between, too. Mostly
  that leaves one point; else the trials are searched one by one. ``a`` and ``b`` of 16 neighbours are looked up at a time, in
  tables for the quarters of a point. It is done in rounded arithmetic, hence a lead counts only when it exceeds all rounding
  errors, here and in the reference; see ``_LEAD``.

Source: ggml-quants.c, ``quantize_row_iq2_xxs_impl``, ``quantize_row_iq2_xs_impl``, ``quantize_row_iq2_s_impl``,
``quantize_row_iq3_xxs_impl``, ``quantize_row_iq3_s_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...kernels.lanes import HALF, ONE, ZERO, inner
from ...kernels.simd import (
    as_floats,
    as_ints,
    choose,
    count_bits,
    first_bit,
    lane_bits,
    largest_lane,
    load16,
    load32,
    look_up,
    shift_lanes,
    spread,
    store,
    to_floats,
)
from ._grids import KEYS
from ._iq_nearest import FIRST, LEVEL, NUMBERS, POINT, QUARTER, SECOND, nearest4, nearest8

#: The lead needed, in units of W = Σ wa·(s·g + |x|)² for the largest s and g. Rounding errors of two compared distances come
#: to at most 32 · 2^-24 in the reference, 40 · 2^-24 here; between the ends of a run a lead shrinks to no less than 0.66.
_LEAD = np.float32(256 * 2.0**-24)
#: outside of this range of W underflow or overflow may spoil that estimate
_W_LEAST, _W_MOST = np.float32(1e-25), np.float32(1e36)
_NEVER = np.float32(np.inf)
TWO = np.float32(2)
#: scores below this part of the best one cannot win, whatever is rounded
_CLOSE = np.float32(1 - 2.0**-16)
#: scores and squares in this range are rounded as usual
_SURE_LEAST, _SURE_MOST = np.float32(1e-25), np.float32(1e36)

#: floats of up to four blocks: magnitudes, importance and its root
BATCH = 4
X, W, ROOT = (k * BATCH * 256 for k in range(3))
#: floats of a sub-block, one a trial: inverse of the scale, the scale and the scale in units of the first one
_TRIALS = 3 * BATCH * 256
_INVERSE, _SCALE, _RATIO = (_TRIALS + 32 * k for k in range(3))
#: one a weight: coefficients of ``a`` and ``b``, terms of the lead
_FOR_A, _FOR_B, _FOR_NEED = (_TRIALS + 32 * k for k in range(3, 6))
#: one a run: what a neighbour needs to gain at the largest and at the least scale
_ENOUGH_MOST, _ENOUGH_LEAST = (_TRIALS + 32 * k for k in range(6, 8))
#: for every sub-block of a block and every trial, the sums of the fit
_A, _B = (_TRIALS + 32 * k for k in (8, 24))
#: for each run and 16 neighbours of its key ``a``, ``b`` and gains at the largest scale
_NEAR = _TRIALS + 32 * 40
WORK_SIZE = _NEAR + 3 * 32 * 304
#: integers of a group, one a trial; scratch; and one a run: the trials it begins and ends with, where in _NEAR it starts, and the
#: runs that are not decided yet
_KEYS, _LEVELS, _FIRST_TRIAL, _END_TRIAL, _PLACE, _OPEN = (32 * k for k in range(6))
#: for every group of a block and every trial the levels of the point, and the point, ``~point`` where the key was off the grid.
#: What a run writes begins with its first trial and goes on for 32, over its end and the next group, which come later.
_CODES, _POINTS = 32 * 6, 32 * (6 + 65)
PICKS_SIZE = 32 * (6 + 2 * 65)
_TRIAL_NUMBERS = np.arange(32, dtype=np.int32)

_MAGIC = np.float32(12582912.0)
_MANTISSA, _BIAS = np.int32(0x7FFFFF), np.int32(0x400000)
_ABS = np.int32(0x7FFFFFFF)
_ODD, _ODD_FIRST, _ODD_SECOND = 2 * LEVEL + 1, 2 * FIRST + 1, 2 * SECOND + 1
_SQUARE, _SQUARE_FIRST, _SQUARE_SECOND = _ODD**2, _ODD_FIRST**2, _ODD_SECOND**2


class SearchSettings(NamedTuple):
    """How a type searches.

    Attributes
    ----------
    n : weights of a sub-block
    dims, levels : of its grid
    trials : scales tried
    step : between their inverses, in units of the largest level
    all_groups : in the end round all groups again, not only those off the grid
    always : even when none was off the grid
    """

    n: int
    dims: int
    levels: int
    trials: int
    step: np.float32
    all_groups: bool
    always: bool


def make_search(plan: SearchSettings) -> Any:
    """The search of a type, to be inlined by a kernel."""
    n, dims, levels, trials = plan.n, plan.dims, plan.levels, plan.trials
    groups, subs, end = n // dims, 256 // n, 1 << trials
    all_groups, always = plan.all_groups, plan.always
    load = load16 if trials <= 16 else load32
    top_level = np.int32(levels - 1)
    width = np.int32(24 // dims)
    mask_of_level = np.int32((1 << 24 // dims) - 1)
    highest_level = np.float32(2 * levels - 1)
    offsets = np.arange(32, dtype=np.float32) - np.float32(trials // 2)
    inverses = highest_level + offsets * plan.step
    nearest = nearest4 if dims == 4 else nearest8

    @inner
    def level_of(v):  # type: ignore[no-untyped-def]
        """The levels nearest to lanes ``v`` = 2 * level + 1, int32, as ``rint_any``."""
        level = (as_ints((v - ONE) * HALF + _MAGIC) & _MANTISSA) - _BIAS
        level = choose(level > np.int32(0), level, spread(np.int32(0), level))
        return choose(level < top_level, level, spread(top_level, level))

    @inner
    def start_trials(work, at, top):  # type: ignore[no-untyped-def]
        inverse = load(inverses, 0) / top
        scales = ONE / inverse
        store(work, _INVERSE, inverse)
        store(work, _SCALE, scales)
        first = work[_INVERSE]
        unit = work[_SCALE]
        store(work, _RATIO, scales * first)
        highest = unit * highest_level
        for i in range(0, n, 16):
            x, root = load16(work, X + at + i), load16(work, ROOT + at + i)
            store(work, _FOR_A + i, root * unit * unit)
            store(work, _FOR_B + i, root * unit * TWO * x)
            reach = as_floats(as_ints(x) & _ABS) + highest
            store(work, _FOR_NEED + i, root * reach * reach)

    @inner
    def round_trials(work, picks, at):  # type: ignore[no-untyped-def]
        """Keys of the group that starts at ``at`` for all trials; where runs start, as bits."""
        inverse = load(work, _INVERSE)
        key = level_of(inverse * work[X + at + dims - 1])
        for i in range(dims - 2, -1, -1):
            level = level_of(inverse * work[X + at + i])
            if levels == 8:
                key = (key << np.int32(3)) + level
            else:
                key = key + key + key + level
        store(picks, _KEYS, key)
        return (lane_bits(key != shift_lanes(key)) | 1) & (end - 1)

    @inner
    def need_of(work, i):  # type: ignore[no-untyped-def]
        whole = ZERO
        for k in range(i, i + dims):
            whole += work[_FOR_NEED + k]
        return _LEAD * whole if _W_LEAST < whole < _W_MOST else _NEVER

    @inner
    def table_a(work, i, quarter):  # type: ignore[no-untyped-def]
        if dims == 4:
            return load16(_SQUARE, 0) * work[_FOR_A + i + quarter]
        i += 2 * quarter
        return load16(_SQUARE_FIRST, 0) * work[_FOR_A + i] + load16(_SQUARE_SECOND, 0) * work[_FOR_A + i + 1]

    @inner
    def table_b(work, i, quarter):  # type: ignore[no-untyped-def]
        if dims == 4:
            return load16(_ODD, 0) * work[_FOR_B + i + quarter]
        i += 2 * quarter
        return load16(_ODD_FIRST, 0) * work[_FOR_B + i] + load16(_ODD_SECOND, 0) * work[_FOR_B + i + 1]

    @inner
    def settle(grid, work, picks, first_weight, i, g, runs):  # type: ignore[no-untyped-def]
        """Grid points of group ``g`` of the block for all trials; False if there is none.

        Its weights start at ``first_weight``, which is number ``i`` of its sub-block.
        """
        need = need_of(work, i)
        a0, a1, a2, a3 = table_a(work, i, 0), table_a(work, i, 1), table_a(work, i, 2), table_a(work, i, 3)
        b0, b1, b2, b3 = table_b(work, i, 0), table_b(work, i, 1), table_b(work, i, 2), table_b(work, i, 3)
        numbers = load16(NUMBERS, 0)
        nothing = spread(-_NEVER, a0)
        near = _NEAR
        n_runs, n_open = 0, np.int64(0)
        while runs:
            t = first_bit(runs)
            runs &= runs - 1
            stop = first_bit(runs | end)
            start = grid[KEYS + picks[_KEYS + t]]
            count = np.int32(grid[start] >> 1)
            most, least = work[_RATIO + t], work[_RATIO + stop - 1]
            best, places = nothing, numbers
            for first in range(0, count, 16):
                here = numbers + np.int32(first)
                entries = load16(grid, start + 1 + first)
                q0, q1 = entries >> QUARTER[0], entries >> QUARTER[1]
                q2, q3 = entries >> QUARTER[2], entries >> QUARTER[3]
                a = (look_up(a0, q0) + look_up(a1, q1)) + (look_up(a2, q2) + look_up(a3, q3))
                b = (look_up(b0, q0) + look_up(b1, q1)) + (look_up(b2, q2) + look_up(b3, q3))
                gain = choose(here < count, (b - a * most) * most, nothing)
                store(work, near + 3 * first, a)
                store(work, near + 3 * first + 16, b)
                store(work, near + 3 * first + 32, gain)
                better = gain > best
                best = choose(better, gain, best)
                places = choose(better, here, places)
            top = largest_lane(best)
            place = first_bit(lane_bits(best >= top)) & 15
            if count > 16:
                store(picks, _LEVELS, places)
                place = np.int64(picks[_LEVELS + place])
            entry = grid[start + 1 + place]
            store(picks, _CODES + g * 32 + t, spread(grid[entry & POINT], load(picks, 0)))
            store(picks, _POINTS + g * 32 + t, spread(shown_of(grid, start, entry), load(picks, 0)))
            # another one that is behind this one at both ends is nowhere nearest
            at_a = near + 3 * (place & ~15) + (place & 15)
            enough_most = top - need
            enough_least = (work[at_a + 16] - work[at_a] * least) * least - need
            n_left = np.int64(0)
            for first in range(0, count, 16):
                n_left += count_bits(left_of(work, near, first, count, least, enough_most, enough_least))
            picks[_OPEN + n_open] = n_runs
            n_open += not (n_left == 1 and need < _NEVER)
            picks[_FIRST_TRIAL + n_runs], picks[_END_TRIAL + n_runs], picks[_PLACE + n_runs] = t, stop, near
            work[_ENOUGH_MOST + n_runs], work[_ENOUGH_LEAST + n_runs] = enough_most, enough_least
            n_runs += 1
            near += 3 * (count + 15 & ~15)
        found = True
        for k in range(n_open):
            found &= contest(grid, work, picks, first_weight, g, picks[_OPEN + k], need)
        return found

    @inner
    def shown_of(grid, start, entry):  # type: ignore[no-untyped-def]
        """The point of an entry, negated where the key is off the grid."""
        return np.int32((entry & POINT) ^ ((grid[start] & 1) - 1))

    @inner
    def left_of(work, near, first, count, least, enough_most, enough_least):  # type: ignore[no-untyped-def]
        """Which of 16 neighbours may be nearest, as bits."""
        near += 3 * first
        a, b, gain = load16(work, near), load16(work, near + 16), load16(work, near + 32)
        ruled_out = (gain < enough_most) & ((b - a * least) * least < enough_least)
        return ~lane_bits(ruled_out) & ((1 << min(count - first, 16)) - 1)

    @inner
    def contest(grid, work, picks, first_weight, g, run, need):  # type: ignore[no-untyped-def]
        """Decide the trials of a run among the neighbours left; False if there is no point."""
        t, stop, near = picks[_FIRST_TRIAL + run], picks[_END_TRIAL + run], picks[_PLACE + run]
        start = grid[KEYS + picks[_KEYS + t]]
        ratio = load(work, _RATIO)
        best = spread(-_NEVER, ratio)
        second = best
        codes, points = load(picks, _CODES + g * 32), load(picks, _POINTS + g * 32)
        numbers = load(_TRIAL_NUMBERS, 0)
        here = (numbers >= t) & (numbers < stop)
        count = np.int32(grid[start] >> 1)
        least = work[_RATIO + stop - 1]
        for first in range(0, count, 16):
            left = left_of(work, near, first, count, least, work[_ENOUGH_MOST + run], work[_ENOUGH_LEAST + run])
            while left:
                lane = first_bit(left)
                left &= left - 1
                entry = grid[start + 1 + first + lane]
                gain = (work[near + 3 * first + lane + 16] - ratio * work[near + 3 * first + lane]) * ratio
                better = gain > best
                behind = choose(better, best, gain)
                second = choose(behind > second, behind, second)
                best = choose(better, gain, best)
                codes = choose(better & here, spread(grid[entry & POINT], codes), codes)
                points = choose(better & here, spread(shown_of(grid, start, entry), codes), points)
        store(picks, _CODES + g * 32, codes)
        store(picks, _POINTS + g * 32, points)
        doubtful = lane_bits(here) & ~lane_bits(best - second > need)
        found = True
        while doubtful:
            k = first_bit(doubtful)
            doubtful &= doubtful - 1
            point = np.int32(grid[start + 1] & POINT)
            shown = point
            if not grid[start] & 1:
                scale = work[_SCALE + k]
                point = nearest(grid, start, work, X + first_weight, ROOT + first_weight, scale, ONE, TWO)
                found &= point >= 0
                shown = np.int32(~point)
            picks[_CODES + g * 32 + k] = grid[point]
            picks[_POINTS + g * 32 + k] = shown
        return found

    @inner
    def add_up(work, picks, at, sub):  # type: ignore[no-untyped-def]
        """_A = Σ w·x·q and _B = Σ w·q·q of all trials."""
        a = spread(ZERO, load(work, _RATIO))
        b = a
        for g in range(groups):
            code = load(picks, _CODES + (sub * groups + g) * 32)
            for i in range(g * dims, g * dims + dims):
                q = to_floats(code & mask_of_level)
                code = code >> width
                w = work[W + at + i]
                a = a + q * (w * work[X + at + i])
                b = b + q * w * q
        store(work, _A + 32 * sub, a)
        store(work, _B + 32 * sub, b)

    @inner
    def winner_of(work, sub, scale):  # type: ignore[no-untyped-def]
        """The trial that fits best, -1 for none, and its scale."""
        at_a, at_b = _A + 32 * sub, _B + 32 * sub
        a, b = load(work, at_a), load(work, at_b)
        scales = a / b
        scores = choose((b > ZERO) & (load(_TRIAL_NUMBERS, 0) < np.int32(trials)), scales * a, spread(ZERO, a))
        top = largest_lane(scores)
        close = lane_bits(scores >= top * _CLOSE)
        winner = np.int64(first_bit(close))
        square = work[at_a + winner] * work[at_a + winner]
        if close & (close - 1) == 0 and _SURE_LEAST < top < _SURE_MOST and _SURE_LEAST < square < _SURE_MOST:
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

    @inner
    def refine(grid, work, picks, at, scale, points):  # type: ignore[no-untyped-def]
        """Round groups once more with the scale found: those with negative ``points``, or all; False if there is no point."""
        inverse = ONE / scale
        for i in range(0, n, 16):
            store(picks, _LEVELS + i, level_of(load16(work, X + at + i) * inverse))
        found = True
        for g in range(groups):
            mine = at // dims + g
            if all_groups or points[mine] < 0:
                key = np.int32(0)
                for i in range(dims * (g + 1) - 1, dims * g - 1, -1):
                    key = np.int32(key * levels + picks[_LEVELS + i])
                start = grid[KEYS + key]
                if grid[start] & 1:
                    points[mine] = grid[start + 1] & POINT
                else:
                    first = at + dims * g
                    points[mine] = nearest(grid, start, work, X + first, ROOT + first, scale, ONE, TWO)
                    found &= points[mine] >= 0
        return found

    @inner
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

    @inner
    def start_points(grid, picks, sub, winner, points, mine):  # type: ignore[no-untyped-def]
        """Points of the winning trial; whether to refine them."""
        again = always or (winner < 0 and all_groups)
        for g in range(groups):
            # no trial fits: all levels are 0
            point = grid[grid[KEYS] + 1] & POINT
            if winner >= 0:
                point = picks[_POINTS + (sub * groups + g) * 32 + winner]
            points[mine + g] = point
            again |= point < 0
        return again

    @inner
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
            picks[_OPEN + sub] = again and scales[sub] > ZERO and tops[sub] != ZERO
        for sub in range(subs):
            if picks[_OPEN + sub]:
                found &= refine(grid, work, picks, at + sub * n, scales[sub], points)
        for sub in range(subs):
            first, mine = at + sub * n, (at + sub * n) // dims
            if picks[_OPEN + sub]:
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
