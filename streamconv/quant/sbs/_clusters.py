"""The best division of 256 sorted values into at most sixteen clusters, as a dynamic programme in float32.

    cost(a, b)       sum of squared distances of values a … b to their mean, from sums of values and of squares
    least[0, b]      cost(0, b)
    least[k, b]      the least of least[k-1, b] and of all least[k-1, a-1] + cost(a, b), 1 <= a <= b

Where two divisions are equal in float32, that with fewer clusters counts, then that with the first ``a``. So what is computed is
only ``least``, a minimum in any order, and where clusters begin is found afterwards, along the one path that counts.

Most ``a`` need not be looked at. In exact numbers cost(a, b) + cost(a', b') <= cost(a, b') + cost(a', b) for a < a' <= b < b': if
``a`` is worse than ``a'`` at ``b``, so it is at every later one, and if ``a'`` is worse than ``a``, so it is at every earlier one.
Sums in float32 are off by at most some ``error``. So what is worse by more than four times that is worse, not only equal, at the
others in float32, too, whatever ``least[k-1]`` holds. Every sixteenth ``b``, a *mark*, is looked at first, in the order of a
bisection; the sixteen values up to a mark then go side by side over the few ``a`` left between it and the mark before it.

What was tried, in ns a weight on one core at 2.6 GHz (the reference: 1600 built for AVX2, 500 for AVX-512):

    300  as here, the lanes as a plain loop, which stays scalar for the many arrays; of that the marks are a tenth
    670  the same with signed indices, of which LLVM makes gathers
    100  the lanes as vectors (``_side_by_side.py``): of 26 µs a group, sorting by radix and sums are 2 and the marks 5

``least`` without its ``a`` is what lets the inner loop be one minimum; ``a`` is looked for again at sixteen places, in the
windows of the marks. A bound that grows with ``k`` (where clusters begin moves up with their number) would need errors that add up
over the rows, to save part of the marks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.lanes import ZERO, bits, fma, from_bits, inline
from ._side_by_side import least_side_by_side

#: as type checkers see it, an intrinsic never returns
_fma: Any = fma
#: values; clusters; values side by side; marks
N, K, SIDE = 256, 16, 16
MARKS = N // SIDE
#: rows of ``tables``, which are floats[n_tables, WIDTH]: for lengths from -SHIFT on 1 / length, the length, and what costs are at
#: least, infinite for lengths below 1; then the same backwards, from length N down
SHIFT, WIDTH = 32, N + 64
INVERSE, SIZE, LOWEST, BACK_INVERSE, BACK_SIZE, BACK_LOWEST = range(6)
#: how many ``a`` of a mark are looked at in one step, and what arrays have to spare for it
_RUN = PAD = 32
#: rows of ``sums``: of the values before each one, and of their squares
SUM, SQUARES = range(2)
_INF_BITS = np.int32(0x7F800000)


def make_tables() -> np.ndarray:
    """float32[6, WIDTH]."""
    tables = np.zeros((6, WIDTH), np.float32)
    tables[LOWEST, : SHIFT + 1] = np.inf
    size = np.arange(1, N + 1, dtype=np.float32)
    tables[SIZE, SHIFT + 1 : SHIFT + N + 1] = size
    tables[INVERSE, SHIFT + 1 : SHIFT + N + 1] = np.float32(1) / size
    tables[BACK_SIZE, :N] = size[::-1]
    tables[BACK_LOWEST, N:] = np.inf
    tables[BACK_INVERSE, :N] = np.float32(1) / size[::-1]
    return tables


@inline
def _at(i):  # type: ignore[no-untyped-def]
    """An index that is not negative: from others LLVM makes gathers, since they might count from the end."""
    return np.uint64(i)


@inline
def _cost(s, squares, inverse, size, lowest):  # type: ignore[no-untyped-def]
    """What values with these sums cost, in the order of operations that decides its last bits."""
    mean = s * inverse
    found = _fma(mean, _fma(mean, size, -(s + s)), squares)
    return found if found > lowest else lowest


@inline
def _mark(before, sums, tables, b, lo, hi, margin, costs):  # type: ignore[no-untyped-def]
    """The least at ``b`` over ``lo <= a <= hi``, and the first and last ``a`` that may count before and after ``b``.

    before : float32[N + pad], least[k - 1]; costs : float32[N + pad], to be overwritten
    """
    s, squares, back = sums[SUM, b + 1], sums[SQUARES, b + 1], N - 1 - b
    found = _INF_BITS
    for i in range((hi + _RUN - lo) // _RUN * _RUN):  # more than asked for, at no cost
        a, at = _at(lo + i), _at(back + lo + i)
        inverse, size, lowest = tables[BACK_INVERSE, at], tables[BACK_SIZE, at], tables[BACK_LOWEST, at]
        v = before[_at(lo + i - 1)] + _cost(s - sums[SUM, a], squares - sums[SQUARES, a], inverse, size, lowest)
        costs[i] = v
        found = bits(v) if bits(v) < found else found
    least = from_bits(found)
    first, last = 0, hi - lo
    while first < last and not costs[first] <= least + margin:
        first += 1
    while last > first and not costs[last] <= least + margin:
        last -= 1
    return least, lo + first, lo + last


@inline
def fill_least(sums, tables, margin, least, window, costs):  # type: ignore[no-untyped-def]
    """Fill ``least`` row by row, as far as anything can become less; return the number of the last row.

    sums : float32[2, N + 1 + pad]
    margin : float32, four times the error
    least : float32[K, N + pad], zeros beyond N
    window : int64[K, MARKS + 1, 2], first and last ``a`` of each mark, which are numbered from 1
    costs : float32[N + pad], to be overwritten
    """
    for b in range(N):
        least[0, b] = _cost(
            sums[SUM, b + 1], sums[SQUARES, b + 1], tables[INVERSE, SHIFT + b + 1], np.float32(b + 1), ZERO
        )
    k = 0
    while k < K - 1 and least[k, N - 1] > ZERO:
        before, places = least[k], window[k + 1]
        k += 1
        places[0, 0], places[MARKS, 1] = 1, N - 1
        found, places[MARKS, 0], places[MARKS, 1] = _mark(before, sums, tables, N - 1, 1, N - 1, margin, costs)
        least[k, N - 1] = found if found < before[N - 1] else before[N - 1]
        if k == K - 1:
            break
        step = MARKS // 2
        while step > 0:
            for mark in range(step, MARKS, 2 * step):
                b = mark * SIDE - 1
                hi = places[mark + step, 1]
                _, places[mark, 0], places[mark, 1] = _mark(
                    before, sums, tables, b, places[mark - step, 0], hi if hi < b else b, margin, costs
                )
            step //= 2
        for mark in range(1, MARKS + 1):
            b = (mark - 1) * SIDE
            lo, hi = places[mark - 1, 0], places[mark, 1]
            least_side_by_side(before, least[k], sums, tables, b, SHIFT + b, lo, hi, SIDE)  # type: ignore[call-arg]
    return k


@inline
def first_of_cluster(sums, tables, least, window, k, b):  # type: ignore[no-untyped-def]
    """Where the last of the clusters of values 0 … ``b`` begins that are at most ``k`` + 1."""
    while k > 0 and least[k - 1, b] == least[k, b]:
        k -= 1
    if k == 0:
        return 0
    a, last = window[k, (b + 1) // SIDE, 0], window[k, b // SIDE + 1, 1]
    last = last if last < b else b
    s, squares = sums[SUM, b + 1], sums[SQUARES, b + 1]
    while a < last:
        size = b + 1 - a
        cost = _cost(
            s - sums[SUM, a], squares - sums[SQUARES, a], tables[INVERSE, SHIFT + size], np.float32(size), ZERO
        )
        if least[k - 1, a - 1] + cost == least[k, b]:
            break
        a += 1
    return a
