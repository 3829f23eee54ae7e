"""Which indexes are taken and in which order, told by a few numbers however many they are."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows import Described

#: of two sensible ways to cut an order into runs, the one that leaves out fewer neighbours is taken up to this many
_FEW = 4


class Run(NamedTuple):
    """Indexes ``source``, ``source + step``, …, ``length`` of them, which become every ``stride``-th from ``at`` on."""

    source: int
    length: int
    step: int
    at: int
    stride: int

    @property
    def stop(self) -> int:
        """One past the last index of the inner."""
        return self.source + (self.length - 1) * self.step + 1


class Order(Described):
    """Indexes ``first + Σ digit · step``; the digits count up like those of a number, the last one fastest.

    Parameters
    ----------
    sizes : of each digit
    steps : of each digit, positive
    first : the index where all digits are 0

    >>> Order((2, 3), (10, 1)).indexes(0, 6).tolist(), Order((3, 2), (1, 3)).indexes(0, 6).tolist()
    ([0, 1, 2, 10, 11, 12], [0, 3, 1, 4, 2, 5])
    """

    def __init__(self, sizes: tuple[int, ...], steps: tuple[int, ...], first: int = 0) -> None:
        self.sizes = sizes
        self.steps = steps
        self.first = first

    @property
    def length(self) -> int:
        """How many indexes it takes."""
        return prod(self.sizes)

    @property
    def last(self) -> int:
        """The highest index that it takes, where it takes any."""
        return self.first + sum((size - 1) * step for size, step in zip(self.sizes, self.steps, strict=True))

    def is_all(self, n: int) -> bool:
        """Whether it takes all of ``n`` indexes as they come."""
        return self.length == n and self.first == 0 and all(step == 1 for step in self._shortest[1])

    @property
    def as_slice(self) -> slice | None:
        """The same as a slice, where all steps are one."""
        sizes, steps = self._shortest
        return slice(self.first, self.last + 1, steps[0]) if len(sizes) == 1 else None

    @cached_property
    def _shortest(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes and steps without digits of one value, and with digits joined that count on."""
        found: list[tuple[int, int]] = []
        for size, step in zip(self.sizes, self.steps, strict=True):
            if size == 1:
                continue
            if found and found[-1][1] == size * step:
                found[-1] = found[-1][0] * size, step
            else:
                found.append((size, step))
        found = found or [(self.length, 1)]
        return tuple(size for size, _ in found), tuple(step for _, step in found)

    @cached_property
    def _cut(self) -> tuple[list[tuple[int, int]], int, int, list[int]]:
        """How it falls into runs.

        Runs are made of one digit: the last, or one that counts neighbours, where few lie behind it. Here are ``(size, step)``
        of the digits before it, the last of them first; its own size and step; and where the digits behind it lead.
        """
        sizes, steps = self._shortest
        near = [a for a, step in enumerate(steps) if step == 1 and prod(sizes[a + 1 :]) <= _FEW]
        axis = near[0] if near else len(sizes) - 1
        before = list(zip(sizes[:axis], steps[:axis], strict=True))[::-1]
        behind = Order(sizes[axis + 1 :], steps[axis + 1 :])
        return before, sizes[axis], steps[axis], [int(i) for i in behind.indexes(0, behind.length)]

    def indexes(self, start: int, stop: int) -> NDArray[np.int64]:
        """The indexes number ``start..stop``, int64."""
        rest = np.arange(start, stop)
        found = np.full(len(rest), self.first, np.int64)
        for size, step in zip(reversed(self.sizes), reversed(self.steps), strict=True):
            rest, digit = np.divmod(rest, size)
            found += digit * step
        return found

    def runs(self, start: int, stop: int) -> list[Run]:
        """The indexes number ``start..stop`` in runs, which fill places from ``start`` on."""
        before, size, step, behind = self._cut
        stride = len(behind)
        block = size * stride
        found: list[Run] = []
        for number in range(start // block, -(-stop // block)) if stop > start else ():
            rest, base, at = number, self.first, number * block
            for n, outer in before:
                rest, digit = divmod(rest, n)
                base += digit * outer
            for offset in behind:
                a = max(0, -((at - start) // stride))
                b = min(size, -((at - stop) // stride))
                if a < b:
                    found.append(Run(base + offset + a * step, b - a, step, at + a * stride, stride))
                at += 1
        return found


def interleaved(length: int, n_groups: int) -> Order:
    """In each of ``n_groups`` groups its two halves alternate: 0, n/2, 1, n/2 + 1, …

    Raises
    ------
    ValueError : ``length`` is not that many groups of even width
    """
    width = length // max(n_groups, 1)
    if n_groups < 1 or length % n_groups or width % 2:
        raise ValueError(f"{length} rows are not {n_groups} heads of even width")
    return Order((n_groups, width // 2, 2), (width, 1, width // 2))
