"""One option for every tensor, so that the sum of costs is small and the bytes stay within a budget.

The lower convex hulls of all tensors, taken together by how much cost a byte saves, give the best mix but for one step of one
tensor (the Lagrange multiplier is the saving of the last step that is taken). What is left of the budget is filled by single
steps, and pairs of steps, one down and another up, are exchanged as long as that lowers the cost. Ties are decided by position,
sums are made in float64 in a fixed order: the same input gives the same mix everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: exchanges of pairs for each tensor, at most; a bound against rounding that would go in circles
_EXCHANGES = 8


class Option(NamedTuple):
    """One type that a tensor may have: its name, the bytes of the tensor, and what it costs (any unit)."""

    type: str
    n_bytes: int
    cost: float


def frontier(options: Sequence[Option]) -> list[Option]:
    """Those of ``options`` that no smaller or equal one is as good as, by size."""
    best: list[Option] = []
    for option in sorted(options, key=lambda o: (o.n_bytes, o.cost, o.type)):
        if not best or option.cost < best[-1].cost:
            best.append(option)
    return best


def solve(pools: Sequence[Sequence[Option]], budget: int) -> list[Option] | None:
    """An option of each of ``pools``; None where even the smallest take more bytes than ``budget``.

    Parameters
    ----------
    pools : at least one option for every tensor
    """
    fronts = [frontier(options) for options in pools]
    at = [0] * len(fronts)
    left = budget - sum(front[0].n_bytes for front in fronts)
    if left < 0:
        return None
    left = _along_hulls(fronts, at, left)
    left = _filled(fronts, at, left)
    for _ in range(_EXCHANGES * max(1, len(fronts))):
        exchanged = _exchanged(fronts, at, left)
        if exchanged is None:
            break
        left = exchanged
    _filled(fronts, at, left)
    return [front[k] for front, k in zip(fronts, at, strict=True)]


def _hull(front: Sequence[Option]) -> list[int]:
    """Numbers of the options on the lower convex hull of cost over bytes."""
    hull: list[int] = []
    for k, option in enumerate(front):
        while len(hull) > 1 and _saving(front[hull[-2]], front[hull[-1]]) <= _saving(front[hull[-1]], option):
            hull.pop()
        hull.append(k)
    return hull


def _saving(smaller: Option, larger: Option) -> float:
    """Cost that a byte saves."""
    return (smaller.cost - larger.cost) / (larger.n_bytes - smaller.n_bytes)


def _along_hulls(fronts: Sequence[Sequence[Option]], at: list[int], left: int) -> int:
    """Take the steps that save most, up to the first that does not fit; what is left of the bytes."""
    steps = [(-_saving(front[a], front[b]), n, b) for n, front in enumerate(fronts) for a, b in pairwise(_hull(front))]
    for _, n, b in sorted(steps):
        need = fronts[n][b].n_bytes - fronts[n][at[n]].n_bytes
        if need > left:
            break
        at[n], left = b, left - need
    return left


def _filled(fronts: Sequence[Sequence[Option]], at: list[int], left: int) -> int:
    """Take single steps, those that save most first, until none fits; what is left of the bytes."""
    while True:
        best: tuple[float, int, int] | None = None
        for n, front in enumerate(fronts):
            now = front[at[n]]
            for k in range(at[n] + 1, len(front)):
                if front[k].n_bytes - now.n_bytes <= left:
                    found = (-_saving(now, front[k]), n, k)
                    best = found if best is None or found < best else best
        if best is None:
            return left
        _, n, k = best
        left -= fronts[n][k].n_bytes - fronts[n][at[n]].n_bytes
        at[n] = k


class _Steps(NamedTuple):
    """Steps of tensors: which tensor, to which option, bytes and cost that they add."""

    tensor: NDArray[np.int64]
    to: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    cost: NDArray[np.float64]


def _steps(fronts: Sequence[Sequence[Option]], at: Sequence[int], up: bool) -> _Steps:
    rows = [
        (n, k, front[k].n_bytes - front[at[n]].n_bytes, front[k].cost - front[at[n]].cost)
        for n, front in enumerate(fronts)
        for k in (range(at[n] + 1, len(front)) if up else range(at[n]))
    ]
    rows.sort(key=lambda row: (row[2], row[3], row[0]))
    tensor, to, n_bytes = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    return _Steps(tensor, to, n_bytes, np.array([row[3] for row in rows], np.float64))


def _exchanged(fronts: Sequence[Sequence[Option]], at: list[int], left: int) -> int | None:
    """Make the exchange that lowers the cost most: one tensor down, another up; None where none does."""
    ups, downs = _steps(fronts, at, up=True), _steps(fronts, at, up=False)
    if not len(ups.cost) or not len(downs.cost):
        return None
    first, second = _best_so_far(ups)
    fitting = np.searchsorted(ups.n_bytes, left - downs.n_bytes, side="right") - 1
    possible = fitting >= 0
    chosen = first[np.maximum(fitting, 0)]
    same = ups.tensor[chosen] == downs.tensor
    chosen = np.where(same, second[np.maximum(fitting, 0)], chosen)
    possible &= chosen >= 0
    change = np.where(possible, downs.cost + ups.cost[chosen], 0.0)
    best = int(np.argmin(change))
    scale = sum(front[k].cost for front, k in zip(fronts, at, strict=True))
    if change[best] >= -1e-12 * scale:
        return None
    up = int(chosen[best])
    at[int(downs.tensor[best])] = int(downs.to[best])
    at[int(ups.tensor[up])] = int(ups.to[up])
    return left - int(downs.n_bytes[best]) - int(ups.n_bytes[up])


def _best_so_far(ups: _Steps) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of ``ups``, by size: the number of the best up to it, and of the best of another tensor; -1: there is none."""
    first, second = np.empty(len(ups.cost), np.int64), np.empty(len(ups.cost), np.int64)
    one = two = -1
    for n in range(len(ups.cost)):
        if one < 0 or ups.cost[n] < ups.cost[one]:
            if one >= 0 and ups.tensor[one] != ups.tensor[n]:
                two = one
            one = n
        elif ups.tensor[n] != ups.tensor[one] and (two < 0 or ups.cost[n] < ups.cost[two]):
            two = n
        first[n], second[n] = one, two
    return first, second
