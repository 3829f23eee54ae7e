"""What all decoders share: a row source made of the parts of an encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..kernels import load
from ..rows import Floats, Rows, Span, matrix_shape
from ..sources.naming import shown
from .raw import Raw

#: values decoded at a time; they are rounded while they are in the second-level cache
TILE = 64 << 10
_ROUND = {"F16": "round_f16", "BF16": "round_bf16"}

#: a part of the encoding and a range of its bytes
Range = tuple[Raw, int, int]


class DecodedRows(Rows):
    """Rows of a tensor that is stored encoded. A subclass decodes; the values are rounded here, once, to ``dtype``.

    Parameters
    ----------
    name : of the tensor once it is decoded
    shape : logical shape
    dtype : precision of the decoded values: ``F32``, ``F16`` or ``BF16``
    encoding : what it is stored as, for people
    parts : everything it is stored in, the packed data first

    Attributes
    ----------
    kernels : names of the modules of kernels it uses, see ``kernels.load``; each has a ``warm_up``
    """

    kernels: Sequence[str] = ()

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str, encoding: str, parts: Sequence[Raw]) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.encoding = encoding
        self.parts = parts
        self.n_rows, self.n_cols = matrix_shape(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.name)}, {self.dtype}{list(self.shape)}, {self.encoding})"

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts as they are stored."""
        return sum(part.n_bytes for part in self.parts)

    @property
    def file_name(self) -> str | None:
        """Name of the file that holds the packed data, None when it lies in no single one."""
        return self.parts[0].file_name

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        """Write rows ``start..stop`` into ``out``.

        Raises
        ------
        BadInput : a part holds what the encoding does not allow
        """
        if not self.n_cols:
            return
        step = self._step()
        for a in range(start, stop, step):
            b = min(a + step, stop)
            tile = out[a - start : b - start]
            if tile.flags.c_contiguous:
                self._make(a, b, tile)
            else:
                dense = np.empty(tile.shape, np.float32)
                self._make(a, b, dense)
                tile[...] = dense

    def as_plain(self) -> Rows:
        """The rows in the order of a plain checkpoint, where they are stored in another."""
        return self

    def as_saved(self) -> DecodedRows:
        """The rows of the tensor that a plain checkpoint has in this place, where that is another one."""
        return self

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        if stop > start and self.n_cols:
            for part, a, b in self._ranges(start, stop):
                yield from part.spans(a, b)

    def decode_exactly(self, start: int, stop: int, out: Floats) -> None:
        """Rows ``start..stop`` before they are rounded to ``dtype``, into ``out`` float32[stop - start, n_cols], C order."""
        if self.n_cols:
            self._decode(start, stop, out)

    def ranges(self, start: int, stop: int) -> Iterable[Range]:
        """All bytes that rows ``start..stop`` are made of."""
        return self._ranges(start, stop)

    def _make(self, start: int, stop: int, out: Floats) -> None:
        self._decode(start, stop, out)
        self._round(out)

    def _round(self, out: Floats) -> None:
        if self.dtype in _ROUND:
            getattr(load(".kernels.rounding"), _ROUND[self.dtype])(out.reshape(-1))

    def _step(self) -> int:
        """Rows decoded at a time."""
        return max(1, TILE // self.n_cols)

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        """Fill ``out`` float32[stop - start, n_cols], C order, unrounded."""
        raise NotImplementedError

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        """All bytes that rows ``start..stop`` are made of; here all bytes of all parts."""
        return map(whole, self.parts)


def whole(part: Raw) -> Range:
    """All of ``part``."""
    return part, 0, part.n_bytes


def rows_of(part: Raw, n_rows: int, start: int, stop: int) -> Range:
    """Rows ``start..stop`` of ``part``, which has ``n_rows``."""
    row_bytes = part.n_bytes // n_rows
    return part, start * row_bytes, stop * row_bytes


def numbers(part: Raw, first: int, last: int) -> Range:
    """Numbers ``first..last`` of ``part``."""
    return part, first * part.itemsize, last * part.itemsize
