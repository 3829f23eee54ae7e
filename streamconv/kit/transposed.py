"""Matrices transposed: their columns become rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows import Bytes, Floats, Rows, Span
from .slab_cache import SLAB_BYTES, slab

#: rows of the inner that are read at a time
_STRIP = 256
#: bytes of rows to make at a time where columns are read alone: they are still in the second-level cache when they are used
_NEAR_BYTES = 2 << 20
#: numbers that are read as they are stored
_FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class _Turned(NamedTuple):
    start: int
    stop: int
    rows: NDArray[Any]


class Transposed(Rows):
    """The last two axes exchanged.

    A column lies all over a matrix: one pass over the matrix makes as many rows as fit ``SLAB_BYTES``, which the thread keeps.
    Where columns can be read without the others, that is done for as many as stay in the second-level cache.
    """

    def __init__(self, inner: Rows) -> None:
        *more, self._height, self._width = inner.shape
        self.inner = inner
        self.shape = (*more, self._width, self._height)
        self.dtype = inner.dtype
        self.together = self._width
        self._there: dict[str, bool] = {}

    def _slabs(
        self, start: int, stop: int, size: int, kind: str, make: Callable[[int, int, int], NDArray[Any]]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """``(place, rows)`` of ``start..stop``; ``make(matrix, a, b)`` turns columns ``a..b``, at most ``size``, of a matrix."""
        at = start
        while at < stop:
            matrix, column = divmod(at, self._width)
            first = column // size * size
            last = min(first + size, self._width)
            base = matrix * self._width

            def made(matrix: int = matrix, first: int = first, last: int = last) -> _Turned:
                base = matrix * self._width
                return _Turned(base + first, base + last, make(matrix, first, last))

            end = min(stop, base + last)
            held = slab(self, made, at, end, kind)
            yield at, held.rows[at - held.start : end - held.start]
            at = end

    def _fitting(self, n_bytes: int, item: int) -> int:
        """How many columns of numbers of ``item`` bytes fit ``n_bytes``, at least one."""
        return max(1, n_bytes // max(1, self._height * item))

    def _is_there(self, kind: str) -> bool:
        """Whether numbers of the inner lie somewhere for good, so that reading columns reads no others."""
        if kind not in self._there:
            first, again = (self.inner.numbers(kind, 0, 1) for _ in range(2))
            self._there[kind] = first is not None and again is not None and np.may_share_memory(first, again)
        return self._there[kind]

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if self.dtype in _FLOATS and (stored := self.native(self.dtype, start, stop)) is not None:
            words = stored.view(_FLOATS[self.dtype])
            out[...] = (words.astype(np.uint32) << 16).view(np.float32) if self.dtype == "BF16" else words
            return
        for at, rows in self._slabs(start, stop, self._fitting(SLAB_BYTES, 4), "values", self._values):
            out[at - start : at - start + len(rows)] = rows

    def _values(self, matrix: int, a: int, b: int) -> NDArray[Any]:
        transposed = np.empty((b - a, self._height), np.float32)
        base = matrix * self._height
        for row in range(0, self._height, _STRIP):
            end = min(row + _STRIP, self._height)
            transposed[:, row:end] = self.inner.read(base + row, base + end)[:, a:b].T
        return transposed

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The bytes of the numbers in their new places, where each is bytes of its own."""
        none = self.inner.numbers(kind, 0, 0)
        if none is None or (item := none.shape[2]) not in (1, 2, 4, 8):
            return None

        there = self._is_there(kind)

        def numbers(matrix: int, a: int, b: int) -> NDArray[Any]:
            transposed = np.empty((b - a, self._height), f"u{item}")
            base = matrix * self._height
            found = self.inner.numbers(kind, base, base + self._height) if there else None
            for row in range(0, self._height, _STRIP):
                end = min(row + _STRIP, self._height)
                strip = self.inner.numbers(kind, base + row, base + end) if found is None else found[row:end]
                assert strip is not None
                transposed[:, row:end] = np.ascontiguousarray(strip[:, a:b]).view(transposed.dtype)[..., 0].T
            return transposed.view(np.uint8)

        size = self._fitting(min(_NEAR_BYTES, SLAB_BYTES) if there else SLAB_BYTES, item)
        parts = [rows for _, rows in self._slabs(start, stop, size, kind, numbers)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self._height * item), np.uint8)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``: any row needs all of its matrix."""
        if stop > start:
            first, last = start // self._width, -(-stop // self._width)
            yield from self.inner.spans(first * self._height, last * self._height)
