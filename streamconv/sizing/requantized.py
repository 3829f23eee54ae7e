"""Rows as they will be read from the output: quantized and decoded again, a tile at a time, without a file in between."""

from __future__ import annotations

import numpy as np

from ..quant.base import codec
from ..quant.types import TYPES
from ..rows import Floats, Rows, matrix_shape

#: weights that are quantized at once: they fit the second-level cache
_TILE = 1 << 16


class Requantized(Rows):
    """``rows`` as type ``type_name`` holds them.

    Parameters
    ----------
    weights : float32[n_slices, n_cols] importance, each slice for an equal share of the rows, or None
    compat : reproduce defects of the reference
    """

    dtype = "F32"

    def __init__(self, rows: Rows, type_name: str, weights: Floats | None = None, compat: bool = False) -> None:
        self.shape = rows.shape
        self._rows, self._type = rows, TYPES[type_name]
        self._weights, self._compat = weights, compat
        self._copied = rows.native(type_name, 0, 0) is not None
        n_rows, n_cols = matrix_shape(rows.shape)
        self._slice_rows = max(1, n_rows if weights is None else n_rows // len(weights))
        self._row_bytes = self._type.row_bytes(n_cols)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if self._copied:
            self._rows.read(start, stop, out)
            return
        found, step = codec(self._type.name), max(1, _TILE // out.shape[1])
        data = np.empty((step, self._row_bytes), np.uint8)
        a = start
        while a < stop:
            b = min(a + step, stop, a - a % self._slice_rows + self._slice_rows)
            x = self._rows.read(a, b)
            weights = None if self._weights is None else self._weights[a // self._slice_rows]
            found.quantize(x, data[: b - a], weights, self._compat)
            found.dequantize(data[: b - a], x)
            out[a - start : b - start] = x
            a = b
