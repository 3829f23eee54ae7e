"""Three values for a matrix: none, and one magnitude of either sign, which follows from the mean of all magnitudes."""

from __future__ import annotations

import numpy as np

from ..rows import Floats, Json, Rows, matrix_shape
from ..workers import Workers

#: numbers of which one sum is made
_PIECE = 1 << 20
_LEAST = np.float32(1e-5)


class Ternary(Rows):
    """A matrix of full precision as BitNet computes with it: rounded to -1, 0 and 1 times the mean of magnitudes.

    In float32, and rounded to float16 where the numbers are of that type, as BitNet's own code does.
    """

    looks_first = True

    def __init__(self, inner: Rows) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.dtype = inner.dtype

    def measure(self, workers: Workers) -> Json:
        """The mean of magnitudes, at least 1e-5."""
        n_rows, n_cols = matrix_shape(self.shape)
        step = max(1, _PIECE // max(1, n_cols))

        def total(start: int) -> float:
            rows = self.inner.read(start, min(start + step, n_rows))
            return float(np.abs(rows).sum(dtype=np.float64))

        found = sum(workers.map(total, range(0, n_rows, step)))
        return float(np.maximum(np.float32(found / max(1, n_rows * n_cols)), _LEAST))

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        rows = self.inner.read(start, stop, out)
        inverse = np.float32(1) / np.float32(self.fact)
        rows *= inverse
        np.clip(np.rint(rows, out=rows), -1, 1, out=rows)
        rows /= inverse
        if self.dtype == "F16":
            rows[...] = rows.astype(np.float16)
