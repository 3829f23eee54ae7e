"""A model's vocabulary tensor laid out for another vocabulary: every row of the output is looked up when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...kit import Reshaped
from ...rows import Floats, Json, Rows, Span, matrix_shape, packed, unpacked
from ...workers import Workers
from ..inputs import holds, round_to

#: rows that no source has: zeros; the mean of all rows that have a source; the mean of some rows
ZERO, MEAN, SOME = -1, -2, -3
_TILE = 64 << 10
#: rows of a source that so many others lie between are named one by one
_NEAR = 64

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Where the rows come from.

    Attributes
    ----------
    sources : matrices of the same width
    which : int64[n_rows], number of the source, or ``ZERO``, ``MEAN`` or ``SOME``
    row : int64[n_rows], the row there
    some : output row -> ``(source, row)`` of those whose mean it is
    tokens : rows that belong to tokens, of which ``MEAN`` is the mean
    """

    sources: Sequence[Rows]
    which: Places
    row: Places
    some: Mapping[int, Sequence[tuple[int, int]]]
    tokens: NDArray[np.bool_]

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """``(first, last + 1, source, row)`` of stretches that lie in one source one after the other."""
        which, row = self.which[start:stop], self.row[start:stop]
        breaks = (np.diff(which) != 0) | ((which[1:] >= 0) & (np.diff(row) != 1)) | (which[1:] == SOME)
        edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(which)]
        for a, b in pairwise(edges):
            if b > a:
                yield start + a, start + b, int(which[a]), int(row[a])


class LaidRows(Rows):
    """A matrix whose rows are rows of others.

    Parameters
    ----------
    dtype : holds all values of all sources; means are rounded to it
    """

    def __init__(self, table: Table, dtype: str) -> None:
        self.table = table
        self.dtype = dtype
        self.shape = (len(table.which), *table.sources[0].shape[1:])
        self.looks_first = bool((table.which == MEAN).any())
        self._n_cols = matrix_shape(self.shape)[1]

    def measure(self, workers: Workers) -> Json:
        """The mean of all rows of tokens, added up in float64 in their order."""
        sums = np.zeros(self._n_cols, np.float64)
        step = max(1, _TILE // max(1, self._n_cols))

        def look(a: int) -> list[NDArray[np.float64]]:
            b = min(a + step, self.shape[0])
            rows = self._rows(a, b, np.empty((b - a, self._n_cols), np.float32))
            return [rows[self.table.tokens[a:b]].sum(axis=0, dtype=np.float64)]

        workers.add_up(look, range(0, self.shape[0], step), sums)
        mean: Floats = (sums / max(1, int(self.table.tokens.sum()))).astype(np.float32)
        round_to(self.dtype, mean)
        return packed(mean)

    def measured(self, value: Json) -> None:
        """See ``Rows.measured``."""
        self._fact = None if value is None else unpacked(value, np.float32)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        self._rows(start, stop, out)
        padding = self.table.which[start:stop] == MEAN
        if padding.any():
            out[padding] = self.fact

    def _rows(self, start: int, stop: int, out: Floats) -> Floats:
        """Rows ``start..stop``; those that are the mean of all stay zero."""
        for a, b, source, row in self.table.runs(start, stop):
            part = out[a - start : b - start]
            if source >= 0:
                self.table.sources[source].read(row, row + b - a, part)
            elif source == SOME:
                found = [self.table.sources[s].read(r, r + 1)[0] for s, r in self.table.some[a]]
                mean = np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32)
                round_to(self.dtype, mean)
                part[0] = mean
            else:
                part[...] = 0
        return out

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``; rows of a source that lie near each other together, with those between them."""
        which, row = self.table.which[start:stop], self.table.row[start:stop]
        pairs = [pair for at in (np.flatnonzero(which == SOME) + start).tolist() for pair in self.table.some[at]]
        for number, source in enumerate(self.table.sources):
            rows = np.unique(np.append(row[which == number], [r for k, r in pairs if k == number])).astype(np.int64)
            for near in np.split(rows, np.flatnonzero(np.diff(rows) > _NEAR) + 1) if len(rows) else ():
                yield from source.spans(int(near[0]), int(near[-1]) + 1)


def laid_out(table: Table, own: Rows, dtype: str) -> Rows:
    """The rows of ``table`` as a row source of the same number of dimensions as ``own``; ``own`` itself where it is just that.

    Parameters
    ----------
    own : the first of the table's sources, before vectors became columns
    """
    n = len(table.which)
    same = n == own.shape[0] and not table.which.any() and bool((table.row == np.arange(n)).all())
    if same and holds(own.dtype, dtype):
        return own
    rearranged = LaidRows(table, dtype)
    return Reshaped(rearranged, (n,)) if len(own.shape) == 1 else rearranged
