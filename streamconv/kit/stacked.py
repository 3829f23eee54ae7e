"""Tensors one behind the other: experts in one matrix, joined projections."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from ..rows import Bytes, Floats, Rows, Span, matrix_shape
from .reshaped import Reshaped

#: blocks that a number of their whole tensor belongs to, which is another one for each part
_OF_A_WHOLE = ("NVFP4",)


class Stacked(Rows):
    """The rows of several sources of one width, one source after the other.

    Parameters
    ----------
    shape : of the whole, with as many rows as the parts have together; a new first axis when not given

    Sources of different types give F32.
    """

    def __init__(self, parts: Sequence[Rows], shape: tuple[int, ...] | None = None) -> None:
        self.parts = parts
        self.shape = (len(parts), *parts[0].shape) if shape is None else shape
        self.dtype = parts[0].dtype if len({part.dtype for part in parts}) == 1 else "F32"
        self._starts = [0, *accumulate(matrix_shape(part.shape)[0] for part in parts)]
        n_rows, n_cols = matrix_shape(self.shape)
        if self._starts[-1] != n_rows or any(matrix_shape(part.shape)[1] != n_cols for part in parts):
            raise ValueError(f"{[part.shape for part in parts]} do not stack to {self.shape}")

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int, int]]:
        """The parts behind rows ``start..stop``: source, its rows from and to, and where they begin in the whole."""
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            first, last = self._starts[at], min(stop, self._starts[at + 1])
            if last > start:
                yield self.parts[at], start - first, last - first, start
            start, at = last, at + 1

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        for part, a, b, at in self._ranges(start, stop):
            part.read(a, b, out[at - start : at - start + b - a])

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The rows where all parts have them so, and mean the same by them."""
        if kind in _OF_A_WHOLE and len(self.parts) > 1:
            return None
        if stop <= start:
            found = [part.native(kind, 0, 0) for part in self.parts]
            return None if any(rows is None for rows in found) else found[0]
        rows = [part.native(kind, a, b) for part, a, b, _ in self._ranges(start, stop)]
        known = [each for each in rows if each is not None]
        if len(known) < len(rows):
            return None
        return known[0] if len(known) == 1 else np.concatenate(known)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        for part, a, b, _ in self._ranges(start, stop):
            yield from part.spans(a, b)


def join(parts: Sequence[Rows]) -> Rows:
    """Tensors one behind the other along their first axis, vectors too."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    if len(shape) > 1:
        return Stacked(parts, shape)
    return Reshaped(Stacked([Reshaped(part, (*part.shape, 1)) for part in parts], (*shape, 1)), shape)
