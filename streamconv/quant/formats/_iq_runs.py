"""How groups find their points in the search of ``_iq_search``, and where that search keeps what."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...kernels.lanes import ONE, ZERO, inline
from ...kernels.simd import (
    choose,
    count_bits,
    first_bit,
    lane_bits,
    largest_lane,
    load16,
    load32,
    look_up,
    spread,
    store,
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
CLOSE = np.float32(1 - 2.0**-16)
#: scores and squares in this range are rounded as usual
SURE_LEAST, SURE_MOST = np.float32(1e-25), np.float32(1e36)

#: floats of up to four blocks: magnitudes, importance and its root
BATCH = 4
X, W, ROOT = (k * BATCH * 256 for k in range(3))
#: floats of a sub-block, one a trial: inverse of the scale, the scale and the scale in units of the first one
_TRIALS = 3 * BATCH * 256
INVERSE, SCALE, RATIO = (_TRIALS + 32 * k for k in range(3))
#: one a weight: coefficients of ``a`` and ``b``, terms of the lead
FOR_A, FOR_B, FOR_NEED = (_TRIALS + 32 * k for k in range(3, 6))
#: one a run: what a neighbour needs to gain at the largest and at the least scale
_ENOUGH_MOST, _ENOUGH_LEAST = (_TRIALS + 32 * k for k in range(6, 8))
#: for every sub-block of a block and every trial, the sums of the fit
SUM_A, SUM_B = (_TRIALS + 32 * k for k in (8, 24))
#: for each run and 16 neighbours of its key ``a``, ``b`` and gains at the largest scale
_NEAR = _TRIALS + 32 * 40
WORK_SIZE = _NEAR + 3 * 32 * 304
#: integers of a group, one a trial; scratch; and one a run: the trials it begins and ends with, where in _NEAR it starts, and the
#: runs that are not decided yet
TRIAL_KEYS, LEVELS, _FIRST_TRIAL, _END_TRIAL, _PLACE, OPEN = (32 * k for k in range(6))
#: for every group of a block and every trial the levels of the point, and the point, ``~point`` where the key was off the grid.
#: What a run writes begins with its first trial and goes on for 32, over its end and the next group, which come later.
CODES, POINTS = 32 * 6, 32 * (6 + 65)
PICKS_SIZE = 32 * (6 + 2 * 65)
TRIAL_NUMBERS = np.arange(32, dtype=np.int32)

MAGIC = np.float32(12582912.0)
MANTISSA, BIAS = np.int32(0x7FFFFF), np.int32(0x400000)
ABS = np.int32(0x7FFFFFFF)
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
def shown_of(grid, start, entry):  # type: ignore[no-untyped-def]
    """The point of an entry, negated where the key is off the grid."""
    return np.int32((entry & POINT) ^ ((grid[start] & 1) - 1))


@inline
def left_of(work, near, first, count, least, enough_most, enough_least):  # type: ignore[no-untyped-def]
    """Which of 16 neighbours may be nearest, as bits."""
    near += 3 * first
    a, b, gain = load16(work, near), load16(work, near + 16), load16(work, near + 32)
    ruled_out = (gain < enough_most) & ((b - a * least) * least < enough_least)
    return ~lane_bits(ruled_out) & ((1 << min(count - first, 16)) - 1)


def _make_tables(plan: SearchSettings) -> Any:
    """The tables of a group, and the lead that it needs."""
    dims = plan.dims

    @inline
    def need_of(work, i):  # type: ignore[no-untyped-def]
        whole = ZERO
        for k in range(i, i + dims):
            whole += work[FOR_NEED + k]
        return _LEAD * whole if _W_LEAST < whole < _W_MOST else _NEVER

    @inline
    def table_a(work, i, quarter):  # type: ignore[no-untyped-def]
        if dims == 4:
            return load16(_SQUARE, 0) * work[FOR_A + i + quarter]
        i += 2 * quarter
        return load16(_SQUARE_FIRST, 0) * work[FOR_A + i] + load16(_SQUARE_SECOND, 0) * work[FOR_A + i + 1]

    @inline
    def table_b(work, i, quarter):  # type: ignore[no-untyped-def]
        if dims == 4:
            return load16(_ODD, 0) * work[FOR_B + i + quarter]
        i += 2 * quarter
        return load16(_ODD_FIRST, 0) * work[FOR_B + i] + load16(_ODD_SECOND, 0) * work[FOR_B + i + 1]

    return need_of, table_a, table_b


def _make_contest(plan: SearchSettings) -> Any:
    """How a run is decided among several neighbours."""
    load = load16 if plan.trials <= 16 else load32
    nearest = nearest4 if plan.dims == 4 else nearest8

    @inline
    def contest(grid, work, picks, first_weight, g, run, need):  # type: ignore[no-untyped-def]
        """Decide the trials of a run among the neighbours left; False if there is no point."""
        t, stop, near = picks[_FIRST_TRIAL + run], picks[_END_TRIAL + run], picks[_PLACE + run]
        start = grid[KEYS + picks[TRIAL_KEYS + t]]
        ratio = load(work, RATIO)
        best = spread(-_NEVER, ratio)
        second = best
        codes, points = load(picks, CODES + g * 32), load(picks, POINTS + g * 32)
        numbers = load(TRIAL_NUMBERS, 0)
        here = (numbers >= t) & (numbers < stop)
        count = np.int32(grid[start] >> 1)
        least = work[RATIO + stop - 1]
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
        store(picks, CODES + g * 32, codes)
        store(picks, POINTS + g * 32, points)
        doubtful = lane_bits(here) & ~lane_bits(best - second > need)
        found = True
        while doubtful:
            k = first_bit(doubtful)
            doubtful &= doubtful - 1
            point = np.int32(grid[start + 1] & POINT)
            shown = point
            if not grid[start] & 1:
                scale = work[SCALE + k]
                point = nearest(grid, start, work, X + first_weight, ROOT + first_weight, scale, ONE, TWO)
                found &= point >= 0
                shown = np.int32(~point)
            picks[CODES + g * 32 + k] = grid[point]
            picks[POINTS + g * 32 + k] = shown
        return found

    return contest


def make_settle(plan: SearchSettings) -> Any:
    """How a group finds its points."""
    end = 1 << plan.trials
    load = load16 if plan.trials <= 16 else load32
    need_of, table_a, table_b = _make_tables(plan)
    contest = _make_contest(plan)

    @inline
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
            start = grid[KEYS + picks[TRIAL_KEYS + t]]
            count = np.int32(grid[start] >> 1)
            most, least = work[RATIO + t], work[RATIO + stop - 1]
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
                store(picks, LEVELS, places)
                place = np.int64(picks[LEVELS + place])
            entry = grid[start + 1 + place]
            store(picks, CODES + g * 32 + t, spread(grid[entry & POINT], load(picks, 0)))
            store(picks, POINTS + g * 32 + t, spread(shown_of(grid, start, entry), load(picks, 0)))
            # another one that is behind this one at both ends is nowhere nearest
            at_a = near + 3 * (place & ~15) + (place & 15)
            enough_most = top - need
            enough_least = (work[at_a + 16] - work[at_a] * least) * least - need
            n_left = np.int64(0)
            for first in range(0, count, 16):
                n_left += count_bits(left_of(work, near, first, count, least, enough_most, enough_least))
            picks[OPEN + n_open] = n_runs
            n_open += not (n_left == 1 and need < _NEVER)
            picks[_FIRST_TRIAL + n_runs], picks[_END_TRIAL + n_runs], picks[_PLACE + n_runs] = t, stop, near
            work[_ENOUGH_MOST + n_runs], work[_ENOUGH_LEAST + n_runs] = enough_most, enough_least
            n_runs += 1
            near += 3 * (count + 15 & ~15)
        found = True
        for k in range(n_open):
            found &= contest(grid, work, picks, first_weight, g, picks[OPEN + k], need)
        return found

    return settle
