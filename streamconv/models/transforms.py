"""Row sources over row sources: what a family changes about a stored tensor on its way to the output."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..rows import Bytes, Floats, Rows, Span, matrix_shape


class Wrapped(Rows):
    """Base of transforms that keep row boundaries; rows pass through unchanged unless overridden."""

    def __init__(self, inner: Rows, shape: tuple[int, ...] | None = None) -> None:
        self.inner = inner
        self.shape = inner.shape if shape is None else shape
        self.dtype = inner.dtype

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        return self.inner.read(start, stop, out)

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored bytes of the rows, where they are unchanged."""
        return self.inner.stored(start, stop)


class FirstRows(Wrapped):
    """The first ``n_rows`` rows of a matrix."""

    def __init__(self, inner: Rows, n_rows: int) -> None:
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

    def __init__(self, inner: Rows, n_heads: int) -> None:
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

    read = Rows.read

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if self._vector:
            out[...] = self.inner.read(start, stop)[:, self._order(0, out.shape[1])]
            return
        for source, count, first, end in self._runs(start, stop):
            self.inner.read(source, source + count, out[first - start : end - start : 2])

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Runs of source rows, and every other row of which range they become: in a head the even ones, and the odd ones."""
        at = start
        while at < stop:
            base = at - at % self._head
            end = min(base + self._head, stop)
            for parity in (0, 1):
                first = at + (at - base + parity) % 2
                if first < end:
                    yield base + parity * (self._head // 2) + (first - base) // 2, (end - first + 1) // 2, first, end
            at = end

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored bytes of the rows in the new order."""
        if self._vector:
            return None
        first = start - start % self._head  # whole heads
        raw = self.inner.stored(first, -(-stop // self._head) * self._head)
        return None if raw is None else raw[self._order(start, stop) - first]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``: whole heads as they lie, and of others the runs."""
        if self._vector:
            yield from self.inner.spans(start, stop)
            return
        first = min(stop, -(-start // self._head) * self._head)
        last = max(first, stop - stop % self._head)
        ranges = [(source, source + n) for a, b in ((start, first), (last, stop)) for source, n, *_ in self._runs(a, b)]
        for a, b in [*ranges, (first, last)]:
            yield from self.inner.spans(a, b)


class Constant(Rows):
    """A small tensor made while planning; ``values`` is float32 of any shape."""

    def __init__(self, values: Floats) -> None:
        self._rows: Floats = np.ascontiguousarray(values, np.float32).reshape(matrix_shape(values.shape))
        self.shape: tuple[int, ...] = values.shape
        self.dtype = "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self._rows[start:stop]

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The rows' bytes."""
        return np.asarray(self._rows[start:stop].view(np.uint8))
