"""Rows of four-bit codes with one scale per block of the flat tensor: NF4, FP4, MXFP4 and NVFP4 differ in tables only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache as once

import numpy as np

from ..kernels import load
from ..rows import Floats
from .decoded_rows import DecodedRows, Range, numbers, whole
from .raw import Raw, frozen

#: values of the four-bit float E2M1; bit 3 is the sign
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)

#: significant bits of the types
PRECISION = {"BF16": 8, "F16": 11, "F32": 24}


@once
def pairs(table: tuple[float, ...], high_first: bool) -> Floats:
    """Both values of every byte: float32[256, 2]."""
    values = np.array(table, np.float32)
    low, high = np.tile(values, 16), np.repeat(values, 16)
    return frozen(np.stack([high, low] if high_first else [low, high], axis=1))


class NibbleRows(DecodedRows):
    """Four-bit codes, two a byte in row-major order; block ``e // block`` of the flat tensor gives the scale of element ``e``.

    Parameters
    ----------
    parts : the codes first, two a byte
    table : 16 values
    high_first : whether even elements are in the high half of their byte
    block : elements of a block, even
    """

    kernels = (".dequant.kernels.nibbles",)
    #: whether products are numbers of type ``dtype`` without any rounding
    exact = False

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: str, encoding: str, parts: Sequence[Raw], *,
        table: tuple[float, ...], high_first: bool, block: int,
    ) -> None:  # fmt: skip
        super().__init__(name, shape, dtype, encoding, parts)
        self._packed = parts[0]
        self._block = block
        self._pairs = pairs(table, high_first)
        self._precision = PRECISION["F32" if self.exact else dtype]

    def _step(self) -> int:
        return max(1, self.n_rows)  # the kernel rounds as it goes, and the fewer calls the better

    def _round(self, out: Floats) -> None:
        """Done already."""

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        first, last = start * self.n_cols, stop * self.n_cols
        flat = out.reshape(-1)
        if first % 2 == 0 and last % 2 == 0:
            self._expand(first, last, flat)
            return
        # The range begins or ends inside a byte.
        even = np.empty(last + last % 2 - (first - first % 2), np.float32)
        self._expand(first - first % 2, last + last % 2, even)
        flat[...] = even[first % 2 :][: last - first]

    def _expand(self, first: int, last: int, out: Floats) -> None:
        """Elements ``first..last`` of the flat tensor, both even."""
        a, b = self._blocks(first, last)
        scales = self._scales(a, b)
        packed = self._packed.bytes(first // 2, last // 2)
        load(".dequant.kernels.nibbles").expand(
            packed, self._pairs, scales, self._block, first - a * self._block, self._precision, out
        )

    def _blocks(self, first: int, last: int) -> tuple[int, int]:
        """The blocks that elements ``first..last`` are in, as a range."""
        return first // self._block, -(-min(last, self.n_rows * self.n_cols) // self._block)

    def _scales(self, start: int, stop: int) -> Floats:
        """Scales of blocks ``start..stop``."""
        raise NotImplementedError

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        first, last = start * self.n_cols, stop * self.n_cols
        yield self.parts[0], first // 2, -(-last // 2)
        yield numbers(self.parts[1], *self._blocks(first, last))
        yield from map(whole, self.parts[2:])
