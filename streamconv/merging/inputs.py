"""The inputs of a merged tensor, read side by side as float32 and rounded to the recipe's ``dtype``, or as stored bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels import load
from ..rows import Floats, Rows, matrix_shape
from .scratch import borrow

#: float32, or uint16: the bits of bfloat16
Numbers = NDArray[Any]

#: float types by width of exponent and mantissa; every other encoding counts as F32
_BITS = {"F32": (8, 23), "F64": (8, 23), "BF16": (8, 7), "F16": (5, 10)}
_SMALL = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")
_WHOLE = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")


def is_whole(dtype: str) -> bool:
    """Whether ``dtype`` holds integers or truth values, which are copied, never merged."""
    return dtype in _WHOLE


def common_dtype(dtypes: Sequence[str]) -> str:
    """The smallest of ``F16``, ``BF16`` and ``F32`` that holds all values of ``dtypes``.

    >>> common_dtype(["BF16", "BF16"]), common_dtype(["BF16", "F16"]), common_dtype(["Q4_K"])
    ('BF16', 'F32', 'F32')
    """
    found = {"BF16" if dtype in _SMALL else dtype if dtype in _BITS else "F32" for dtype in dtypes}
    return found.pop() if len(found) == 1 and "F64" not in found else "F32"


def holds(wide: str, narrow: str) -> bool:
    """Whether every value of type ``narrow`` is one of ``wide``."""
    a, b = (_BITS.get("BF16" if dtype in _SMALL else dtype, (8, 23)) for dtype in (wide, narrow))
    return a[0] >= b[0] and a[1] >= b[1]


def round_to(dtype: str, x: Floats) -> None:
    """Round ``x`` in place to the nearest values of ``dtype``, ties to even; beyond its range they become infinite."""
    if dtype in ("BF16", "F16"):
        rounding = load(".kernels.rounding")
        flat = x.reshape(-1)
        (rounding.round_bf16 if dtype == "BF16" else rounding.round_f16)(flat)


class Inputs:
    """Row sources of one shape.

    Parameters
    ----------
    rows : the sources
    dtype : values are rounded to it as they are read; None: not
    """

    def __init__(self, rows: Sequence[Rows], dtype: str | None) -> None:
        self.rows = rows
        self.count = len(rows)
        self.n_rows, self.n_cols = matrix_shape(rows[0].shape)
        self._readers: list[Callable[[int, int, Floats], None]] = [_reader(source, dtype) for source in rows]
        #: they are all stored as bfloat16, and those are the values wanted
        self.are_words = (dtype is None or holds(dtype, "BF16")) and all(map(_is_words, rows))

    def read(self, start: int, stop: int, x: Floats) -> None:
        """Fill ``x`` float32[count, stop - start, n_cols]."""
        for reader, tile in zip(self._readers, x, strict=True):
            reader(start, stop, tile)

    @contextmanager
    def tile(self, start: int, stop: int, words: bool) -> Iterator[Numbers]:
        """The rows [count, stop - start, n_cols], with ``words`` as uint16, the bits of bfloat16; may be overwritten."""
        shape = self.count, stop - start, self.n_cols
        if not words:
            with borrow(*shape) as x:
                self.read(start, stop, x)
                yield x
            return
        size = prod(shape)
        with borrow(-(-size // 2)) as block:
            tile = block.view(np.uint16)[:size].reshape(shape)
            for source, part in zip(self.rows, tile, strict=True):
                stored = source.stored(start, stop)
                assert stored is not None
                np.copyto(part.view(np.uint8), stored)
            yield tile


def _is_words(source: Rows) -> bool:
    return source.dtype == "BF16" and source.stored(0, 0) is not None


def _reader(source: Rows, dtype: str | None) -> Callable[[int, int, Floats], None]:
    """How to read ``source``."""
    if dtype is not None and not holds(dtype, source.dtype):

        def rounded(start: int, stop: int, tile: Floats) -> None:
            source.read(start, stop, tile)
            round_to(dtype, tile)

        return rounded
    if _is_words(source):

        def widened(start: int, stop: int, tile: Floats) -> None:
            stored = source.stored(start, stop)
            assert stored is not None
            words = stored.reshape(-1).view(np.uint16)
            load(".kernels.tiles").widen_bf16(words if words.flags.aligned else words.copy(), tile.reshape(-1))

        return widened

    def plain(start: int, stop: int, tile: Floats) -> None:
        source.read(start, stop, tile)

    return plain
