"""The bytes of a stored tensor, whatever number type its header claims: packed codes and the scales beside them."""

from __future__ import annotations

from math import prod

import numpy as np

from ..errors import BadInput
from ..rows import Bytes, Floats, RowSource, matrix_shape
from ..sources.naming import shown
from ..sources.stored import StoredRows
from ..sources.widen import STORED_TYPES, widen


class Raw:
    """A stored tensor as one run of bytes.

    Parameters
    ----------
    rows : the tensor
    name : its name, for messages

    Raises
    ------
    BadInput : its rows are not bytes in the order of the file
    """

    def __init__(self, rows: RowSource, name: str) -> None:
        self.rows = rows
        self.name = name
        self.shape = rows.shape
        self.dtype = rows.dtype
        self.n_values = prod(rows.shape)
        self._file = rows if isinstance(rows, StoredRows) else None
        first = rows.stored(0, 0)
        if first is None:
            raise BadInput(f"{self}: its bytes do not lie in order, they cannot be decoded")
        self._row_bytes = first.shape[1]
        self.n_bytes = matrix_shape(rows.shape)[0] * self._row_bytes

    def __str__(self) -> str:
        where = f"{self._file.file.path}: " if self._file is not None else ""
        return f"{where}tensor {shown(self.name)}"

    @property
    def file_name(self) -> str | None:
        """Name of the file, None when the rows do not come straight from one."""
        return None if self._file is None else self._file.file.path.name

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return STORED_TYPES[self.dtype].bits // 8

    def bytes(self, start: int, stop: int) -> Bytes:
        """Bytes ``start..stop`` as read-only uint8[stop - start]."""
        if self._file is not None:
            return self._file.file.view(self._file.offset + start, stop - start)
        first = start // self._row_bytes if self._row_bytes else 0
        last = -(-stop // self._row_bytes) if self._row_bytes else 0
        stored = self.rows.stored(first, last)
        assert stored is not None
        flat = np.ascontiguousarray(stored).reshape(-1)[start - first * self._row_bytes :][: stop - start]
        flat.flags.writeable = False
        return flat

    def columns(self, row_bytes: int, start: int, stop: int) -> Bytes:
        """Bytes ``start..stop`` of every run of ``row_bytes``, as read-only uint8[n, stop - start]: a view where it can be."""
        n = self.n_bytes // row_bytes
        if self._file is not None and self._file.file.io != "mmap":
            out = np.empty((n, stop - start), np.uint8)
            for k in range(n):
                self._file.file.read_into(self._file.offset + k * row_bytes + start, out[k])
            out.flags.writeable = False
            return out
        return self.bytes(0, n * row_bytes).reshape(n, row_bytes)[:, start:stop]

    def floats(self, start: int, stop: int, dtype: str | None = None) -> Floats:
        """Numbers ``start..stop`` of the flat tensor as float32[stop - start]; ``dtype`` overrides the header's."""
        size = self.itemsize
        out = np.empty(stop - start, np.float32)
        if stop > start:
            widen(dtype or self.dtype, self.bytes(start * size, stop * size).reshape(1, -1), out.reshape(1, -1))
        return out

    def integers(self) -> np.ndarray:
        """The whole tensor of whole numbers, flat."""
        word = STORED_TYPES[self.dtype].word
        assert word is not None
        return np.frombuffer(self.bytes(0, self.n_bytes).tobytes(), word)

    def prefetch(self, start: int, stop: int) -> None:
        """These bytes will be read soon."""
        if self._file is not None:
            self._file.file.prefetch(self._file.offset + start, stop - start)

    def release(self, start: int, stop: int) -> None:
        """These bytes will not be read again soon."""
        if self._file is not None:
            self._file.file.release(self._file.offset + start, stop - start)
