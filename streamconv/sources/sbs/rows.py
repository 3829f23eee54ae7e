"""Rows of a tensor in one of gemma.cpp's types, whose groups of values go on over the ends of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...quant.sbs.types import SBS_TYPES, codec
from ...rows import Floats, Rows, Span, matrix_shape
from ..mapped import MappedFile
from ..naming import shown

#: values decoded at a time; a multiple of every group
_TILE = 64 << 10
#: types of which every value is one of bfloat16, where there is no scale
_NARROW = ("BF16", "SFP", "NUQ")


class SbsRows(Rows):
    """Rows that are encoded, or multiplied by a scale.

    Parameters
    ----------
    file, offset : where the first value is
    name : the key, for messages
    shape : logical shape
    encoding : name of the type, see ``quant.sbs.types``
    scale : what decoded values are multiplied by

    ``dtype`` is the narrowest type that has all values: BF16, with a scale and of I8 F32.
    """

    def __init__(
        self, file: MappedFile, offset: int, name: str, shape: tuple[int, ...], encoding: str, scale: float
    ) -> None:
        self.file = file
        self.offset = offset
        self.name = name
        self.shape = shape
        self.encoding = encoding
        self.scale = scale
        self.dtype = "BF16" if encoding in _NARROW and scale == 1 else "F32"
        self._type = SBS_TYPES[encoding]
        self._n_rows, self._n_cols = matrix_shape(shape)

    def __repr__(self) -> str:
        return f"SbsRows({shown(self.name)}, {self.encoding}{list(self.shape)}, {self.file.path.name})"

    @property
    def n_bytes(self) -> int:
        """Size of the whole tensor in the file."""
        return self._type.n_bytes(self._n_rows * self._n_cols)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        first, last = start * self._n_cols, stop * self._n_cols
        if out.flags.c_contiguous:
            self._decode(first, last, out.reshape(-1))
        else:
            dense = np.empty(last - first, np.float32)
            self._decode(first, last, dense)
            out[...] = dense.reshape(out.shape)

    def _decode(self, first: int, last: int, out: Floats) -> None:
        """Values ``first..last`` of the whole tensor."""
        decode = codec(self._type).decode
        for a in range(first // _TILE * _TILE, last, _TILE):
            begin, end = self._groups(max(a, first), min(a + _TILE, last))
            offset, length = self._bytes(begin, end)
            values = np.empty(end - begin, np.float32)
            decode(self.file.view(offset, length), values)
            a, b = max(first, begin), min(last, end)
            wanted = values[a - begin : b - begin]
            out[a - first : b - first] = wanted if self.scale == 1 else wanted * np.float32(self.scale)

    def _groups(self, first: int, last: int) -> tuple[int, int]:
        """The values of all groups that values ``first..last`` are in."""
        size = self._type.group
        return first // size * size, min(-(-last // size) * size, self._n_rows * self._n_cols)

    def _bytes(self, begin: int, end: int) -> tuple[int, int]:
        """Offset and length of whole groups."""
        a, b = self._type.n_bytes(begin), self._type.n_bytes(end)
        return self.offset + a, b - a

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``: whole groups."""
        if stop > start and self._n_cols:
            yield Span(self.file, *self._bytes(*self._groups(start * self._n_cols, stop * self._n_cols)))
