"""Numbers that are computed: from those of other rows, one by one, or while planning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import BadInput
from ..rows import Bytes, Floats, Json, Rows, matrix_shape


class Function:
    """A function of each number by itself.

    Parameters
    ----------
    name, version : what tells it from others; another version for the least change of a result
    call : float32 of any shape -> the same shape, which may be the argument, changed
    """

    def __init__(self, name: str, version: int, call: Callable[[Floats], Floats]) -> None:
        self.name = name
        self.version = version
        self.call = call

    def identity(self) -> Json:
        """What tells it from others."""
        return ["Function", self.name, self.version]


class Mapped(Rows):
    """A function of every number, rounded to float16 where the numbers are of that type.

    The reference computes in float16 when the checkpoint is float16, else in float32; so do we.
    """

    def __init__(self, inner: Rows, function: Function) -> None:
        self.inner = inner
        self.function = function
        self.shape = inner.shape
        self.dtype = inner.dtype

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        rows = self.inner.read(start, stop, out)
        made = self.function.call(rows)
        if self.dtype == "F16":
            made = made.astype(np.float16)
        if made is not rows:
            rows[...] = made
        return rows


class Product(Rows):
    """Numbers times those in the same place of another tensor of that shape, as float32."""

    def __init__(self, left: Rows, right: Rows) -> None:
        self.left = left
        self.right = right
        self.shape = left.shape
        self.dtype = "F32"
        if left.shape != right.shape:
            raise ValueError(f"{left.shape} and {right.shape} are not the same")

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        rows = self.left.read(start, stop, out)
        rows *= self.right.read(start, stop)
        return rows


class Averaged(Rows):
    """Sums over how many there were, each row by its own number, which counts as ``least`` where it is less; as float32."""

    def __init__(self, sums: Rows, counts: Rows, least: float) -> None:
        self.sums = sums
        self.counts = counts
        self.least = least
        self.shape = sums.shape
        self.dtype = "F32"
        if matrix_shape(counts.shape) != (matrix_shape(sums.shape)[0], 1):
            raise ValueError(f"{sums.shape} has not as many rows as {counts.shape} has numbers")

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        rows = self.sums.read(start, stop, out)
        rows /= np.maximum(self.counts.read(start, stop), np.float32(self.least))
        return rows


class Sum(Rows):
    """Numbers in the same places of several tensors of one shape, added from the first on, rounded as ``Mapped`` does."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts
        self.shape = parts[0].shape
        self.dtype = "F16" if parts[0].dtype == "F16" else "F32"

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        rows = self.parts[0].read(start, stop, out)
        for part in self.parts[1:]:
            rows += part.read(start, stop)
        if self.dtype == "F16":
            rows[...] = rows.astype(np.float16)
        return rows


class Narrowed(Rows):
    """Whole numbers of 64 bits as such of 32."""

    def __init__(self, inner: Rows) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.dtype = "I32"

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32."""
        return self.inner.read(start, stop, out)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The rows' bytes; BadInput where a number does not fit."""
        stored = self.inner.native("I64", start, stop) if kind == "I32" else None
        if stored is None:
            return None
        wide = stored.view("<i8")
        narrow = wide.astype("<i4")
        if not np.array_equal(narrow, wide):
            raise BadInput(f"{self.inner!r}: a number among rows {start}..{stop} does not fit 32 bits")
        return narrow.view(np.uint8)


class Constant(Rows):
    """A small tensor made while planning; ``values`` is float32 of any shape."""

    def __init__(self, values: Floats) -> None:
        self._rows: Floats = np.ascontiguousarray(values, np.float32).reshape(matrix_shape(values.shape))
        self.shape: tuple[int, ...] = values.shape
        self.dtype = "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self._rows[start:stop]

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The rows' bytes."""
        return None if kind != "F32" else np.asarray(self._rows[start:stop].view(np.uint8))


class Zeros(Rows):
    """Nothing but zeros, of no memory; ``dtype`` is that of the tensor that they fill up."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape = shape
        self.dtype = dtype

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = 0
