"""The same numbers in the same order, seen in another shape."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows import Bytes, Floats, Rows, Span, matrix_shape
from .slab_cache import SLAB_BYTES, slab


class _Flat(NamedTuple):
    start: int
    stop: int
    values: NDArray[Any]


class Reshaped(Rows):
    """A tensor, or a part of its elements one after the other, in another shape.

    Where rows get shorter, the thread keeps those of the inner that they lie in, if they fit ``SLAB_BYTES``.

    Parameters
    ----------
    first : elements before the part; None: it is all of the tensor
    """

    def __init__(self, inner: Rows, shape: tuple[int, ...], first: int | None = None) -> None:
        self.inner = inner
        self.shape = shape
        self.dtype = inner.dtype
        self._first = first or 0
        self._inner_cols, self._n_cols = matrix_shape(inner.shape)[1], matrix_shape(shape)[1]
        self._is_same = self._inner_cols == self._n_cols and not self._first
        fits = prod(shape) == prod(inner.shape) if first is None else first + prod(shape) <= prod(inner.shape)
        if not fits:
            raise ValueError(f"{inner.shape} does not have as many elements as {shape}")

    def _behind(self, start: int, stop: int) -> tuple[int, int]:
        """The rows of the inner that rows ``start..stop`` lie in."""
        if self._is_same:
            return start, stop
        if stop <= start or not self._n_cols:
            return 0, 0
        a, b = self._first + start * self._n_cols, self._first + stop * self._n_cols
        return a // self._inner_cols, -(-b // self._inner_cols)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if self._is_same:
            self.inner.read(start, stop, out)
        elif stop > start and out.size:
            first, last = self._behind(start, stop)
            few = (last - first) * self._inner_cols * 4 <= SLAB_BYTES
            held = slab(self, lambda: self._read(first, last), first, last) if few else self._read(first, last)
            at = self._first + start * self._n_cols - held.start * self._inner_cols
            out[...] = held.values[at : at + out.size].reshape(out.shape)

    def _read(self, first: int, last: int) -> _Flat:
        """Rows ``first..last`` of the inner."""
        return _Flat(first, last, self.inner.read(first, last).reshape(-1))

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The stored bytes, where a row is rows of the inner or each number is bytes of its own."""
        first, last = self._behind(start, stop)
        found = self.inner.native(kind, first, last) if kind == self.dtype else None
        if found is None or self._is_same:
            return found
        if found.shape[1] % self._inner_cols:
            return None
        item = found.shape[1] // self._inner_cols
        at = (self._first + start * self._n_cols - first * self._inner_cols) * item if stop > start else 0
        width = self._n_cols * item
        return np.ascontiguousarray(found).reshape(-1)[at : at + (stop - start) * width].reshape(stop - start, width)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.inner.spans(*self._behind(start, stop))
