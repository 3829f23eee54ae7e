"""Row sources of merged tensors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from math import isnan
from typing import Any

import numpy as np

from ..errors import BadInput
from ..rows import Bytes, Floats, Merge, Rows, Span, matrix_shape, stop_if_unwanted
from .crew import Crew
from .inputs import Inputs, holds, round_to
from .kernels import load as load_kernels
from .method import Bound, Statistic
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

    ``prepare`` looks at the whole tensor where the method needs that; ``read`` calls it if nobody did.
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
        self.statistic: Statistic = None
        self._n_cols = matrix_shape(self.shape)[1]
        self._lock = threading.Lock()
        self._steps = [to for to in dict.fromkeys((merged, dtype)) if to not in (None, "F32")]
        self._crew: Crew | None = None
        self._words = getattr(operator, "takes_words", False) and self.inputs.are_words
        self._step = max(1, (_WORDS if self._words else _TILE) // max(1, self._n_cols * self.inputs.count))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.dtype}{list(self.shape)}, of {self.inputs.count})"

    @property
    def needs_prepare(self) -> bool:
        """Whether ``prepare`` has work to do."""
        return self.operator.needs_statistic and self.statistic is None

    def prepare(self) -> None:
        """Look at the whole tensor, once. Threads that call this meanwhile help; the result is the same for any number.

        What any of them raises, all of them raise.
        """
        while self.needs_prepare:
            with self._lock:
                crew, leads = self._crew or Crew(), self._crew is None
                self._crew = crew
            if not leads:
                crew.help()
                continue
            reason: BaseException | None = None
            try:
                if self.statistic is None:  # nobody was faster
                    self.statistic = self.operator.measure(Stream(self.inputs, crew, self._words))
            except BaseException as e:
                reason = e
                raise
            finally:
                with self._lock:
                    self._crew = None
                crew.dismiss(reason)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        """Write rows ``start..stop`` into ``out``, rounded to ``dtype``."""
        self.prepare()
        for a in range(start, stop, self._step):
            b = min(a + self._step, stop)
            self._tile(a, b, out[a - start : b - start])

    def make(self, start: int, stop: int, out: Bytes) -> float:
        """The rows of a tensor of type BF16 as its bytes, uint8[stop - start, 2 * n_cols]; their largest magnitude or NaN."""
        self.prepare()
        largest = 0.0
        for a in range(start, stop, self._step):
            b = min(a + self._step, stop)
            words = out[a - start : b - start].reshape(-1).view(np.uint16)
            with self.inputs.tile(a, b, self._words) as x, borrow(b - a, self._n_cols) as y:
                self.operator.merge(x, a, self.statistic, y)
                for dtype in self._steps[:-1]:
                    round_to(dtype, y)
                size = load_kernels("rounding").pack_bf16(y.reshape(-1), words)
            largest = largest if size <= largest or isnan(largest) else size
        return largest

    def _tile(self, start: int, stop: int, out: Floats) -> None:
        with self.inputs.tile(start, stop, self._words) as x:
            if out.flags.c_contiguous:
                self.operator.merge(x, start, self.statistic, out)
                self._round(out)
                return
            with borrow(stop - start, self._n_cols) as dense:
                self.operator.merge(x, start, self.statistic, dense)
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

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored bytes where they are in this precision already."""
        return self.inner.stored(start, stop) if self.inner.dtype == self.dtype and not self._steps else None


class SameRows(Rows):
    """A tensor of integers, which all inputs must hold alike; it is copied.

    ``prepare`` compares the inputs.
    """

    def __init__(self, name: str, inputs: Sequence[Rows], models: Sequence[str]) -> None:
        self.name = name
        self.inputs = inputs
        self.shape = inputs[0].shape
        self.dtype = inputs[0].dtype
        self._models = models
        self.looks_first = len(inputs) > 1
        self._checked = not self.looks_first
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Compare all rows of all inputs, once.

        Raises
        ------
        BadInput : they differ
        """
        with self._lock:
            if self._checked:
                return
            n_rows, n_cols = matrix_shape(self.shape)
            step = max(1, _TILE // max(1, n_cols))
            for a in range(0, n_rows, step):
                b = min(a + step, n_rows)
                stop_if_unwanted()
                first = self._rows(0, a, b)
                for i in range(1, len(self.inputs)):
                    if not np.array_equal(first, self._rows(i, a, b)):
                        raise BadInput(
                            f"tensor {self.name!r}: {self._models[0]} and {self._models[i]} hold different {self.dtype} "
                            "numbers, which have no mean",
                            "Merge models that share it.",
                        )
            self._checked = True

    def _rows(self, i: int, start: int, stop: int) -> Any:
        stored = self.inputs[i].stored(start, stop)
        return self.inputs[i].read(start, stop) if stored is None else stored

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """See ``Rows.read``."""
        self.prepare()
        return self.inputs[0].read(start, stop, out)

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The stored bytes."""
        if stop > start:
            self.prepare()
        return self.inputs[0].stored(start, stop)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.inputs[0].spans(start, stop)
