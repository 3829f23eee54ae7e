"""The search for scale and grid points of one sub-block, shared by IQ2 and IQ3.

The reference tries 13 to 31 scales. For each it rounds the weights to levels, replaces groups whose levels are not on the
grid by a neighbouring point, and keeps the scale that fits best. Here

* all trials of a sub-block stand side by side, one a lane: rounding, keys and the sums of the fit are loops over lanes;
* successive trials that round a group to the same key decide its grid point together. The squared distance of a point is
  ``a·s² - b·s + c`` with ``c`` common to all, so the difference between two points, divided by s, is linear in s: a point
  that is farther than another at the first and at the last scale of a run is farther at all between, too. Mostly that
  leaves one point; else each trial is searched among those left. Tables of ``a`` and ``b`` for both halves of a point make
  this cheap. It is done in rounded arithmetic, hence a lead counts only when it exceeds all rounding errors, here and
  in the reference; see ``_LEAD``.

Source: ggml-quants.c, ``quantize_row_iq2_xxs_impl``, ``quantize_row_iq2_xs_impl``, ``quantize_row_iq2_s_impl``,
``quantize_row_iq3_xxs_impl``, ``quantize_row_iq3_s_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...kernels.lanes import HALF, LANES, ONE, ZERO, inline, kernel, magnitude, rint_any
from ._grids import KEYS
from ._iq_nearest import SCRATCH_SIZE, nearest

#: The lead needed, in units of W = Σ wa·(s·g + |x|)² for the largest s and g. Rounding errors of two compared distances come
#: to at most 32 · 2^-24 in the reference, 40 · 2^-24 here; between the ends of a run a lead shrinks to no less than 0.66.
_LEAD = np.float32(256 * 2.0**-24)
#: outside of this range of W underflow or overflow may spoil that estimate
_W_LEAST, _W_MOST = np.float32(1e-25), np.float32(1e36)
#: tables hold for scales up to so many times the largest one tried
_REACH = np.float32(1.25)
_MAX = np.float32(np.finfo(np.float32).max)
_NEVER = np.float32(np.inf)
TWO = np.float32(2)

#: floats of up to four blocks: magnitudes, importance and its root
BATCH = 4
X, W, ROOT = (k * BATCH * 256 for k in range(3))
#: floats of a sub-block, one a trial
_TRIALS = 3 * BATCH * 256
_INVERSE, _SCALE, _A, _B = (_TRIALS + k * LANES for k in range(4))
#: floats of a group of weights: the lead needed, tables of ``a`` and ``b`` for either half of a point, and the quarters that
#: tables are made from. Constant offsets, here and in picks, tell LLVM that loads and stores do not overlap.
_NEED = _TRIALS + 4 * LANES
_A_LOW, _A_HIGH, _B_LOW, _B_HIGH = (_NEED + 8 + k * 160 for k in range(4))
_QUARTERS = _NEED + 8 + 4 * 160
#: ``a`` and ``b`` of all neighbours of a key
_NEAR_A, _NEAR_B = _QUARTERS + 4 * 64 + 64, _QUARTERS + 4 * 64 + 64 + 320
#: and what ``nearest`` needs
_NEAREST = _NEAR_B + 320
WORK_SIZE = _NEAREST + SCRATCH_SIZE
#: integers of a group, one a trial; then the point of every group and trial, ``~point`` where the key was off the grid
_KEYS, _CODES, _POINTS = (k * LANES for k in range(3))
#: and the neighbours that may be nearest
_LEFT = _POINTS + 8 * LANES
PICKS_SIZE = _LEFT + 512
#: mask of the point in an entry of a list of neighbours
_POINT = np.int32(0xFFFF)


#: What the 16 keys of a quarter (twice) stand for, lower and higher coordinate; 4 dimensions of 8 levels, 8 of 3 levels.
_ODD_LOW = np.array([[0] * 32, [2 * (k % 16 % 3) + 1 for k in range(32)]], np.float32)
_ODD_HIGH = np.array([[2 * (k % 16) + 1 for k in range(32)], [2 * (k % 16 // 3) + 1 for k in range(32)]], np.float32)


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


@kernel
def search(grid, plan, work, picks, at, top, scale, points):  # type: ignore[no-untyped-def]
    """Scale and grid points of the ``plan.n`` weights whose magnitudes stand from ``work[X + at]`` on.

    Parameters
    ----------
    grid : int32, table of the grid
    plan : SearchSettings
    work : float32[WORK_SIZE], X, W and ROOT set
    picks : int32[PICKS_SIZE], scratch
    top : float32, what the largest level stands for in the middle trial
    scale : float32, the result when no trial fits
    points : int32, receives point numbers from ``at // plan.dims`` on; the first is -1 when some group has no neighbour at a
        finite distance (weights so large that their squares overflow): the reference terminates there

    Returns
    -------
    scale : float32, negative when all signs are to be flipped
    """
    groups = plan.n // plan.dims
    mine = at // plan.dims
    _start_trials(work, plan, top)
    found = True
    for g in range(groups):
        first = at + g * plan.dims
        _round_trials(work, picks, first, plan)
        _fill_tables(work, first, plan)
        found &= _settle(grid, work, picks, first, g, plan)
        _add_sums(work, picks, first, plan.dims)
    best = ZERO
    winner = -1
    for t in range(plan.trials):
        a, b = work[_A + t], work[_B + t]
        if b > ZERO and a * a > best * b:
            scale = a / b
            best = scale * a
            winner = t
    again = plan.always or (winner < 0 and plan.all_groups)
    for g in range(groups):
        points[mine + g] = picks[_POINTS + g * LANES + winner] if winner >= 0 else grid[KEYS]
        again |= points[mine + g] < 0
    if again and scale > ZERO:
        found &= _refine_points(grid, plan, work, picks, at, scale, points)
        scale = _fit(grid, plan, work, at, scale, points)
    for g in range(groups):
        point = points[mine + g]
        points[mine + g] = point if point >= 0 else ~point
    if not found:
        points[mine] = -1
    return scale


@inline
def _start_trials(work, plan, top):  # type: ignore[no-untyped-def]
    width = np.float32(2 * plan.levels - 1)
    middle = np.int32(plan.trials // 2)
    for t in range(LANES):
        inverse = (width + np.float32(np.int32(t) - middle) * plan.step) / top
        work[_INVERSE + t] = inverse
        work[_SCALE + t] = ONE / inverse
        work[_A + t] = ZERO
        work[_B + t] = ZERO


@inline
def _level(v, levels):  # type: ignore[no-untyped-def]
    """The level nearest to ``v`` = 2 * level + 1, int32."""
    level = rint_any(HALF * (v - ONE))
    level = level if level > 0 else np.int32(0)
    return level if level < levels else np.int32(levels - 1)


@inline
def _round_trials(work, picks, at, plan):  # type: ignore[no-untyped-def]
    """Keys of the group that starts at ``at`` for all trials."""
    levels = np.int32(plan.levels)
    for t in range(LANES):
        picks[_KEYS + t] = 0
    place = np.int32(1)
    for i in range(0, plan.dims, 2):
        x0, x1 = work[X + at + i], work[X + at + i + 1]
        for t in range(LANES):
            inverse = work[_INVERSE + t]
            pair = np.int32(_level(inverse * x0, levels) + np.int32(_level(inverse * x1, levels) * levels))
            picks[_KEYS + t] += np.int32(pair * place)
        place = np.int32(place * np.int32(levels * levels))


@inline
def _fill_tables(work, at, plan):  # type: ignore[no-untyped-def]
    """Tables and required lead of a group; levels are in units of the largest trial scale."""
    unit = work[_SCALE]
    per_quarter = plan.dims // 4
    highest = _REACH * (unit * np.float32(2 * plan.levels - 1))
    whole = ZERO
    for quarter in range(4):
        a0, b0, a1, b1 = ZERO, ZERO, ZERO, ZERO
        for i in range(per_quarter):
            x = work[X + at + quarter * per_quarter + i]
            root = work[ROOT + at + quarter * per_quarter + i]
            a1, b1 = a0, b0
            a0 = root * unit * unit
            b0 = TWO * root * unit * x
            reach = highest + magnitude(x)
            whole += root * reach * reach
        # a0 and b0 are now those of the quarter's last coordinate, a1 and b1 those of the one before
        into = _QUARTERS + quarter * 64
        for k in range(32):
            low, high = _ODD_LOW[plan.dims // 8, k], _ODD_HIGH[plan.dims // 8, k]
            work[into + k] = a1 * (low * low) + a0 * (high * high)
            work[into + 32 + k] = b1 * low + b0 * high
    work[_NEED] = _LEAD * whole if _W_LEAST < whole < _W_MOST else _NEVER
    # two rows of 16 of four tables at a time: shorter loops LLVM unrolls before it can vectorize them
    for row in range(0, 10, 2):
        high_quarter = _QUARTERS + 64 + row
        a0, a1 = work[high_quarter], work[high_quarter + 1]
        b0, b1 = work[high_quarter + 32], work[high_quarter + 33]
        c0, c1 = work[high_quarter + 128], work[high_quarter + 129]
        d0, d1 = work[high_quarter + 160], work[high_quarter + 161]
        for k in range(32):
            at = row * 16 + k
            work[_A_LOW + at] = work[_QUARTERS + k] + (a0 if k < 16 else a1)
            work[_B_LOW + at] = work[_QUARTERS + 32 + k] + (b0 if k < 16 else b1)
            work[_A_HIGH + at] = work[_QUARTERS + 128 + k] + (c0 if k < 16 else c1)
            work[_B_HIGH + at] = work[_QUARTERS + 160 + k] + (d0 if k < 16 else d1)


@inline
def _settle(grid, work, picks, at, g, plan):  # type: ignore[no-untyped-def]
    """Grid points of group ``g`` for all trials; False if there is none."""
    found = True
    point = np.int32(0)
    t = 0
    while t < plan.trials:
        key = picks[_KEYS + t]
        stop = t + 1
        while stop < plan.trials and picks[_KEYS + stop] == key:
            stop += 1
        point = grid[KEYS + key]
        shown = point
        n_left = np.int32(0)
        if point < 0:
            n_left = _rule_out(grid, work, picks, key, work[_SCALE + t], work[_SCALE + stop - 1])
            point = picks[_LEFT] & _POINT
            shown = ~point
        for k in range(t, stop):
            if n_left > 0:
                point = _nearest(grid, work, picks, n_left, at, work[_SCALE + k], plan.dims)
                found &= point >= 0
                shown = ~point
            picks[_POINTS + g * LANES + k] = shown
            picks[_CODES + k] = grid[point]
        t = stop
    return found


@inline
def _rule_out(grid, work, picks, key, most, least):  # type: ignore[no-untyped-def]
    """Find the neighbours of ``key`` that may be nearest at scales from ``least`` to ``most``.

    All but those that are clearly behind one certain neighbour at both ends. Their list entries go to _LEFT, in order, and
    their ``a`` and ``b`` to the front of _NEAR_A and _NEAR_B. Returns how many, or 0 where there is just one, which then
    is the nearest and not infinitely far.
    """
    start = -grid[KEYS + key]
    n = grid[start]
    most *= work[_INVERSE]
    least *= work[_INVERSE]
    # the best at ``most``, but any other would be correct
    best = np.int32(0)
    top = -_NEVER
    for k in range(n):
        near = grid[np.uint64(start + 1 + k)]
        low, high = np.int64(near >> 16 & 255), np.int64(near >> 24 & 255)
        a = work[_A_LOW + low] + work[_A_HIGH + high]
        b = work[_B_LOW + low] + work[_B_HIGH + high]
        work[_NEAR_A + k] = a
        work[_NEAR_B + k] = b
        gain = _gain(a, b, most)
        best = np.int32(k) if gain > top else best
        top = gain if gain > top else top
    need = work[_NEED] if most <= _REACH else _NEVER
    enough_most = top - need
    enough_least = _gain(work[_NEAR_A + best], work[_NEAR_B + best], least) - need
    n_left = np.int32(0)
    for k in range(n):
        a, b = work[_NEAR_A + k], work[_NEAR_B + k]
        if not (_gain(a, b, most) < enough_most and _gain(a, b, least) < enough_least):
            picks[_LEFT + n_left] = grid[np.uint64(start + 1 + k)]
            work[_NEAR_A + n_left] = a
            work[_NEAR_B + n_left] = b
            n_left = np.int32(n_left + 1)
    return np.int32(0) if n_left == 1 and need < _NEVER else n_left


@inline
def level_of(levels, i, dims):  # type: ignore[no-untyped-def]
    """What coordinate ``i`` of a point stands for, 2 * level + 1."""
    width = 24 // dims
    return np.float32(levels >> i * width & (1 << width) - 1)


@inline
def _gain(a, b, ratio):  # type: ignore[no-untyped-def]
    """By how much a neighbour is nearer than the origin; ``ratio`` is the scale in units of the largest trial scale."""
    return ratio * (b - a * ratio)


@inline
def _nearest(grid, work, picks, n_left, at, scale, dims):  # type: ignore[no-untyped-def]
    """The point nearest to the weights among the neighbours left, the first of equals; -1 if none is at a finite distance."""
    ratio = scale * work[_INVERSE]
    best, second = -_NEVER, -_NEVER
    winner = np.int32(0)
    for k in range(n_left):
        gain = _gain(work[_NEAR_A + k], work[_NEAR_B + k], ratio)
        second = best if gain > best else (gain if gain > second else second)
        winner = np.int32(k) if gain > best else winner
        best = gain if gain > best else best
    point = np.int32(picks[_LEFT + winner] & _POINT)
    if not (best - second > (work[_NEED] if ratio <= _REACH else _NEVER)):
        least = _MAX
        point = np.int32(-1)
        for k in range(n_left):
            candidate = np.int32(picks[_LEFT + k] & _POINT)
            levels = grid[candidate]
            distance = ZERO
            for i in range(dims):
                diff = scale * level_of(levels, i, dims) - work[X + at + i]
                distance += work[ROOT + at + i] * diff * diff
            point = candidate if distance < least else point
            least = distance if distance < least else least
    return point


@inline
def _add_sums(work, picks, at, dims):  # type: ignore[no-untyped-def]
    """Add a group to _A = Σ w·x·q and _B = Σ w·q·q of all trials."""
    width = np.int32(24 // dims)
    mask = np.int32((1 << width) - 1)
    for i in range(0, dims, 4):
        w0, w1, w2, w3 = work[W + at + i], work[W + at + i + 1], work[W + at + i + 2], work[W + at + i + 3]
        wx0, wx1 = w0 * work[X + at + i], w1 * work[X + at + i + 1]
        wx2, wx3 = w2 * work[X + at + i + 2], w3 * work[X + at + i + 3]
        for t in range(LANES):
            code = np.int32(picks[_CODES + t] >> np.int32(i * width))
            a, b = work[_A + t], work[_B + t]
            q = np.float32(np.int32(code & mask))
            a += wx0 * q
            b += w0 * q * q
            code = np.int32(code >> width)
            q = np.float32(np.int32(code & mask))
            a += wx1 * q
            b += w1 * q * q
            code = np.int32(code >> width)
            q = np.float32(np.int32(code & mask))
            a += wx2 * q
            b += w2 * q * q
            code = np.int32(code >> width)
            q = np.float32(np.int32(code & mask))
            work[_A + t] = a + wx3 * q
            work[_B + t] = b + w3 * q * q


@inline
def _refine_points(grid, plan, work, picks, at, scale, points):  # type: ignore[no-untyped-def]
    """Round groups once more with the scale found: those with negative ``points``, or all; False if there is no point."""
    inverse = ONE / scale
    levels = np.int32(plan.levels)
    found = True
    for g in range(at // plan.dims, (at + plan.n) // plan.dims):
        if plan.all_groups or points[g] < 0:
            key = np.int32(0)
            for i in range(plan.dims * (g + 1) - 1, plan.dims * g - 1, -1):
                key = np.int32(key * levels + _level(inverse * work[X + i], levels))
            point = grid[KEYS + key]
            if point < 0:
                at_x, at_root = X + plan.dims * g, ROOT + plan.dims * g
                point = nearest(grid, work[_NEAREST:], work, at_x, at_root, key, scale, ONE, TWO, plan.dims)
                found &= point >= 0
            points[g] = point
    return found


@inline
def _fit(grid, plan, work, at, scale, points):  # type: ignore[no-untyped-def]
    """The scale that fits the points best."""
    a = ZERO
    b = ZERO
    for g in range(at // plan.dims, (at + plan.n) // plan.dims):
        levels = grid[points[g]]
        for i in range(plan.dims):
            w = work[W + plan.dims * g + i]
            q = level_of(levels, i, plan.dims)
            a += w * work[X + plan.dims * g + i] * q
            b += w * q * q
    return a / b if b > ZERO else scale
