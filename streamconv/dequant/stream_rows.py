"""Rows of codes packed into bit streams, with a scale and a zero point per group of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..kernels import load
from ..kit.slab_cache import SLAB_BYTES, slab
from ..rows import Bytes, Described, Floats
from ..sources.widen import STORED_TYPES, widen
from .decoded_rows import DecodedRows
from .raw import Raw, frozen


@dataclass(frozen=True)
class Packing:
    """How codes are packed: ``bits`` each; ``per_word`` of them in a 32-bit word, or 0 when they run across words."""

    bits: int
    per_word: int = 0

    def words(self, n_codes: int) -> int:
        """32-bit words that ``n_codes`` take."""
        return -(-n_codes // self.per_word) if self.per_word else -(-n_codes * self.bits // 32)

    def unpack(self, stream: Bytes, levels: NDArray[np.uint8], first: int = 0) -> None:
        """Codes ``first…`` of each row of ``stream`` uint8[n, n_bytes] into ``levels`` uint8[n, n_codes]."""
        kernels = load(".dequant.kernels.bitstream")
        if self.bits == 4 and first == 0:
            kernels.unpack_four(stream, levels)
        elif levels.size:
            kernels.unpack(stream, self.bits, self.per_word, first, levels)


class Groups(Described):
    """Which group a column is in.

    Parameters
    ----------
    n_cols, n_groups : columns, and groups they are in
    width : columns of a group when they follow each other
    index : the group of every column, where the file lists them; looked at when the first row is read
    """

    def __init__(self, n_cols: int, n_groups: int, width: int, index: Raw | None = None) -> None:
        self.n_cols, self.n_groups, self.width = n_cols, n_groups, width
        self._index = index
        self._checked = index is None

    def scale(self, levels: NDArray[np.uint8], zeros: Floats, scales: Floats, out: Floats) -> None:
        """``out = (level − zero) · scale``; ``zeros`` and ``scales`` float32[n, n_groups].

        Raises
        ------
        BadInput : the index leads out of the groups
        """
        kernels = load(".dequant.kernels.levels")
        if not self._checked:
            self._check()
        if self._index is None:
            own = np.arange(len(out), dtype=np.int64)
            kernels.scaled(levels, np.uint8(0), zeros, scales, own, self.width, np.float32(1), out)
        else:
            index = np.array(self._index.integers(), np.int32)
            kernels.scaled_by_column(levels, zeros, scales, index, out)

    def _check(self) -> None:
        """Refuse an index that is wrong, and forget one that only says that groups follow each other."""
        assert self._index is not None
        index = self._index.integers()
        if len(index) and (index.min() < 0 or index.max() >= self.n_groups):
            worst = int(index.min() if index.min() < 0 else index.max())
            raise BadInput(f"{self._index}: g_idx names group {worst} of {self.n_groups}")
        if -(-self.n_cols // self.width) == self.n_groups and np.array_equal(
            index, np.arange(len(index)) // self.width
        ):
            self._index = None
        self._checked = True


class StreamRows(DecodedRows):
    """Base: a subclass gives the packed rows, zero points and scales of a range."""

    kernels = (".dequant.kernels.bitstream", ".dequant.kernels.levels", ".kernels.rounding")

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        encoding: str,
        parts: Sequence[Raw],
        packing: Packing,
        groups: Groups,
    ) -> None:
        super().__init__(name, shape, dtype, encoding, parts)
        self._packing = packing
        self._groups = groups

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        stream, zeros, scales = self._packed(start, stop)
        levels = np.empty(out.shape, np.uint8)
        self._packing.unpack(stream, levels)
        self._groups.scale(frozen(levels), zeros, scales, out)

    def _packed(self, start: int, stop: int) -> tuple[Bytes, Floats, Floats]:
        """Of rows ``start..stop``: uint8[n, row_bytes], and zeros and scales float32[n, n_groups]."""
        raise NotImplementedError


@dataclass
class Slab:
    """Some packed rows of a matrix that is stored by columns, transposed, with their zero points and scales."""

    start: int
    stop: int
    stream: Bytes
    zeros: Floats
    scales: Floats


class TransposedRows(StreamRows):
    """Rows of a matrix that is stored as [inputs, outputs]: GPTQ and AWQ.

    ``parts`` begin with the codes, the zero points and the scales [n_groups, outputs]; all of them are read whole slabs of
    outputs at a time, a piece of every row that lies in the file, so that any rows need all of what does.
    """

    def _slab_rows(self) -> int:
        row_bytes = max(1, self.n_cols * self._packing.bits // 8)
        return max(32, SLAB_BYTES // row_bytes // 32 * 32)

    def _step(self) -> int:
        return min(super()._step(), self._slab_rows())

    def _packed(self, start: int, stop: int) -> tuple[Bytes, Floats, Floats]:
        size = self._slab_rows()
        first = start // size * size
        if stop > first + size:  # the rows lie in two slabs
            at = first + size
            left, right = self._packed(start, at), self._packed(at, stop)
            return (
                frozen(np.concatenate([left[0], right[0]])),
                np.concatenate([left[1], right[1]]),
                np.concatenate([left[2], right[2]]),
            )
        last = min(first + size, self.n_rows)
        held = slab(self, lambda: self._make_slab(first, last), start, stop)
        a, b = start - held.start, stop - held.start
        return held.stream[a:b], held.zeros[a:b], held.scales[a:b]

    def _make_slab(self, start: int, stop: int) -> Slab:
        """Rows ``start..stop``; ``start`` is a multiple of 32."""
        raise NotImplementedError

    def _group_scales(self, start: int, stop: int) -> Floats:
        """Scales of outputs ``start..stop`` as float32[n, n_groups]."""
        scales, size = self.parts[2], self.parts[2].itemsize
        taken = frozen(scales.columns(self.n_rows * size, start * size, stop * size))
        return frozen(widened(taken, scales.dtype).T)


def widened(data: Bytes, dtype: str) -> Floats:
    """``data`` uint8[n, row_bytes] of type ``dtype`` as float32[n, n_cols]."""
    out = np.empty((len(data), data.shape[1] // (STORED_TYPES[dtype].bits // 8)), np.float32)
    widen(dtype, data, out)
    return out
