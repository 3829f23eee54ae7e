"""How large the inputs of a block's matrices are: squares summed over all tokens, as llama-imatrix does it.

Sums are made per block of tokens and added in the order of the blocks, in float64, whichever thread comes first: they depend on
neither threads nor memory. Those of even and of odd blocks are kept apart, which tells how far they would differ with another text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..quant.imatrix_files import Shape
from ..rows import Floats

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]
#: rows whose squares are added in float32, before these sums are in float64
_STRIP = 16
#: an expert that fewer tokens reached has weights that are mostly chance
FEW_VISITS = 256


class Found(NamedTuple):
    """What was found for one entry.

    Attributes
    ----------
    squares : float64[n_mat, n_cols]
    counts : int64[n_mat] tokens that were summed over
    deviation : median of how far the means of both halves of the text differ, relatively; 0 where only one reached it
    """

    squares: Doubles
    counts: Counts
    deviation: float


def squares(x: Floats) -> Doubles:
    """Column sums of the squares of ``x``, float32[n, n_cols]."""
    total = np.zeros(x.shape[1])
    for at in range(0, len(x), _STRIP):
        strip = x[at : at + _STRIP]
        total += np.einsum("ij,ij->j", strip, strip)
    return total


class Importance:
    """Takes in what the matrices of one block are given; safe to call from several threads, in any order.

    Raises
    ------
    BadInput : by ``result``, where NaN or Inf was met
    """

    def __init__(self, shapes: Iterable[Shape]) -> None:
        self._entries = {shape.name: _Halves(shape) for shape in shapes}
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Memory that the sums take, about."""
        return sum(entry.n_bytes for entry in self._entries.values())

    def __call__(self, name: str, block: int, x: Floats, expert: int | None = None) -> None:
        """A block of the tokens that reach the matrix ``name``, or one of its experts: its inputs ``x``, float32[n, n_cols].

        The blocks of each are numbered from 0. What has no entry is ignored.
        """
        entry = self._entries.get(name)
        if entry is not None:
            found = squares(x)
            with self._lock:
                entry.take(block, found, len(x), expert or 0)

    def result(self) -> dict[str, Found]:
        """What was found, by name."""
        return {name: entry.result() for name, entry in self._entries.items()}


class _Halves:
    """The sums of one entry, those of even and of odd blocks apart."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._squares = np.zeros((2, shape.n_mat, shape.n_cols))
        self._counts = np.zeros((2, shape.n_mat), np.int64)
        self._next = [0] * shape.n_mat
        #: blocks that came before one with a lower number did
        self._waiting: list[dict[int, tuple[Doubles, int]]] = [{} for _ in range(shape.n_mat)]

    @property
    def n_bytes(self) -> int:
        """Of the sums, once more when they are put together, and what waits."""
        return 2 * self._squares.nbytes

    def take(self, block: int, found: Doubles, n: int, number: int) -> None:
        """Add what was ``found``, once the blocks before it are there."""
        waiting = self._waiting[number]
        waiting[block] = found, n
        while (following := waiting.pop(self._next[number], None)) is not None:
            self._add(number, self._next[number], *following)
            self._next[number] += 1

    def _add(self, number: int, block: int, found: Doubles, n: int) -> None:
        self._squares[block % 2, number] += found
        self._counts[block % 2, number] += n

    def result(self) -> Found:
        """See ``Importance.result``."""
        if any(self._waiting):
            raise AssertionError(f"{self._shape.name}: a block of tokens is missing")
        total = self._squares.sum(axis=0)
        if not np.isfinite(total).all():
            raise BadInput(
                f"{self._shape.name}: NaN or Inf among its inputs",
                "Look for NaN and Inf in the weights: streamconv check.",
            )
        return Found(total, self._counts.sum(axis=0), self._deviation())

    def _deviation(self) -> float:
        reached = (self._counts > 0).all(axis=0)
        means = self._squares[:, reached] / self._counts[:, reached, None]
        compared = means[1] > 0
        return float(np.median(np.abs(means[0][compared] / means[1][compared] - 1))) if compared.any() else 0.0
