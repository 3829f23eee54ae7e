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

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...quant import cache
from ...rows import Described, Floats, Rows, Span, matrix_shape, stop_if_unwanted
from ...threads import spread
from ..chance import Chance

#: sides up to this length are done exactly
EXACT = 512
#: of a pass, elements that are read together, and rows at least and at most
_TILE, _LEAST_ROWS, _MOST_ROWS = 1 << 20, 16, 512
_MOST_TURNS = 24
#: growth of the explained part, relative to what is left, below which more turns are not worth it
_ENOUGH = 2e-5
#: singular values below this share of the largest are noise of float32
_NOISE = 1e-7
#: finished factors that are held, for the workers may still read the modules before
_HELD = 8

Doubles = NDArray[np.float64]


def _kernels() -> ModuleType:
    return cache.compiled(f"{__package__}.kernels")


def subspace(n_rows: int, n_cols: int, rank: int) -> int:
    """How many vectors are worked with."""
    short = min(n_rows, n_cols)
    return short if short <= EXACT else min(short, rank + max(32, rank // 2))


def working_bytes(n_rows: int, n_cols: int, rank: int) -> int:
    """Memory for one matrix while its factors are found."""
    k = subspace(n_rows, n_cols, rank)
    return k * n_cols * (4 + 4 + 8 + 8 + 8) + 4 * _TILE * 4 + 4 * k * k * 8


@dataclass
class Workshop:
    """What all matrices of a job share: one at a time is worked on, by all threads.

    Attributes
    ----------
    threads : never changes a value
    """

    threads: int = field(default=1, compare=False)
    lock: threading.RLock = field(default_factory=threading.RLock, compare=False)
    _done: deque[Factors] = field(default_factory=deque, compare=False)

    def finished(self, factors: Factors) -> None:
        """Hold the newest, let the oldest go."""
        self._done.append(factors)
        while len(self._done) > _HELD:
            self._done.popleft().forget()

    def each(self, work: Callable[[int, int], None], n: int) -> None:
        """``work(first, last)`` for shares of ``range(n)``, one a thread."""
        shares = min(self.threads, max(1, n))
        bounds = [n * k // shares for k in range(shares + 1)]
        spread(lambda share: work(*share), list(pairwise(bounds)), shares)


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


class Factors(Described):
    """The factors of one matrix.

    Parameters
    ----------
    name : of the tensor
    base, tuned : matrices of one shape
    transposed : they are stored as [n_in, n_out], as embeddings are
    """

    def __init__(
        self,
        name: str,
        base: Rows,
        tuned: Rows,
        settings: Settings,
        workshop: Workshop,
        transposed: bool = False,
    ) -> None:
        self.name = name
        self.base = base
        self.tuned = tuned
        self.settings = settings
        self.workshop = workshop
        self.transposed = transposed
        self.n_rows, self.n_cols = matrix_shape(base.shape)
        self.rank = min(settings.rank, self.n_rows, self.n_cols)
        self._right: tuple[Floats, Floats] | None = None
        self._left: Floats | None = None

    def forget(self) -> None:
        """Give the memory back; what is asked for later is found anew, and is the same."""
        self._right = self._left = None

    def right(self) -> tuple[Floats, Floats]:
        """Factors of the columns, found when first asked for.

        Returns
        -------
        scaled : float32[rank, n_cols], rows of Vᵀ times their share of the singular values
        inverse : float32[n_cols, rank], V divided by that share, so that D · inverse is the other factor
        """
        found = self._right
        if found is None:
            with self.workshop.lock:
                found = self._right
                if found is None:
                    found = self._right = self._find()
                    self.workshop.finished(self)
        return found

    def left(self, start: int, stop: int) -> Floats:
        """Rows of the other factor: float32[stop - start, rank]."""
        right = self.right()[1]
        out = np.zeros((stop - start, self.rank), np.float32)
        _kernels().add_products(self._difference(start, stop), right, out)
        return out

    def whole_left(self) -> Floats:
        """All of the other factor, transposed: float32[rank, n_rows]; held until the matrix is forgotten."""
        found = self._left
        if found is None:
            with self.workshop.lock:
                found = self._left
                if found is None:
                    self.right()
                    found = np.empty((self.rank, self.n_rows), np.float32)
                    for start, rows in self._tiles():
                        found[:, start : start + len(rows)] = self._product(rows, self.right()[1]).T
                    self._left = found
        return found

    def _difference(self, start: int, stop: int) -> Floats:
        rows = self.tuned.read(start, stop)
        rows -= self.base.read(start, stop)
        return rows

    def _tiles(self) -> Iterator[tuple[int, Floats]]:
        """All rows of D, a few at a time, with the number of the first."""
        step = min(max(_TILE // self.n_cols, _LEAST_ROWS), _MOST_ROWS)
        for start in range(0, self.n_rows, step):
            stop = min(start + step, self.n_rows)
            stop_if_unwanted()
            for source in (self.base, self.tuned):
                source.prefetch(stop, min(stop + step, self.n_rows))
            yield start, self._difference(start, stop)

    def _product(self, rows: Floats, right: Floats) -> Floats:
        out = np.zeros((len(rows), right.shape[1]), np.float32)
        self.workshop.each(lambda a, b: _kernels().add_products(rows[a:b], right, out[a:b]), len(rows))
        return out

    def _find(self) -> tuple[Floats, Floats]:
        vectors, values, among = self._dominant()
        values = values[: self.rank]
        turned: Floats = np.ascontiguousarray(among[: self.rank], np.float32)
        found = self._product(turned, vectors)  # rows of Vᵀ
        sizes = np.sqrt(np.maximum(values, 0.0))
        kept = (sizes > self.settings.epsilon) & (sizes > _NOISE * sizes.max(initial=0.0))
        share = np.where(kept, np.sqrt(sizes) if self.settings.distribute else sizes, 1.0)
        found[~kept] = 0
        scaled = (found * share[:, None]).astype(np.float32)
        return scaled, np.ascontiguousarray((found / share[:, None]).astype(np.float32).T)

    def _dominant(self) -> tuple[Floats, Doubles, Doubles]:
        """An orthonormal set as rows float32[k, n_cols], and the eigenvalues and -vectors of Dᵀ D in it, the largest first."""
        k = subspace(self.n_rows, self.n_cols, self.rank)
        exact = k == min(self.n_rows, self.n_cols)
        vectors = self._start(k)
        explained = 0.0
        for turn in range(_MOST_TURNS):
            image, total = self._pass(vectors)
            inner = np.empty((k, k), np.float64)
            wide = vectors.astype(np.float64)
            self.workshop.each(lambda a, b, w=wide, i=image, t=inner: _kernels().inner_products(w, i, a, b, t), k)  # type: ignore[misc]
            values, among = _eigenvectors((inner + inner.T) / 2)
            now = float(values[: self.rank].sum())
            if exact or turn == _MOST_TURNS - 1 or now - explained <= _ENOUGH * max(total - now, _NOISE * total):
                return vectors, values, among
            explained = now
            _kernels().make_orthonormal(image)
            vectors = image.astype(np.float32)
        raise AssertionError("the last turn returns")

    def _start(self, k: int) -> Floats:
        """The first vectors: all of them, or all rows of D made orthonormal, where that is few; else random ones."""
        if k == self.n_cols:
            return np.eye(k, dtype=np.float32)
        first = np.empty((k, self.n_cols), np.float64)
        if k == self.n_rows:
            for start, rows in self._tiles():
                first[start : start + len(rows)] = rows
        else:
            for i in range(k):
                line = np.empty(self.n_cols, np.float32)
                Chance(0, "factors", self.name, i).normals(0, line)
                first[i] = line
        _kernels().make_orthonormal(first)
        return first.astype(np.float32)

    def _pass(self, vectors: Floats) -> tuple[Doubles, float]:
        """Dᵀ D times the vectors, as rows float64[k, n_cols], and the sum of the squares of D."""
        k = len(vectors)
        right = np.ascontiguousarray(vectors.T)
        sums = np.zeros((self.n_cols, k), np.float64)
        squares = 0.0
        for _, rows in self._tiles():
            seen = self._product(rows, right)
            columns = np.ascontiguousarray(rows.T)

            def add(a: int, b: int, columns: Floats = columns, seen: Floats = seen) -> None:
                part = np.zeros((b - a, k), np.float32)
                _kernels().add_products(columns[a:b], seen, part)
                sums[a:b] += part

            self.workshop.each(add, self.n_cols)
            squares += float(np.square(rows, dtype=np.float64).sum())
        if not np.isfinite(squares):
            raise BadInput(
                f"tensor {self.name!r}: the difference of the models is not finite", "One of the models is damaged."
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


class RightRows(Rows):
    """The factor of the columns, rank by rank: float[rank, n_cols]."""

    looks_first = True

    def __init__(self, factors: Factors) -> None:
        self.factors = factors
        self.shape = (factors.rank, factors.n_cols)
        self.dtype = "F32"

    def _rows(self, start: int, stop: int) -> Floats:
        return self.factors.right()[0][start:stop]

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if stop > start:
            out[...] = self._rows(start, stop)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """None: any row needs all of both matrices, and the rows of the other factor read theirs once more."""
        return iter(())


class RightColumns(RightRows):
    """The same factor, column by column: float[n_cols, rank]."""

    def __init__(self, factors: Factors) -> None:
        super().__init__(factors)
        self.shape = (factors.n_cols, factors.rank)

    def _rows(self, start: int, stop: int) -> Floats:
        columns: Floats = self.factors.right()[0][:, start:stop].T
        return columns


class LeftRows(RightRows):
    """The factor of the rows: float[n_rows, rank]; made from the rows of the difference as they stream by."""

    def __init__(self, factors: Factors) -> None:
        super().__init__(factors)
        self.shape = (factors.n_rows, factors.rank)

    def _rows(self, start: int, stop: int) -> Floats:
        return self.factors.left(start, stop)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.factors.base.spans(start, stop)
        yield from self.factors.tuned.spans(start, stop)


class LeftColumns(RightRows):
    """The factor of the rows, rank by rank: float[rank, n_rows]."""

    def __init__(self, factors: Factors) -> None:
        super().__init__(factors)
        self.shape = (factors.rank, factors.n_rows)

    def _rows(self, start: int, stop: int) -> Floats:
        return self.factors.whole_left()[start:stop]
