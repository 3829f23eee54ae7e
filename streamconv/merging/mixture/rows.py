"""Row sources of a mixture: weights with noise, and noise alone."""

from __future__ import annotations

import numpy as np

from ...rows import Floats, Rows, matrix_shape
from ..counter_random import CounterRandom
from ..inputs import round_to
from ..scratch import borrow

#: floats made at a time, which stay in the second-level cache
_TILE = 64 << 10


class NoisyRows(Rows):
    """A tensor plus normally distributed numbers; rounded to its type.

    Parameters
    ----------
    scale : their standard deviation
    rng : where they come from
    """

    def __init__(self, inner: Rows, scale: float, rng: CounterRandom) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.dtype = inner.dtype
        self._n_cols = matrix_shape(inner.shape)[1]
        self._scale = np.float32(scale)
        self._rng = rng

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        step = max(1, _TILE // max(1, self._n_cols))
        for a in range(start, stop, step):
            b = min(a + step, stop)
            with borrow(b - a, self._n_cols) as rows, borrow(b - a, self._n_cols) as noise:
                self.inner.read(a, b, rows)
                self._rng.normals(a * self._n_cols, noise.reshape(-1))
                rows += self._scale * noise
                round_to(self.dtype, rows)
                out[a - start : b - start] = rows


class RandomRows(Rows):
    """Random numbers.

    Parameters
    ----------
    normal : normally distributed around 0 with variance 1; else uniform in ± 1 / sqrt(n_cols)
    """

    def __init__(self, shape: tuple[int, int], dtype: str, normal: bool, rng: CounterRandom) -> None:
        self.shape = shape
        self.dtype = dtype
        self._normal = normal
        self._rng = rng

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        n_cols = self.shape[1]
        rows = np.empty((stop - start, n_cols), np.float32)
        if self._normal:
            self._rng.normals(start * n_cols, rows.reshape(-1))
        else:
            self._rng.words(start * n_cols, rows.view(np.uint32).reshape(-1))
            limit = np.float32(1 / np.sqrt(n_cols))
            rows[...] = limit * (rows.view(np.uint32).astype(np.float64) * 2.0**-31 - 1.0).astype(np.float32)
        round_to(self.dtype, rows)
        out[...] = rows
