"""Row sources over a range of a file."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ..errors import BadInput
from ..rows import Bytes, Floats, Rows, Span, matrix_shape
from .mapped import MappedFile
from .naming import shown
from .widen import STORED_TYPES, widen


class FileRows(Rows):
    """Rows that lie one after the other in a file; a subclass says what their bytes mean.

    Parameters
    ----------
    file, offset : where the first row begins, at any byte
    name : the tensor, for messages
    shape : logical shape, slowest dimension first
    dtype : name of the encoding
    row_bytes : bytes from one row to the next; 0 when rows do not end on whole bytes
    """

    def __init__(
        self, file: MappedFile, offset: int, name: str, shape: tuple[int, ...], dtype: str, row_bytes: int
    ) -> None:
        self.file = file
        self.offset = offset
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.row_bytes = row_bytes
        self.n_rows, self.n_cols = matrix_shape(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.name)}, {self.dtype}{list(self.shape)}, {self.file.path.name})"

    @property
    def n_bytes(self) -> int:
        """Size of the whole tensor in the file."""
        return self.n_rows * self.row_bytes

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        offset, length = self._range(start, stop)
        if length:
            self._decode(self.bytes_at(offset, length).reshape(stop - start, self.row_bytes), out)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """See ``Rows.native``; None when rows do not end on whole bytes."""
        offset, length = self._range(start, stop)
        if kind != self.dtype or (not self.row_bytes and self.n_cols):
            return None
        return self.bytes_at(offset, length).reshape(stop - start, self.row_bytes)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        if stop > start:
            yield Span(self.file, *self._range(start, stop))

    def bytes_at(self, offset: int, length: int) -> Bytes:
        """Bytes of the file; the error of what is damaged there also names the tensor."""
        try:
            return self.file.view(offset, length)
        except BadInput as e:
            if type(e) is not BadInput:
                raise
            raise BadInput(f"{e.message} (tensor {shown(self.name)})", e.hint) from None

    def _decode(self, data: Bytes, out: Floats) -> None:
        """Decode ``data`` uint8[n, row_bytes] into ``out`` float32[n, n_cols], any row stride."""
        raise NotImplementedError

    def _range(self, start: int, stop: int) -> tuple[int, int]:
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(f"{self!r}: rows {start}..{stop} of {self.n_rows}")
        return self.offset + start * self.row_bytes, (stop - start) * self.row_bytes


class StoredRows(FileRows):
    """A tensor of plain numbers; see ``widen`` for the types.

    Types that have no float32 form (C64, F4, F6) can be looked at and moved as bytes; ``read`` refuses them with BadInput.
    """

    def __init__(self, file: MappedFile, offset: int, name: str, shape: tuple[int, ...], dtype: str) -> None:
        row_bits = (shape[-1] if shape else 1) * STORED_TYPES[dtype].bits
        super().__init__(file, offset, name, shape, dtype, 0 if row_bits % 8 else row_bits // 8)

    @property
    def n_bytes(self) -> int:
        """Size of the whole tensor in the file, also where rows end inside a byte."""
        return prod(self.shape) * STORED_TYPES[self.dtype].bits // 8

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        if STORED_TYPES[self.dtype].widen is None:
            raise BadInput(
                f"{self.file.path}: tensor {shown(self.name)} is stored as {self.dtype}, which has no float form"
            )
        super()._fill(start, stop, out)

    def _decode(self, data: Bytes, out: Floats) -> None:
        widen(self.dtype, data, out)
