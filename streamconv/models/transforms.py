"""Row sources over row sources: what a family changes about a stored tensor on its way to the output."""

from __future__ import annotations

import numpy as np

from ..rows import Bytes, Floats, Made, RowSource, matrix_shape


class Wrapped:
    """Base of transforms that keep row boundaries; rows pass through unchanged unless overridden."""

    def __init__(self, inner: RowSource, shape: tuple[int, ...] | None = None) -> None:
        self.inner = inner
        self._shape = inner.shape if shape is None else shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""
        return self._shape

    @property
    def dtype(self) -> str:
        """Precision of the values."""
        return self.inner.dtype

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        return self.inner.read(start, stop, out)

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored bytes of the rows, where they are unchanged."""
        return self.inner.stored(start, stop)

    def prefetch(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        self.inner.prefetch(start, stop)

    def release(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        self.inner.release(start, stop)


class FirstRows(Wrapped):
    """The first ``n_rows`` rows of a matrix."""

    def __init__(self, inner: RowSource, n_rows: int) -> None:
        super().__init__(inner, (n_rows, *inner.shape[1:]))


class PlusOne(Wrapped):
    """``x + 1`` in the precision of the stored values.

    The reference adds in float16 when the checkpoint is float16, else in float32; so do we.
    """

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop``, one added."""
        rows = self.inner.read(start, stop, out)
        rows += np.float32(1)
        if self.dtype == "F16":
            rows[...] = rows.astype(np.float16)
        return rows

    def stored(self, start: int, stop: int) -> Bytes | None:
        """None: the values are not the stored ones."""
        return None


class Interleaved(Wrapped):
    """Rows of each head reordered from half-split to adjacent rotary pairs.

    Rows are seen as [heads, 2, head_dim / 2] and the two inner axes are swapped, so row ``2 j + k`` of a head comes from its
    row ``k head_dim / 2 + j``. A vector (a bias) is one row whose columns are reordered the same way.

    Source: the weight permutation of the Llama conversion in transformers, undone; GGUF rope type NORM.
    """

    def __init__(self, inner: RowSource, n_heads: int) -> None:
        super().__init__(inner)
        n_rows, n_cols = matrix_shape(inner.shape)
        self._vector = len(inner.shape) == 1
        size = n_cols if self._vector else n_rows
        self._head = size // n_heads
        if size % n_heads or self._head % 2:
            raise ValueError(f"{size} rows are not {n_heads} heads of even width")

    def _order(self, start: int, stop: int) -> np.ndarray:
        """Source index of each of the outputs ``start..stop``."""
        head, inside = np.divmod(np.arange(start, stop), self._head)
        return np.asarray(head * self._head + inside % 2 * (self._head // 2) + inside // 2)

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` in the new order."""
        n_cols = matrix_shape(self.shape)[1]
        if out is None:
            out = np.empty((stop - start, n_cols), np.float32)
        if self._vector:
            out[...] = self.inner.read(start, stop)[:, self._order(0, n_cols)]
            return out
        # Within a head the even outputs are one run of source rows and the odd ones another.
        at = start
        while at < stop:
            base = at - at % self._head
            end = min(base + self._head, stop)
            for parity in (0, 1):
                first = at + (at - base + parity) % 2
                if first < end:
                    source = base + parity * (self._head // 2) + (first - base) // 2
                    count = (end - first + 1) // 2
                    self.inner.read(source, source + count, out[first - start : end - start : 2])
            at = end
        return out

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored bytes of the rows in the new order."""
        if self._vector:
            return None
        span = self._span(start, stop)
        raw = self.inner.stored(*span)
        return None if raw is None else raw[self._order(start, stop) - span[0]]

    def _span(self, start: int, stop: int) -> tuple[int, int]:
        """Whole heads that hold the sources of rows ``start..stop``."""
        if self._vector:
            return start, stop
        return start - start % self._head, -(-stop // self._head) * self._head

    def prefetch(self, start: int, stop: int) -> None:
        """Pass the hint on for the whole heads."""
        self.inner.prefetch(*self._span(start, stop))

    def release(self, start: int, stop: int) -> None:
        """Pass the hint on for the whole heads that end before ``stop``."""
        first, last = self._span(start, stop)
        if not self._vector:
            last = max(first, stop - stop % self._head)
        self.inner.release(first, last)


class Constant(Made):
    """A small tensor made while planning; ``values`` is float32 of any shape."""

    def __init__(self, values: Floats) -> None:
        self._rows: Floats = np.ascontiguousarray(values, np.float32).reshape(matrix_shape(values.shape))
        self.shape: tuple[int, ...] = values.shape
        self.dtype = "F32"

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop``."""
        if out is None:
            return np.array(self._rows[start:stop])
        out[...] = self._rows[start:stop]
        return out

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The rows' bytes."""
        return np.asarray(self._rows[start:stop].view(np.uint8))
