"""Rows of one-byte codes with a grid of scales: one for the tensor, for each row, for each group of a row, or for each block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache as once

import numpy as np
from numpy.typing import NDArray

from ..kernels import load
from ..rows import Floats, matrix_shape
from ..sources.widen import widen
from .decoded_rows import DecodedRows, Range, numbers
from .raw import Raw, frozen

_FLIP = np.uint8(128)


@dataclass(frozen=True)
class Grid:
    """Which scale belongs to which element.

    Attributes
    ----------
    rows : rows of the matrix that share a row of scales
    width : columns that share a scale
    per_slice : rows of the matrix in a slice (an expert), after which a new row of scales begins
    """

    rows: int
    width: int
    per_slice: int

    def groups(self, n_cols: int) -> int:
        """Scales in a row of scales."""
        return -(-n_cols // self.width)

    def scale_rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """The row of scales of each of the rows ``start..stop``."""
        number, inside = np.divmod(np.arange(start, stop, dtype=np.int64), self.per_slice)
        return np.asarray(number * -(-self.per_slice // self.rows) + inside // self.rows)


def grid_for(shape: tuple[int, ...], scale: tuple[int, ...], block: Sequence[int] | None = None) -> Grid | None:
    """How scales of shape ``scale`` lie over a tensor of ``shape``; None when they do not fit it.

    ``block`` is the stated size [rows, columns] of a block; without it scales per group of columns are possible.

    >>> grid_for((200, 300), (2, 3), (128, 128)), grid_for((40, 56), (1,)), grid_for((40, 56), (40, 1))
    (Grid(rows=128, width=128, per_slice=200), Grid(rows=40, width=56, per_slice=40), Grid(rows=1, width=56, per_slice=40))
    """
    n_rows, n_cols = matrix_shape(shape)
    per_slice = shape[-2] if len(shape) > 1 else 1
    if not n_rows or not n_cols:
        return None
    if int(np.prod(scale)) == 1:
        return Grid(n_rows, n_cols, n_rows)
    if block is not None and scale == (*shape[:-2], -(-per_slice // block[0]), -(-n_cols // block[1])):
        return Grid(min(block[0], per_slice), min(block[1], n_cols), per_slice)
    if scale in ((n_rows,), (n_rows, 1), (*shape[:-1], 1), shape[:-1]):
        return Grid(1, n_cols, n_rows)
    if len(shape) > 2 and int(np.prod(scale)) == n_rows // per_slice and scale[0] == shape[0]:
        return Grid(per_slice, n_cols, per_slice)
    if block is None and scale[:-1] == shape[:-1] and scale[-1] and n_cols % scale[-1] == 0:
        return Grid(1, n_cols // scale[-1], n_rows)
    return None


class GridRows(DecodedRows):
    """Base of the two kinds; ``parts`` are the codes, the scales and what else there is."""

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: str, encoding: str, parts: Sequence[Raw], grid: Grid,
        scale_type: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, shape, dtype, encoding, parts)
        self._grid = grid
        self._scale_type = scale_type

    def _codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.parts[0].bytes(start * self.n_cols, stop * self.n_cols).reshape(stop - start, self.n_cols)

    def _scales(self, start: int, stop: int) -> tuple[NDArray[np.int64], int, int]:
        """For each row its row of scales, and the range of numbers they are counted in."""
        row_of = self._grid.scale_rows(start, stop)
        first, last = int(row_of[0]), int(row_of[-1]) + 1
        groups = self._grid.groups(self.n_cols)
        return row_of - first, first * groups, last * groups

    def _numbers(self, part: Raw, first: int, last: int) -> Floats:
        dtype = self._scale_type if part is self.parts[1] else None
        return part.floats(first, last, dtype).reshape(-1, self._grid.groups(self.n_cols))

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        _, first, last = self._scales(start, stop)
        yield self.parts[0], start * self.n_cols, stop * self.n_cols
        yield from (numbers(part, first, last) for part in self.parts[1:])


class IntRows(GridRows):
    """Signed whole numbers: ``(code − zero) · scale · factor``, with a zero point for each scale where ``parts`` has three."""

    kernels = (".dequant.kernels.levels", ".kernels.rounding")
    #: a product of the encoding itself
    factor = np.float32(1)

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        row_of, first, last = self._scales(start, stop)
        scales = self._numbers(self.parts[1], first, last)
        zeros = np.full(scales.shape, _FLIP, np.float32)
        if len(self.parts) > 2:
            zeros += self._numbers(self.parts[2], first, last)
        load(".dequant.kernels.levels").scaled(
            self._codes(start, stop), _FLIP, frozen(zeros), scales, row_of, self._grid.width, self.factor, out
        )  # fmt: skip


@once
def float8_table(dtype: str) -> Floats:
    """All values of an 8-bit float: float32[256]."""
    out = np.empty(256, np.float32)
    widen(dtype, np.arange(256, dtype=np.uint8).reshape(1, -1), out.reshape(1, -1))
    return frozen(out)


class Float8Rows(GridRows):
    """8-bit floats of the type the header names: ``value · scale``."""

    kernels = (".dequant.kernels.levels", ".kernels.rounding")
    #: the type, where the header names that of the words they lie in
    code_type = ""

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        row_of, first, last = self._scales(start, stop)
        scales = self._numbers(self.parts[1], first, last)
        table = float8_table(self.code_type or self.parts[0].dtype)
        load(".dequant.kernels.levels").looked_up(
            self._codes(start, stop), table, scales, row_of, self._grid.width, out
        )
