"""Row sources of matrices that an adapter changes, row by row over the rows of the base.

    W' = W + s B A                         low rank (Hu et al. 2021, arXiv:2106.09685)
    W' = m / |W + s B A| · (W + s B A)     weight-decomposed (DoRA, Liu et al. 2024, arXiv:2402.09353), lengths of the rows
                                           of the outputs over all inputs

Arithmetic is float32 in a fixed order; the result is rounded once to the precision of the base. Where the stored matrix has
inputs for rows (embeddings, and the transposed layers of GPT-2), the change is transposed and the lengths are those of columns,
which takes one look at the whole tensor.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ..kernels import load
from ..rows import Floats, Json, Rows, Span, matrix_shape, packed, unpacked
from ..sources.widen import STORED_TYPES, widen
from ..workers import Workers
from .inputs import common_dtype, round_to
from .scratch import borrow

#: elements of the base that are changed at a time
_TILE = 64 << 10
#: columns of a factor that are turned into rows together
_BLOCK = 4096
#: parts that column sums are made in before they are added up; another number would round otherwise
_PARTS = 64
_KEPT_BYTES = 16 << 20


def _kernels() -> Any:
    return load(".merging.kernels.low_rank")


class Kept:
    """The float32 factors used last, by name; all tensors of an adapter share one.

    Parameters
    ----------
    limit_bytes : what may be held; the newest is held whatever its size
    """

    def __init__(self, limit_bytes: int = _KEPT_BYTES) -> None:
        self._limit = limit_bytes
        self._found: OrderedDict[Any, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Floats]) -> Floats:
        """What ``make`` returns, which must not be changed."""
        with self._lock:
            found = self._found.get(key)
            if found is None:
                found = self._found[key] = make()
                while len(self._found) > 1 and sum(each.nbytes for each in self._found.values()) > self._limit:
                    self._found.popitem(last=False)
            self._found.move_to_end(key)
            return found


@dataclass(frozen=True)
class LowRank:
    """A change ``scale · B A`` of one matrix.

    Attributes
    ----------
    name : the matrix, which tells its factors apart in ``kept``
    a : float[rank, n_in]
    b : float[n_out, rank]
    scale : what the product is multiplied by
    transposed : the matrix is stored as [n_in, n_out]
    """

    name: str
    a: Rows
    b: Rows
    scale: float
    transposed: bool
    kept: Kept = field(compare=False)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """What ``add`` reads to change rows ``start..stop``: a factor is needed as a whole, of the other at most their part."""
        right, left = (self.b, self.a) if self.transposed else (self.a, self.b)
        if stop > start:
            yield from right.spans(0, right.shape[0])
            yield from left.spans(0, left.shape[0]) if self.transposed else left.spans(start, stop)

    def add(self, start: int, rows: Floats) -> None:
        """Change ``rows`` float32[n, n_cols], C order: those from ``start`` on."""
        right = self.kept.get((self.name, "right"), self._right)
        _kernels().add_product(self._left(start, start + len(rows)), right, np.float32(self.scale), rows)

    def _right(self) -> Floats:
        """The factor that every row takes part in: float32[rank, n_cols]."""
        if not self.transposed:
            return self.a.read(0, self.a.shape[0])
        return np.ascontiguousarray(self.b.read(0, self.b.shape[0]).T)

    def _left(self, start: int, stop: int) -> Floats:
        """The factor of rows ``start..stop``: float32[stop - start, rank]."""
        if not self.transposed:
            return self.b.read(start, stop)
        left = np.empty((stop - start, self.a.shape[0]), np.float32)
        for first in range(start - start % _BLOCK, stop, _BLOCK):
            block = self.kept.get((self.name, first), lambda first=first: self._columns(first))  # type: ignore[misc]
            a, b = max(start, first), min(stop, first + _BLOCK)
            left[a - start : b - start] = block[a - first : b - first]
        return left

    def _columns(self, first: int) -> Floats:
        """Columns of ``a`` from ``first`` on, as rows."""
        rank, n_in = self.a.shape
        stop = min(first + _BLOCK, n_in)
        stored, kind = self.a.stored(0, rank), STORED_TYPES.get(self.a.dtype)
        if stored is None or kind is None or kind.widen is None:
            columns = np.stack([self.a.read(k, k + 1)[0, first:stop] for k in range(rank)])
        else:
            size = kind.bits // 8
            columns = np.empty((rank, stop - first), np.float32)
            widen(self.a.dtype, np.ascontiguousarray(stored[:, first * size : stop * size]), columns)
        return np.ascontiguousarray(columns.T)


class _Changed(Rows):
    """Rows of a base that are changed and rounded to its precision; a subclass says how."""

    def __init__(self, base: Rows) -> None:
        self.base = base
        self.shape = base.shape
        self.dtype = common_dtype([base.dtype])
        self.n_rows, self.n_cols = matrix_shape(base.shape)

    def _change(self, start: int, rows: Floats) -> None:
        """Change ``rows`` float32[n, n_cols] in C order: those from ``start`` on."""
        raise NotImplementedError

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        step = max(1, _TILE // max(1, self.n_cols))
        for a in range(start, stop, step):
            tile = out[a - start : min(a + step, stop) - start]
            if tile.flags.c_contiguous:
                self._make(a, tile)
                continue
            with borrow(*tile.shape) as dense:
                self._make(a, dense)
                tile[...] = dense

    def _make(self, start: int, rows: Floats) -> None:
        self.base.read(start, start + len(rows), rows)
        self._change(start, rows)
        round_to(self.dtype, rows)


class LoraRows(_Changed):
    """``base`` plus a low-rank change."""

    def __init__(self, base: Rows, update: LowRank) -> None:
        super().__init__(base)
        self.update = update

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.base.spans(start, stop)
        yield from self.update.spans(start, stop)

    def _change(self, start: int, rows: Floats) -> None:
        self.update.add(start, rows)


class _Stretched(LoraRows):
    """Base of those that have a length for every row or column.

    Parameters
    ----------
    lengths : the vector, which is read at once
    """

    def __init__(self, base: Rows, update: LowRank, lengths: Rows) -> None:
        super().__init__(base, update)
        self._stored_lengths = lengths
        self._lengths = lengths.read(0, 1)[0]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from super().spans(start, stop)
        yield from self._stored_lengths.spans(0, 1) if stop > start else ()


class DoraRows(_Stretched):
    """``base`` plus a low-rank change, every row stretched to a length of its own: ``lengths`` are float[n_rows]."""

    def _change(self, start: int, rows: Floats) -> None:
        self.update.add(start, rows)
        _kernels().give_rows_length(self._lengths[start : start + len(rows)], rows)


class DoraColumns(_Stretched):
    """``base`` plus a low-rank change, every column stretched to a length of its own: ``lengths`` are float[n_cols]."""

    looks_first = True

    def measure(self, workers: Workers) -> Json:
        """What every column is multiplied by."""
        bounds = [self.n_rows * k // _PARTS for k in range(_PARTS + 1)]
        sums = np.sum(workers.map(lambda part: self._squares(workers, *part), list(pairwise(bounds))), axis=0)
        found = np.sqrt(sums).astype(np.float32)
        return packed(self._lengths / np.where(found > 0, found, np.float32(1)))

    def measured(self, value: Json) -> None:
        """See ``Rows.measured``."""
        self._fact = None if value is None else unpacked(value, np.float32)

    def _squares(self, workers: Workers, start: int, stop: int) -> Any:
        """Sums of squares of the columns over rows ``start..stop``, float64[n_cols]."""
        sums = np.zeros(self.n_cols, np.float64)
        step = max(1, _TILE // max(1, self.n_cols))
        for a in range(start, stop, step):
            workers.go_on()
            with borrow(min(a + step, stop) - a, self.n_cols) as rows:
                self.base.read(a, a + len(rows), rows)
                self.update.add(a, rows)
                _kernels().add_column_squares(rows, sums)
        return sums

    def _change(self, start: int, rows: Floats) -> None:
        self.update.add(start, rows)
        _kernels().scale_columns(self.fact, rows)


class AddedVector(_Changed):
    """A vector plus ``scale`` times another of the same length: a bias and the bias of its adapter."""

    def __init__(self, base: Rows, added: Rows, scale: float) -> None:
        super().__init__(base)
        self.added = added
        self.scale = np.float32(scale)

    def _change(self, start: int, rows: Floats) -> None:
        rows += self.scale * self.added.read(start, start + len(rows))


class ReplacedRows(_Changed):
    """A matrix some rows of which are others.

    Parameters
    ----------
    indices : which rows, in the order of those of ``rows``; the last of equal ones counts
    """

    def __init__(self, base: Rows, indices: Sequence[int], rows: Rows) -> None:
        super().__init__(base)
        self.rows = rows
        found = {index: k for k, index in enumerate(indices)}
        self._indices = np.array(sorted(found), np.int64)
        self._places = [found[int(index)] for index in self._indices]

    def _change(self, start: int, rows: Floats) -> None:
        first, last = np.searchsorted(self._indices, (start, start + len(rows)))
        for k in range(first, last):
            rows[self._indices[k] - start] = self.rows.read(self._places[k], self._places[k] + 1)[0]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.base.spans(start, stop)
        first, last = np.searchsorted(self._indices, (start, stop))
        for place in self._places[first:last]:
            yield from self.rows.spans(place, place + 1)
