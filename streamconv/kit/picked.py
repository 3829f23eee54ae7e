"""Rows or columns of a tensor by number: the first, every n-th, halves of heads side by side, a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

from ..rows import Bytes, Floats, Rows, Span, matrix_shape
from .order import Order

#: rows apart that are still read in one go with those between them
_NEAR = 4
#: floats read in one go there
_STRIP = 64 << 10


class Selected(Rows):
    """Rows of a matrix, in any order that an ``Order`` tells.

    Parameters
    ----------
    order : numbers of rows of ``inner``
    shape : as many rows as ``order`` takes, of the same width
    """

    def __init__(self, inner: Rows, order: Order, shape: tuple[int, ...]) -> None:
        self.inner = inner
        self.order = order
        self.shape = shape
        self.dtype = inner.dtype
        assert matrix_shape(shape) == (order.length, matrix_shape(inner.shape)[1])

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        for source, count, step, at, stride in self.order.runs(start, stop):
            part = out[at - start : at - start + count * stride : stride]
            if step == 1:
                self.inner.read(source, source + count, part)
            else:
                self._apart(source, step, part)

    def _apart(self, source: int, step: int, out: Floats) -> None:
        """Every ``step``-th row from ``source`` on."""
        strip = max(1, _STRIP // max(1, out.shape[1] * step)) if step <= _NEAR else 1
        for a in range(0, len(out), strip):
            b = min(len(out), a + strip)
            out[a:b] = self.inner.read(source + a * step, source + (b - 1) * step + 1)[::step]

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The bytes of the rows in their order."""
        runs = self.order.runs(start, stop)
        if not runs:
            return self.inner.native(kind, 0, 0)
        out: Bytes | None = None
        for source, count, step, at, stride in runs:
            found = self.inner.native(kind, source, source + (count - 1) * step + 1)
            if found is None or (len(runs) == 1 and step == 1):
                return found
            if out is None:
                out = np.empty((stop - start, found.shape[1]), np.uint8)
            out[at - start : at - start + count * stride : stride] = found[::step]
        return out

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``; of rows that are read in one go also what is between them."""
        for a, b in _joined(sorted(self._ranges(start, stop))):
            yield from self.inner.spans(a, b)

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        n_rows = matrix_shape(self.inner.shape)[0]
        for run in self.order.runs(start, stop):
            if run.step <= _NEAR:
                yield run.source, min(n_rows, run.stop + run.step - 1)
            else:
                yield from ((row, row + 1) for row in range(run.source, run.stop, run.step))


def _joined(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted ranges, those that touch as one."""
    breaks = [0, *(n for n, (a, b) in enumerate(pairwise(ranges), 1) if b[0] > a[1]), len(ranges)]
    for first, last in pairwise(breaks):
        if last > first:
            yield ranges[first][0], max(stop for _, stop in ranges[first:last])


class Columns(Rows):
    """Columns of a matrix, in any order that an ``Order`` tells."""

    def __init__(self, inner: Rows, order: Order) -> None:
        self.inner = inner
        self.order = order
        self.shape = (*inner.shape[:-1], order.length)
        self.dtype = inner.dtype

    @property
    def _index(self) -> Any:
        return self.order.as_slice or self.order.indexes(0, self.order.length)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self.inner.read(start, stop)[:, self._index]

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The bytes of the columns, where each is bytes of its own."""
        found = self.numbers(kind, start, stop)
        return (
            None if found is None else np.ascontiguousarray(found).reshape(len(found), found.shape[1] * found.shape[2])
        )

    def numbers(self, kind: str, start: int, stop: int) -> Bytes | None:
        """See ``Rows.numbers``."""
        found = self.inner.numbers(kind, start, stop)
        return None if found is None else found[:, self._index]


def take(rows: Rows, order: Order, axis: int = 0) -> Rows:
    """What numpy calls ``rows[…, order, …]`` with the order at ``axis``; the rows themselves where it is all of them.

    Raises
    ------
    ValueError : the order leads beyond the rows
    """
    shape = rows.shape
    axis %= len(shape)
    if order.is_all(shape[axis]):
        return rows
    if order.length and order.last >= shape[axis]:
        raise ValueError(f"number {order.last} is not one of {shape[axis]}")
    if axis == len(shape) - 1:
        return Columns(rows, order)
    before, behind = prod(shape[:axis]), prod(shape[axis + 1 : -1])
    steps = (shape[axis] * behind, *(step * behind for step in order.steps), 1)
    flat = Order((before, *order.sizes, behind), steps, order.first * behind)
    return Selected(rows, flat, (*shape[:axis], order.length, *shape[axis + 1 :]))


def cut(rows: Rows, start: int, stop: int, axis: int = 0) -> Rows:
    """``rows[…, start:stop, …]``."""
    return take(rows, Order((stop - start,), (1,), start), axis)


def every(rows: Rows, step: int, first: int, axis: int = 0) -> Rows:
    """``rows[…, first::step, …]``."""
    return take(rows, Order((-(-(rows.shape[axis] - first) // step),), (step,), first), axis)


def split(rows: Rows, sizes: Sequence[int], axis: int = 0) -> list[Rows]:
    """Parts of ``sizes``, one behind the other along ``axis``; together they are as long as it is.

    Raises
    ------
    ValueError : they are not
    """
    if sum(sizes) != rows.shape[axis]:
        raise ValueError(f"{list(sizes)} are not parts of {rows.shape[axis]}")
    return [cut(rows, a, b, axis) for a, b in pairwise([0, *accumulate(sizes)])]
