"""The row-source protocol: the one interface that sources, transforms, merges and quantizers share.

A tensor is a matrix of ``n_rows = prod(shape[:-1])`` rows and ``n_cols = shape[-1]`` columns (a scalar is 1 x 1, a vector
one row). A *row source* hands out any range of its rows as float32. Row sources wrap row sources: a stored tensor, the
decoder of a quantized one, a permutation of heads and a stack of experts all have this shape, so whoever consumes one
never knows how deep the tree is.

Contract
--------
* ``read`` is a pure function of ``(start, stop)``: thread-safe, the same bits for every chunking of the rows.
* Values are the stored ones widened to float32, exactly where the stored type allows it.
* ``stored(0, 0)`` tells for all rows whether they are stored: where it is not None, no other range is.
* ``prefetch``/``release`` are hints about the pages behind a range of rows; ignoring them is correct.
* Whoever goes over a whole tensor before its first row calls ``stop_if_unwanted`` on the way.
* Not checked here: that values are finite.

``tests/row_contract.py`` is this contract as a check; every kind of rows has a line in ``tests/test_row_contract.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .errors import Stopped

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass
class Quality:
    """What encoding some rows did to their values; sums over any set of rows.

    Attributes
    ----------
    nonfinite : NaN and Inf in the source, or in what was made of it where those are more
    sum_squared_error, max_error : decoded values against the source's; 0 unless measured
    """

    nonfinite: int = 0
    sum_squared_error: float = 0.0
    max_error: float = 0.0

    def add(self, other: Quality) -> None:
        """Take in the rows that ``other`` describes."""
        self.nonfinite += other.nonfinite
        self.sum_squared_error += other.sum_squared_error
        self.max_error = max(self.max_error, other.max_error)


@runtime_checkable
class RowSource(Protocol):
    """A matrix that is read a few rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape, slowest dimension first."""

    @property
    def dtype(self) -> str:
        """Precision of the values, spelled as in safetensors: ``F32``, ``F16``, ``BF16``, ``I8``, …"""

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32[stop - start, n_cols]; written into ``out`` (any row stride) when given."""

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The same rows as uint8[stop - start, row_bytes] in the encoding ``dtype`` names, or None when not stored so."""

    def prefetch(self, start: int, stop: int) -> None:
        """These rows will be read soon."""

    def release(self, start: int, stop: int) -> None:
        """These rows will not be read again soon."""


class Made:
    """Rows that are computed here: nothing of them is stored, so there is nothing to fetch or to give back."""

    def stored(self, start: int, stop: int) -> Bytes | None:
        """See ``RowSource.stored``."""
        return None

    def prefetch(self, start: int, stop: int) -> None:
        """See ``RowSource.prefetch``."""

    def release(self, start: int, stop: int) -> None:
        """See ``RowSource.release``."""


def wrapped(rows: object) -> Iterator[object]:
    """``rows``, the row source that they are made of row by row, and so on down to one that wraps none."""
    while rows is not None:
        yield rows
        rows = getattr(rows, "inner", None)


class Merge(NamedTuple):
    """How rows are merged.

    Attributes
    ----------
    method : what recipes call it
    n_inputs : row sources that are merged
    looks_first : whether a statistic of the whole tensor comes before its first row
    """

    method: str
    n_inputs: int
    looks_first: bool


def merge_of(rows: object) -> Merge | None:
    """How ``rows``, or what they are made of row by row, are merged; None where nothing is."""
    found = (getattr(each, "how", None) for each in wrapped(rows))
    return next((how for how in found if isinstance(how, Merge)), None)


_wanted: ContextVar[Callable[[], bool]] = ContextVar("wanted", default=lambda: True)


def read_while(wanted: Callable[[], bool]) -> None:
    """From now on, what this thread reads is wanted only while ``wanted()``."""
    _wanted.set(wanted)


def stop_if_unwanted() -> None:
    """Raise Stopped where nobody waits any more for what this thread reads."""
    if not _wanted.get()():
        raise Stopped("nobody waits for these rows any more")


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """``(n_rows, n_cols)`` of a tensor seen as a matrix; a scalar is (1, 1).

    >>> matrix_shape((8, 4, 32)), matrix_shape((32,)), matrix_shape(())
    ((32, 32), (1, 32), (1, 1))
    """
    return (prod(shape[:-1]), shape[-1]) if shape else (1, 1)
