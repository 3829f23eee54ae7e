"""A matrix whose columns have the length one."""

from __future__ import annotations

import numpy as np

from ..rows import Floats, Json, Rows, matrix_shape, packed, unpacked
from ..workers import Workers

#: floats read in one go
_TILE = 256 << 10
#: keeps columns of zeros as they are
_LEAST = np.float32(1e-7)


class UnitColumns(Rows):
    """The columns of ``inner`` divided by their lengths, as float32.

    Squares are added up in float32 from the first row to the last, as torch does, so that the lengths have its bits.
    """

    looks_first = True

    def __init__(self, inner: Rows) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.dtype = "F32"

    def measure(self, workers: Workers) -> Json:
        """What each column is divided by."""
        n_rows, n_cols = matrix_shape(self.shape)
        squares = np.zeros(n_cols, np.float32)
        step = max(1, _TILE // max(1, n_cols))
        for a in range(0, n_rows, step):
            workers.go_on()
            rows = self.inner.read(a, min(a + step, n_rows))
            np.square(rows, out=rows)
            for row in rows:
                squares += row
        return packed(np.sqrt(squares) + _LEAST)

    def measured(self, value: Json) -> None:
        """See ``Rows.measured``."""
        self._fact = None if value is None else unpacked(value, np.float32)

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        lengths = self.fact
        rows = self.inner.read(start, stop, out)
        rows /= lengths
        return rows
