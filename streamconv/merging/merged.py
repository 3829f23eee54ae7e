"""Row sources of merged tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan
from typing import Any

import numpy as np

from ..errors import BadInput
from ..kernels import load
from ..rows import Bytes, Floats, Json, Merge, Rows, Span, matrix_shape
from ..workers import Workers
from .inputs import Inputs, holds, round_to
from .method import Bound
from .scratch import borrow
from .stream import Stream

#: floats of all inputs that are merged at a time, and numbers where they are bfloat16; they should stay near the core
_TILE = 64 << 10
_WORDS = 256 << 10


class MergedRows(Rows):
    """One merged tensor.

    Parameters
    ----------
    name : of the output tensor, for messages
    inputs : row sources of one shape, in the order the operator wants
    method : the arithmetic
    dtype : precision of the result
    load : inputs are rounded to it as they are read; None: not
    merged : what the method yields is rounded to it, and only then to ``dtype``; None: to ``dtype`` at once
    """

    scheme = 2

    def __init__(
        self,
        name: str,
        inputs: Sequence[Rows],
        method: Bound,
        dtype: str,
        load: str | None = None,
        merged: str | None = None,
    ) -> None:
        operator = method.operator
        self.name = name
        self.looks_first = operator.needs_statistic
        self.how = Merge(method.method, len(inputs), self.looks_first)
        self.shape = inputs[0].shape
        self.dtype = dtype
        self.operator = operator
        self.inputs = Inputs(inputs, load)
        self._n_cols = matrix_shape(self.shape)[1]
        self._steps = [to for to in dict.fromkeys((merged, dtype)) if to not in (None, "F32")]
        self._words = getattr(operator, "takes_words", False) and self.inputs.are_words
        self._step = max(1, (_WORDS if self._words else _TILE) // max(1, self._n_cols * self.inputs.count))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.dtype}{list(self.shape)}, of {self.inputs.count})"

    def measure(self, workers: Workers) -> Json:
        """The statistic of the method."""
        return self.operator.measure(Stream(self.inputs, workers, self._words))

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        """Write rows ``start..stop`` into ``out``, rounded to ``dtype``."""
        for a in range(start, stop, self._step):
            b = min(a + self._step, stop)
            self._tile(a, b, out[a - start : b - start])

    def make(self, kind: str, start: int, stop: int, out: Bytes) -> float | None:
        """See ``Rows.make``: a tensor of type BF16 as its bytes."""
        if not kind == self.dtype == "BF16":
            return None
        largest = 0.0
        for a in range(start, stop, self._step):
            b = min(a + self._step, stop)
            words = out[a - start : b - start].reshape(-1).view(np.uint16)
            with self.inputs.tile(a, b, self._words) as x, borrow(b - a, self._n_cols) as y:
                self.operator.merge(x, a, self.fact, y)
                for dtype in self._steps[:-1]:
                    round_to(dtype, y)
                size = load(".kernels.rounding").pack_bf16(y.reshape(-1), words)
            largest = largest if size <= largest or isnan(largest) else size
        return largest

    def _tile(self, start: int, stop: int, out: Floats) -> None:
        with self.inputs.tile(start, stop, self._words) as x:
            if out.flags.c_contiguous:
                self.operator.merge(x, start, self.fact, out)
                self._round(out)
                return
            with borrow(stop - start, self._n_cols) as dense:
                self.operator.merge(x, start, self.fact, dense)
                self._round(dense)
                out[...] = dense

    def _round(self, rows: Floats) -> None:
        for dtype in self._steps:
            round_to(dtype, rows)


class CastRows(Rows):
    """A tensor in another precision: rounded to ``load`` and then to ``dtype``."""

    def __init__(self, inner: Rows, dtype: str, load: str | None = None) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.dtype = dtype
        self._steps = [to for to in (load, dtype) if to is not None and not holds(to, inner.dtype)]

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """See ``Rows.read``."""
        rows = self.inner.read(start, stop, out)
        if self._steps:
            dense = np.ascontiguousarray(rows)
            for dtype in self._steps:
                round_to(dtype, dense)
            if dense is not rows:
                rows[...] = dense
        return rows

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The stored bytes where they are in this precision already."""
        return self.inner.native(kind, start, stop) if kind == self.dtype and not self._steps else None


class SameRows(Rows):
    """A tensor of integers, which all inputs must hold alike; it is copied."""

    def __init__(self, name: str, inputs: Sequence[Rows], models: Sequence[str]) -> None:
        self.name = name
        self.inputs = inputs
        self.shape = inputs[0].shape
        self.dtype = inputs[0].dtype
        self.looks_first = len(inputs) > 1
        self._models = models

    def measure(self, workers: Workers) -> Json:
        """True: all inputs are the same.

        Raises
        ------
        BadInput : they differ
        """
        n_rows, n_cols = matrix_shape(self.shape)
        step = max(1, _TILE // max(1, n_cols))
        found = workers.map(lambda a: self._first_other(a, min(a + step, n_rows)), range(0, n_rows, step))
        other = next((i for i in found if i is not None), None)
        if other is not None:
            raise BadInput(
                f"tensor {self.name!r}: {self._models[0]} and {self._models[other]} contain different {self.dtype} "
                "numbers, which cannot be averaged",
                "Merge models that share it.",
            )
        return True

    def _first_other(self, start: int, stop: int) -> int | None:
        """The first input with other rows than input 0."""
        first, *others = (self._rows(each, start, stop) for each in self.inputs)
        return next((i for i, rows in enumerate(others, 1) if not np.array_equal(first, rows)), None)

    def _rows(self, rows: Rows, start: int, stop: int) -> Any:
        stored = rows.stored(start, stop)
        return rows.read(start, stop) if stored is None else stored

    def _one(self) -> Rows:
        """One of the inputs, of which it is known that they are the same."""
        found = self.fact
        assert found or not self.looks_first
        return self.inputs[0]

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """See ``Rows.read``."""
        return self._one().read(start, stop, out)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The stored bytes."""
        if kind != self.dtype:
            return None
        return (self._one() if stop > start else self.inputs[0]).native(kind, start, stop)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.inputs[0].spans(start, stop)
