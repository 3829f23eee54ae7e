"""An entry of the table of contents whose scale is that of a whole tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...kit import WithLargest
from ...models.gemma_cpp.toc import TocEntry
from ...quant.sbs.types import SBS_TYPES, scale_of
from ...rows import Bytes, Floats, Rows, Span, matrix_shape


class TocRows(Rows):
    """The bytes of an entry, as one row of whole numbers.

    Parameters
    ----------
    entry : with any scale
    kind : name of its type
    tensor : whose largest magnitude decides the scale
    """

    def __init__(self, entry: TocEntry, kind: str, tensor: WithLargest) -> None:
        self.entry = entry
        self.kind = kind
        self.tensor = tensor
        self.shape = (1, len(entry.pack()))
        self.dtype = "I8"

    def _bytes(self) -> Bytes:
        scale = float(scale_of(SBS_TYPES[self.kind], self.tensor.largest))
        return np.frombuffer(replace(self.entry, scale=scale).pack(), np.uint8).reshape(1, -1)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if stop > start:
            out[...] = self._bytes().view(np.int8)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The bytes."""
        if kind != self.dtype:
            return None
        return self._bytes() if stop > start else np.empty((0, self.shape[1]), np.uint8)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """None: all that counts is what was measured."""
        return iter(())

    def release(self, start: int, stop: int, cached: bool = False) -> None:
        """What was looked at need not be in this process; others may still encode it."""
        self.tensor.release(0, matrix_shape(self.tensor.shape)[0], cached=True)
