"""The best approximation of the difference of two matrices by factors of a given rank, the matrices read a few rows at a time.

    D = tuned - base = U Σ Vᵀ ≈ B A                       (Eckart, Young 1936: no other B A of this rank is nearer)
    A = √Σ Vᵀ, B = D V / √Σ                               so only V must be found

V spans the dominant eigenvectors of Dᵀ D. Where a side of D is short, they are found exactly. Else an orthonormal set of
somewhat more vectors than wanted is multiplied by Dᵀ D over and over, starting with random ones, until the part of D they
explain no longer grows (subspace iteration; Halko, Martinsson, Tropp 2011, arXiv:0909.4061); every turn is one pass over D.
Sums run in a fixed order and the start depends on the tensor's name only: the factors are the same for any number of threads,
on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...kernels import load
from ...kit import Transposed
from ...rows import Floats, Json, Rows, Span, matrix_shape, packed, unpacked
from ...workers import Workers
from ..counter_random import CounterRandom

#: sides up to this length are done exactly
EXACT = 512
#: of a pass, elements that are read together, and rows at least and at most
_TILE, _LEAST_ROWS, _MOST_ROWS = 1 << 20, 16, 512
_MOST_TURNS = 24
#: growth of the explained part, relative to what is left, below which more turns are not worth it
_ENOUGH = 2e-5
#: singular values below this share of the largest are noise of float32
_NOISE = 1e-7
#: pieces of one step that threads share
_SHARES = 16

Doubles = NDArray[np.float64]


def _kernels() -> Any:
    return load(".merging.kernels.factors")


def subspace(n_rows: int, n_cols: int, rank: int) -> int:
    """How many vectors are worked with."""
    short = min(n_rows, n_cols)
    return short if short <= EXACT else min(short, rank + max(32, rank // 2))


def working_bytes(n_rows: int, n_cols: int, rank: int) -> int:
    """Memory for one matrix while its factors are found."""
    k = subspace(n_rows, n_cols, rank)
    return k * n_cols * (4 + 4 + 8 + 8 + 8) + 4 * _TILE * 4 + 4 * k * k * 8


@dataclass(frozen=True)
class Settings:
    """How factors are made.

    Attributes
    ----------
    rank : of the factors; smaller where the matrix is
    distribute : both factors take the root of the singular values; else A takes them whole
    epsilon : singular values up to this are left out
    """

    rank: int
    distribute: bool = True
    epsilon: float = 0.0


class RightRows(Rows):
    """The factor of the columns, rank by rank: float[rank, n_cols], rows of Vᵀ times their share of the singular values.

    Parameters
    ----------
    name : of the tensor
    base, tuned : matrices of one shape
    """

    looks_first = True

    def __init__(self, name: str, base: Rows, tuned: Rows, settings: Settings) -> None:
        self.name = name
        self.base = base
        self.tuned = tuned
        self.settings = settings
        n_rows, n_cols = matrix_shape(base.shape)
        self.shape = (min(settings.rank, n_rows, n_cols), n_cols)
        self.dtype = "F32"

    def measure(self, workers: Workers) -> Json:
        """Rows of Vᵀ, and the shares that both factors have of the singular values."""
        values, found = _Search(self, workers).found()
        sizes = np.sqrt(np.maximum(values, 0.0))
        kept = (sizes > self.settings.epsilon) & (sizes > _NOISE * sizes.max(initial=0.0))
        found[~kept] = 0
        return [packed(found), packed(np.where(kept, np.sqrt(sizes) if self.settings.distribute else sizes, 1.0))]

    def measured(self, value: Json) -> None:
        """Keep this factor, and float32[n_cols, rank], V divided by the share, so that D times it is the other factor."""
        self._fact = None
        if value is not None:
            found = unpacked(value[0], np.float32).reshape(self.shape)
            share = unpacked(value[1], np.float64)[:, None]
            scaled = (found * share).astype(np.float32)
            self._fact = scaled, np.ascontiguousarray((found / share).astype(np.float32).T)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if stop > start:
            out[...] = self.fact[0][start:stop]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """None: any row needs all of both matrices, and the rows of the other factor read theirs once more."""
        return iter(())

    def difference(self, start: int, stop: int) -> Floats:
        """Rows of D."""
        rows = self.tuned.read(start, stop)
        rows -= self.base.read(start, stop)
        return rows


class LeftRows(Rows):
    """The factor of the rows: float[n_rows, rank]; made from the rows of the difference as they stream by."""

    def __init__(self, right: RightRows) -> None:
        self.right = right
        self.shape = (matrix_shape(right.base.shape)[0], right.shape[0])
        self.dtype = "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if stop > start:
            out[...] = self.columns(start, stop, self.right.fact[1])

    def columns(self, start: int, stop: int, inverse: Floats) -> Floats:
        """Rows ``start..stop``, of which only the columns that belong to ``inverse`` float32[n_cols, n], C order."""
        out = np.zeros((stop - start, inverse.shape[1]), np.float32)
        _kernels().add_products(self.right.difference(start, stop), inverse, out)
        return out

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.right.base.spans(start, stop)
        yield from self.right.tuned.spans(start, stop)


class LeftColumns(Transposed):
    """The factor of the rows, rank by rank: float[rank, n_rows]; a pass over both matrices makes as many as fit a slab."""

    def __init__(self, right: RightRows) -> None:
        self.left = LeftRows(right)
        super().__init__(self.left)

    def _values(self, matrix: int, a: int, b: int) -> NDArray[Any]:
        n_rows, inverse = self.left.shape[0], np.ascontiguousarray(self.left.right.fact[1][:, a:b])
        transposed = np.empty((b - a, n_rows), np.float32)
        step = _step(self.left.right.shape[1])
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            transposed[:, start:stop] = self.left.columns(start, stop, inverse).T
        return transposed


def _step(n_cols: int) -> int:
    """Rows of D that are read together."""
    return min(max(_TILE // n_cols, _LEAST_ROWS), _MOST_ROWS)


class _Search:
    """The dominant eigenvectors of Dᵀ D: what is known of one matrix while they are found."""

    def __init__(self, pair: RightRows, workers: Workers) -> None:
        self._pair, self._workers = pair, workers
        self._n_rows, self._n_cols = matrix_shape(pair.base.shape)
        self._rank = pair.shape[0]

    def found(self) -> tuple[Doubles, Floats]:
        """The largest eigenvalues float64[rank], and the vectors as rows float32[rank, n_cols]."""
        vectors, values, among = self._dominant()
        return values[: self._rank], self._product(np.ascontiguousarray(among[: self._rank], np.float32), vectors)

    def _each(self, work: Callable[[int, int], None], n: int) -> None:
        """``work(first, last)`` for shares of ``range(n)``."""
        size = max(1, -(-n // _SHARES))
        self._workers.fold(lambda: None, lambda _, share: work(share * size, min(n, (share + 1) * size)), -(-n // size))

    def _tiles(self) -> Iterator[tuple[int, Floats]]:
        """All rows of D, a few at a time, with the number of the first."""
        step = _step(self._n_cols)
        for start in range(0, self._n_rows, step):
            stop = min(start + step, self._n_rows)
            self._workers.go_on()
            for source in (self._pair.base, self._pair.tuned):
                source.prefetch(stop, min(stop + step, self._n_rows))
            yield start, self._pair.difference(start, stop)

    def _product(self, rows: Floats, right: Floats) -> Floats:
        out = np.zeros((len(rows), right.shape[1]), np.float32)
        self._each(lambda a, b: _kernels().add_products(rows[a:b], right, out[a:b]), len(rows))
        return out

    def _dominant(self) -> tuple[Floats, Doubles, Doubles]:
        """An orthonormal set as rows float32[k, n_cols], and the eigenvalues and -vectors of Dᵀ D in it, the largest first."""
        k = subspace(self._n_rows, self._n_cols, self._rank)
        exact = k == min(self._n_rows, self._n_cols)
        vectors = self._start(k)
        explained = 0.0
        for turn in range(_MOST_TURNS):
            image, total = self._pass(vectors)
            inner = np.empty((k, k), np.float64)
            wide = vectors.astype(np.float64)
            self._each(lambda a, b, w=wide, i=image, t=inner: _kernels().inner_products(w, i, a, b, t), k)  # type: ignore[misc]
            values, among = _eigenvectors((inner + inner.T) / 2)
            now = float(values[: self._rank].sum())
            if exact or turn == _MOST_TURNS - 1 or now - explained <= _ENOUGH * max(total - now, _NOISE * total):
                return vectors, values, among
            explained = now
            _kernels().make_orthonormal(image)
            vectors = image.astype(np.float32)
        raise AssertionError("the last turn returns")

    def _start(self, k: int) -> Floats:
        """The first vectors: all of them, or all rows of D made orthonormal, where that is few; else random ones."""
        if k == self._n_cols:
            return np.eye(k, dtype=np.float32)
        first = np.empty((k, self._n_cols), np.float64)
        if k == self._n_rows:
            for start, rows in self._tiles():
                first[start : start + len(rows)] = rows
        else:
            for i in range(k):
                line = np.empty(self._n_cols, np.float32)
                CounterRandom(0, "factors", self._pair.name, i).normals(0, line)
                first[i] = line
        _kernels().make_orthonormal(first)
        return first.astype(np.float32)

    def _pass(self, vectors: Floats) -> tuple[Doubles, float]:
        """Dᵀ D times the vectors, as rows float64[k, n_cols], and the sum of the squares of D."""
        k = len(vectors)
        right = np.ascontiguousarray(vectors.T)
        sums = np.zeros((self._n_cols, k), np.float64)
        squares = 0.0
        for _, rows in self._tiles():
            seen = self._product(rows, right)
            columns = np.ascontiguousarray(rows.T)

            def add(a: int, b: int, columns: Floats = columns, seen: Floats = seen) -> None:
                part = np.zeros((b - a, k), np.float32)
                _kernels().add_products(columns[a:b], seen, part)
                sums[a:b] += part

            self._each(add, self._n_cols)
            squares += float(np.square(rows, dtype=np.float64).sum())
        if not np.isfinite(squares):
            raise BadInput(
                f"tensor {self._pair.name!r}: the difference of the models is not finite",
                "One of the models is damaged.",
            )
        return np.ascontiguousarray(sums.T), squares


def _eigenvectors(matrix: Doubles) -> tuple[Doubles, Doubles]:
    """Eigenvalues, the largest first, and eigenvectors as rows."""
    n = len(matrix)
    size = float(np.abs(matrix).max(initial=0.0))
    vectors, values, beside = np.eye(n), np.empty(n, np.float64), np.empty(n, np.float64)
    if not size > 0.0 or not np.isfinite(size):
        return np.zeros(n), vectors
    work = matrix / size
    _kernels().make_tridiagonal(work, vectors, values, beside)
    _kernels().make_diagonal(values, beside, vectors)
    order = np.argsort(-values, kind="stable")
    return values[order] * size, vectors[order]
