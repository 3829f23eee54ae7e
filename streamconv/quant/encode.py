"""Rows in, encoded rows out: the last step of every output tensor.

A chunk goes through in tiles of rows that fit the second-level cache: read as float32, looked at for NaN and Inf, encoded
and, when asked, decoded again to measure the error. Rows that are stored in the wanted encoding already are copied as they
lie.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import BadInput
from ..rows import Bytes, Floats, Quality, RowSource, matrix_shape
from .base import Codec, codec
from .types import TensorType

#: Largest finite float16; block scales are stored in that type.
_F16_MAX = 65504.0


class EncodedRows:
    """An output tensor: the rows of a source in the encoding of a tensor type.

    Parameters
    ----------
    name : name in the output
    rows : where the values come from
    tensor_type : encoding of the output
    weights : float32[n_slices, n_cols] importance, each slice for an equal share of the rows (an expert); or None
    allow_nonfinite : count NaN and Inf instead of refusing them
    measure : decode again and add up the error
    compat : reproduce defects of the reference
    """

    def __init__(
        self,
        name: str,
        rows: RowSource,
        tensor_type: TensorType,
        *,
        weights: Floats | None = None,
        allow_nonfinite: bool = False,
        measure: bool = False,
        compat: bool = False,
    ) -> None:
        self.name = name
        self.rows = rows
        self.type = tensor_type
        self.n_rows, self.n_cols = matrix_shape(rows.shape)
        self.row_bytes = tensor_type.row_bytes(self.n_cols)
        self._weights = weights
        self._slice_rows = self.n_rows if weights is None else max(1, self.n_rows // len(weights))
        self._allow_nonfinite = allow_nonfinite
        self._measure = measure
        self._compat = compat
        self._codec: Codec | None = None
        # The same bytes in and out: only float types, whose every bit pattern we would reproduce anyway.
        self._copies = rows.dtype == tensor_type.name and rows.stored(0, 0) is not None

    @property
    def has_weights(self) -> bool:
        """Whether importance weights take part."""
        return self._weights is not None

    @property
    def needs_kernel(self) -> bool:
        """Whether compiled code takes part; plain copies and float32 need none."""
        return not self._copies and self.type.name != "F32"

    def warm_up(self) -> None:
        """Load and compile what ``fill`` needs, so that worker threads do not wait for each other."""
        if self._copies and not self._measure:
            return
        found = self._found_codec()
        n_cols = found.type.block_size
        x = np.zeros((1, n_cols), np.float32)
        out = np.empty((1, found.type.row_bytes(n_cols)), np.uint8)
        weights = None if self._weights is None else np.ones(n_cols, np.float32)
        if not self._copies:
            found.quantize(x, out, weights, self._compat)
        if self._measure:
            found.dequantize(out, x)

    def _found_codec(self) -> Codec:
        if self._codec is None:
            self._codec = codec(self.type.name)
        return self._codec

    def prefetch(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        self.rows.prefetch(start, stop)

    def release(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        self.rows.release(start, stop)

    def fill(self, start: int, stop: int, out: Bytes, scratch: Floats) -> Quality:
        """Encode rows ``start..stop``.

        Parameters
        ----------
        out : uint8[stop - start, row_bytes]
        scratch : float32[>= 2 * n_cols], caller's; the more, the larger the tiles

        Raises
        ------
        BadInput : NaN or Inf in the source, or a value too large for the encoding; names tensor, row and column
        """
        quality = Quality(sum_squared_error=0.0 if self._measure else math.nan)
        step = max(1, len(scratch) // 2 // self.n_cols)
        b = start
        while b < stop:
            a = b
            b = min(a + step, stop, a - a % self._slice_rows + self._slice_rows)
            self._tile(a, b, out[a - start : b - start], scratch, quality)
        return quality

    def _tile(self, a: int, b: int, out: Bytes, scratch: Floats, quality: Quality) -> None:
        half = len(scratch) // 2
        x = scratch[: (b - a) * self.n_cols].reshape(b - a, self.n_cols)
        self.rows.read(a, b, x)
        largest = _largest(x)
        if not np.isfinite(largest):
            quality.nonfinite += self._nonfinite(x, a)
        if self._copies:
            stored = self.rows.stored(a, b)
            assert stored is not None
            out[...] = stored
        else:
            weights = None if self._weights is None else self._weights[a // self._slice_rows]
            self._found_codec().quantize(x, out, weights, self._compat)
        if self._measure or (largest > _F16_MAX and self.type.name not in ("F32", "BF16")):
            y = scratch[half : half + x.size].reshape(x.shape)
            self._found_codec().dequantize(out, y)
            if largest > _F16_MAX and np.isfinite(largest) and not np.isfinite(y).all():
                row = a + int(np.flatnonzero(~np.isfinite(y).all(axis=1))[0])
                self._overflow(row, largest)
            if self._measure:
                with np.errstate(invalid="ignore", over="ignore"):
                    np.subtract(y, x, out=y)
                    error = y.reshape(-1)
                    quality.sum_squared_error += float(np.dot(error, error))
                    quality.max_error = max(quality.max_error, float(np.abs(error, out=error).max(initial=0)))

    def _overflow(self, row: int, largest: float) -> None:
        if self._allow_nonfinite:
            return
        raise BadInput(
            f"tensor {self.name!r}, row {row}: {largest:g} overflows the range of {self.type.name}",
            f"Give this tensor a wider type: --tensor-type '{self.name}=BF16', or --type BF16.",
        )

    def _nonfinite(self, x: Floats, first_row: int) -> int:
        """How many NaN and Inf there are in ``x``; refuses them unless they are allowed."""
        row, col = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        if not self._allow_nonfinite:
            raise BadInput(
                f"tensor {self.name!r} holds {x[row, col]} at row {first_row + row}, column {col}: not a finite number",
                "The checkpoint is damaged or diverged; --allow-nonfinite converts it all the same.",
            )
        count = int(x.size - np.count_nonzero(np.isfinite(x)))
        if self.type.block_size > 1:  # block searches have no meaning for them
            np.nan_to_num(x, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return count


def _largest(x: Floats) -> float:
    """The largest magnitude in ``x``, NaN when there is one."""
    return float(max(x.max(initial=0), -x.min(initial=0)))
