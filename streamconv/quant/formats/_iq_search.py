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

from ...kernels.lanes import HALF, ONE, ZERO, inline
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
_INVERSE, _SCALE, _RATIO, _A, _B = (_TRIALS + 32 * k for k in range(5))
#: and one a weight: coefficients of ``a`` and ``b``, terms of the lead
_FOR_A, _FOR_B, _FOR_NEED = (_TRIALS + 32 * k for k in range(5, 8))
#: ``a`` and ``b`` of all neighbours of a key, and their gains at the largest scale of a run
_MOST_NEAR = 320
_NEAR_A, _NEAR_B, _GAIN = (_TRIALS + 32 * 8 + k * _MOST_NEAR for k in range(3))
WORK_SIZE = _GAIN + _MOST_NEAR
#: integers of a group, one a trial
_KEYS = 0
#: for every group and trial the levels of the point, and the point, ``~point`` where the key was off the grid. What a run
#: writes begins with its first trial and goes on for 32, over its end and the next group, which come later.
_CODES, _POINTS = 32, 32 + 9 * 32
_LEVELS = _POINTS + 9 * 32
_LEFT = _LEVELS + 32
PICKS_SIZE = _LEFT + 16
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


@inline
def _gain(a, b, ratio):  # type: ignore[no-untyped-def]
    """By how much a neighbour is nearer than the origin; ``ratio`` is the scale in units of the largest trial scale."""
    return (b - a * ratio) * ratio


