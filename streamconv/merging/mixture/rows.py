"""Row sources of a mixture: experts side by side, and weights with noise."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from ...rows import Bytes, Floats, Rows, Span, matrix_shape
from ..chance import Chance
from ..inputs import round_to
from ..scratch import borrow

#: floats made at a time, which stay in the second-level cache
_TILE = 64 << 10


class StackedRows(Rows):
    """The rows of several sources of one type, one source after the other.

    Parameters
    ----------
    shape : of the whole, with as many rows as the parts have together
    """

    def __init__(self, parts: Sequence[Rows], shape: tuple[int, ...]) -> None:
        self.parts = parts
        self.shape = shape
        self.dtype = parts[0].dtype
        self._starts = [0, *accumulate(matrix_shape(part.shape)[0] for part in parts)]

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

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored rows where all parts have them."""
        if stop <= start:
            found = [part.stored(0, 0) for part in self.parts]
            return None if any(rows is None for rows in found) else found[0]
        rows = [part.stored(a, b) for part, a, b, _ in self._ranges(start, stop)]
        known = [each for each in rows if each is not None]
        if len(known) < len(rows):
            return None
        return known[0] if len(known) == 1 else np.concatenate(known)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        for part, a, b, _ in self._ranges(start, stop):
            yield from part.spans(a, b)


class NoisyRows(Rows):
    """A tensor plus normally distributed numbers; rounded to its type.

    Parameters
    ----------
    scale : their standard deviation
    chance : where they come from
    """

    def __init__(self, inner: Rows, scale: float, chance: Chance) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.dtype = inner.dtype
        self._n_cols = matrix_shape(inner.shape)[1]
        self._scale = np.float32(scale)
        self._chance = chance

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        step = max(1, _TILE // max(1, self._n_cols))
        for a in range(start, stop, step):
            b = min(a + step, stop)
            with borrow(b - a, self._n_cols) as rows, borrow(b - a, self._n_cols) as noise:
                self.inner.read(a, b, rows)
                self._chance.normals(a * self._n_cols, noise.reshape(-1))
                rows += self._scale * noise
                round_to(self.dtype, rows)
                out[a - start : b - start] = rows


class RandomRows(Rows):
    """Random numbers.

    Parameters
    ----------
    normal : normally distributed around 0 with variance 1; else uniform in ± 1 / sqrt(n_cols)
    """

    def __init__(self, shape: tuple[int, int], dtype: str, normal: bool, chance: Chance) -> None:
        self.shape = shape
        self.dtype = dtype
        self._normal = normal
        self._chance = chance

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        n_cols = self.shape[1]
        rows = np.empty((stop - start, n_cols), np.float32)
        if self._normal:
            self._chance.normals(start * n_cols, rows.reshape(-1))
        else:
            self._chance.words(start * n_cols, rows.view(np.uint32).reshape(-1))
            limit = np.float32(1 / np.sqrt(n_cols))
            rows[...] = limit * (rows.view(np.uint32).astype(np.float64) * 2.0**-31 - 1.0).astype(np.float32)
        round_to(self.dtype, rows)
        out[...] = rows
