"""Rows of which the largest magnitude is known before the first is encoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import BadInput
from ..kernels import load
from ..rows import Bytes, Floats, Json, Rows, Span, matrix_shape
from ..workers import Workers

#: values that are looked at at a time, and such pieces that are asked for ahead
_PIECE = 256 << 10
_AHEAD = 16


class WithLargest(Rows):
    """The rows of ``inner``, whose largest magnitude is measured.

    Parameters
    ----------
    name : of the tensor, for messages
    """

    looks_first = True

    def __init__(self, inner: Rows, name: str) -> None:
        self.inner = inner
        self.name = name
        self.shape = inner.shape
        self.dtype = inner.dtype
        self._n_rows, self._n_cols = matrix_shape(inner.shape)
        self._step = max(1, _PIECE // max(1, self._n_cols))

    @property
    def largest(self) -> float:
        """The largest magnitude, a finite number."""
        return float(self.fact)

    def measure(self, workers: Workers) -> Json:
        """The largest magnitude.

        Raises
        ------
        BadInput : NaN or Inf; names tensor, row and column
        """
        pieces = range(0, self._n_rows, self._step)
        return max(workers.map(self._look, pieces), default=0.0)

    def _look(self, start: int) -> float:
        """The largest magnitude of the piece that begins with row ``start``."""
        stop = min(start + self._step, self._n_rows)
        if start // self._step % _AHEAD == 0:
            self.inner.prefetch(stop, min(stop + _AHEAD * self._step, self._n_rows))
        stored = self.inner.stored(start, stop) if self.dtype == "BF16" else None
        x: Any
        if stored is not None and stored.flags.c_contiguous and stored.view(np.uint16).flags.aligned:
            x = stored.view(np.uint16)
            x.flags.writeable = False  # as mapped files are: one compiled kernel serves all sources
        else:
            x = self.inner.read(start, stop)
        top = np.empty(stop - start, np.float32)
        load(".kernels.tiles").block_largest(x, top)
        found = float(top.max(initial=0))
        if not np.isfinite(found):
            values = self.inner.read(start, stop)
            row, col = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise BadInput(
                f"tensor {self.name!r} holds {values[row, col]} at row {start + row}, column {col}: not a finite number",
                "The checkpoint is damaged or diverged; no scale of a tensor can be found for it.",
            )
        return found

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        self.inner.read(start, stop, out)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The stored bytes."""
        return self.inner.native(kind, start, stop)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.inner.spans(start, stop)