def make_search(plan: SearchSettings) -> Any:
    """The search of a type, to be inlined by a kernel."""
    n, dims, levels, trials = plan.n, plan.dims, plan.levels, plan.trials
    groups, end = n // dims, 1 << trials
    all_groups, always = plan.all_groups, plan.always
    load = load16 if trials <= 16 else load32
    top_level = np.int32(levels - 1)
    width = np.int32(24 // dims)
    mask_of_level = np.int32((1 << 24 // dims) - 1)
    highest_level = np.float32(2 * levels - 1)
    offsets = np.arange(32, dtype=np.float32) - np.float32(trials // 2)
    inverses = highest_level + offsets * plan.step
    nearest = nearest4 if dims == 4 else nearest8

    @inline
    def level_of(v):  # type: ignore[no-untyped-def]
        """The levels nearest to lanes ``v`` = 2 * level + 1, int32, as ``rint_any``."""
        level = (as_ints((v - ONE) * HALF + _MAGIC) & _MANTISSA) - _BIAS
        level = choose(level > np.int32(0), level, spread(np.int32(0), level))
        return choose(level < top_level, level, spread(top_level, level))

    @inline
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

    @inline
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

    @inline
    def need_of(work, i):  # type: ignore[no-untyped-def]
        whole = ZERO
        for k in range(i, i + dims):
            whole += work[_FOR_NEED + k]
        return _LEAD * whole if _W_LEAST < whole < _W_MOST else _NEVER

    @inline
    def table_a(work, i, quarter):  # type: ignore[no-untyped-def]
        if dims == 4:
            return load16(_SQUARE, 0) * work[_FOR_A + i + quarter]
        i += 2 * quarter
        return load16(_SQUARE_FIRST, 0) * work[_FOR_A + i] + load16(_SQUARE_SECOND, 0) * work[_FOR_A + i + 1]

    @inline
    def table_b(work, i, quarter):  # type: ignore[no-untyped-def]
        if dims == 4:
            return load16(_ODD, 0) * work[_FOR_B + i + quarter]
        i += 2 * quarter
        return load16(_ODD_FIRST, 0) * work[_FOR_B + i] + load16(_ODD_SECOND, 0) * work[_FOR_B + i + 1]

    @inline
    def settle(grid, work, picks, at, g, runs):  # type: ignore[no-untyped-def]
        """Grid points of group ``g`` for all trials; False if there is none."""
        i = g * dims
        need = need_of(work, i)
        a0, a1, a2, a3 = table_a(work, i, 0), table_a(work, i, 1), table_a(work, i, 2), table_a(work, i, 3)
        b0, b1, b2, b3 = table_b(work, i, 0), table_b(work, i, 1), table_b(work, i, 2), table_b(work, i, 3)
        numbers = load16(NUMBERS, 0)
        nothing = spread(-_NEVER, a0)
        found = True
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
                store(work, _NEAR_A + first, a)
                store(work, _NEAR_B + first, b)
                store(work, _GAIN + first, gain)
                better = gain > best
                best = choose(better, gain, best)
                places = choose(better, here, places)
            top = largest_lane(best)
            place = first_bit(lane_bits(best >= top))
            if count > 16:
                store(picks, _LEFT, places)
                place = np.int64(picks[_LEFT + (place & 15)])
            # a candidate that is behind this one at both ends is nowhere nearest
            n_left = np.int64(0)
            enough_most, enough_least = top - need, _gain(work[_NEAR_A + place], work[_NEAR_B + place], least) - need
            for first in range(0, count, 16):
                n_left += count_bits(left_of(work, first, count, least, enough_most, enough_least))
            if n_left == 1 and need < _NEVER:
                entry = grid[start + 1 + place]
                store(picks, _CODES + g * 32 + t, spread(grid[entry & POINT], load(picks, 0)))
                store(picks, _POINTS + g * 32 + t, spread(shown_of(grid, start, entry), load(picks, 0)))
            else:
                doubtful = contest(grid, work, picks, g, t, start, least, enough_most, enough_least, need)
                doubtful &= (np.int64(1) << stop) - 1
                while doubtful:
                    k = first_bit(doubtful)
                    doubtful &= doubtful - 1
                    point = np.int32(grid[start + 1] & POINT)
                    shown = point
                    if not grid[start] & 1:
                        point = nearest(grid, start, work, X + at + i, ROOT + at + i, work[_SCALE + k], ONE, TWO)
                        found &= point >= 0
                        shown = np.int32(~point)
                    picks[_CODES + g * 32 + k] = grid[point]
                    picks[_POINTS + g * 32 + k] = shown
        return found

    @inline
    def shown_of(grid, start, entry):  # type: ignore[no-untyped-def]
        """The point of an entry, negated where the key is off the grid."""
        return np.int32((entry & POINT) ^ ((grid[start] & 1) - 1))

    @inline
    def left_of(work, first, count, least, enough_most, enough_least):  # type: ignore[no-untyped-def]
        """Which of 16 neighbours may be nearest, as bits."""
        b, a = load16(work, _NEAR_B + first), load16(work, _NEAR_A + first)
        ruled_out = (load16(work, _GAIN + first) < enough_most) & ((b - a * least) * least < enough_least)
        return ~lane_bits(ruled_out) & ((1 << min(count - first, 16)) - 1)

    @inline
    def contest(grid, work, picks, g, t, start, least, enough_most, enough_least, need):  # type: ignore[no-untyped-def]
        """Decide trials from ``t`` on among the neighbours left; returns which of them are doubtful, as bits."""
        ratio = load(work, _RATIO)
        best = spread(-_NEVER, ratio)
        second = best
        codes, points = load(picks, _CODES + g * 32), load(picks, _POINTS + g * 32)
        here = load(_TRIAL_NUMBERS, 0) >= np.int32(t)
        count = np.int32(grid[start] >> 1)
        for first in range(0, count, 16):
            left = left_of(work, first, count, least, enough_most, enough_least)
            while left:
                place = first + first_bit(left)
                left &= left - 1
                entry = grid[start + 1 + place]
                gain = (work[_NEAR_B + place] - ratio * work[_NEAR_A + place]) * ratio
                better = gain > best
                behind = choose(better, best, gain)
                second = choose(behind > second, behind, second)
                best = choose(better, gain, best)
                codes = choose(better & here, spread(grid[entry & POINT], codes), codes)
                points = choose(better & here, spread(shown_of(grid, start, entry), codes), points)
        store(picks, _CODES + g * 32, codes)
        store(picks, _POINTS + g * 32, points)
        return ~lane_bits(best - second > need) & -(np.int64(1) << t)

    @inline
    def add_up(work, picks, at):  # type: ignore[no-untyped-def]
        """_A = Σ w·x·q and _B = Σ w·q·q of all trials."""
        a = spread(ZERO, load(work, _A))
        b = a
        for g in range(groups):
            code = load(picks, _CODES + g * 32)
            for i in range(g * dims, g * dims + dims):
                q = to_floats(code & mask_of_level)
                code = code >> width
                w = work[W + at + i]
                a = a + q * (w * work[X + at + i])
                b = b + q * w * q
        store(work, _A, a)
        store(work, _B, b)

    @inline
    def winner_of(work, scale):  # type: ignore[no-untyped-def]
        """The trial that fits best, -1 for none, and its scale."""
        winner = -1
        best = ZERO
        for t in range(trials):
            a, b = work[_A + t], work[_B + t]
            if b > ZERO and a * a > best * b:
                scale = a / b
                best = scale * a
                winner = t
        return winner, scale

    @inline
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

    @inline
    def search(grid, work, picks, at, top, scale, points):  # type: ignore[no-untyped-def]
        """Scale and grid points of the weights of a sub-block whose magnitudes stand from ``work[X + at]`` on.

        Parameters
        ----------
        grid : int32, table of the grid
        work : float32[WORK_SIZE], X, W and ROOT set
        picks : int32[PICKS_SIZE], scratch
        top : float32, what the largest level stands for in the middle trial
        scale : float32, the result when no trial fits
        points : int32, receives point numbers from ``at // dims`` on; the first is -1 when some group has no neighbour at
            a finite distance (weights so large that their squares overflow): the reference terminates there

        Returns
        -------
        scale : float32, negative when all signs are to be flipped
        """
        mine = at // dims
        start_trials(work, at, top)
        found = True
        for g in range(groups):
            runs = round_trials(work, picks, at + g * dims)
            found &= settle(grid, work, picks, at, g, runs)
        add_up(work, picks, at)
        winner, scale = winner_of(work, scale)
        again = always or (winner < 0 and all_groups)
        for g in range(groups):
            # no trial fits: all levels are 0
            points[mine + g] = picks[_POINTS + g * 32 + winner] if winner >= 0 else grid[grid[KEYS] + 1] & POINT
            again |= points[mine + g] < 0
        if again and scale > ZERO:
            found &= refine(grid, work, picks, at, scale, points)
            scale = fit(grid, work, at, scale, points)
        for g in range(groups):
            point = points[mine + g]
            points[mine + g] = point if point >= 0 else ~point
        if not found:
            points[mine] = -1
        return scale

    return search
