"""The bytes of a stored tensor, whatever number type its header claims: packed codes and the scales beside them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Bytes, Described, Floats, Rows, Span, matrix_shape
from ..sources.mapped import MappedFile
from ..sources.naming import shown
from ..sources.stored import StoredRows
from ..sources.widen import STORED_TYPES, widen

_FLOAT = np.dtype("<f4")
A = TypeVar("A", bound=np.generic)


def frozen(array: NDArray[A]) -> NDArray[A]:
    """``array`` in C order and read-only, as mapped bytes are: kernels are compiled for one kind."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


class Raw(Described):
    """A stored tensor as one run of bytes.

    Parameters
    ----------
    rows : the tensor
    name : its name, for messages

    Raises
    ------
    BadInput : its rows are not bytes in the order of the file
    """

    def __init__(self, rows: Rows, name: str) -> None:
        self.rows = rows
        self.name = name
        self.shape = rows.shape
        self.dtype = rows.dtype
        self.n_values = prod(rows.shape)
        self._file = rows if isinstance(rows, StoredRows) else None
        first = rows.stored(0, 0)
        if first is None:
            raise BadInput(f"{self}: its bytes are not contiguous, so it cannot be decoded")
        self._row_bytes = first.shape[1]
        self.n_bytes = matrix_shape(rows.shape)[0] * self._row_bytes
        # A mapping that is there for good is sliced without asking; others copy, or wait for what they are asked for.
        file = self._file.file if self._file is not None else None
        is_mapped = type(file) is MappedFile and file.io == "mmap"
        self._view = file.view(self._file.offset, self.n_bytes) if is_mapped and file and self._file else None

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
        if self._view is not None:
            return self._view[start:stop]
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
        """Numbers ``start..stop`` of the flat tensor as read-only float32[stop - start]; ``dtype`` overrides the header's."""
        size = self.itemsize
        if self.dtype == "F32":
            found = self.bytes(start * size, stop * size).view(_FLOAT)
            return found if found.flags.aligned else frozen(found.copy())
        out = np.empty(stop - start, np.float32)
        if stop > start:
            widen(dtype or self.dtype, self.bytes(start * size, stop * size).reshape(1, -1), out.reshape(1, -1))
        return frozen(out)

    def integers(self) -> np.ndarray:
        """The whole tensor of whole numbers, flat."""
        word = STORED_TYPES[self.dtype].word
        assert word is not None
        return np.frombuffer(self.bytes(0, self.n_bytes).tobytes(), word)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Where bytes ``start..stop`` lie."""
        if self._file is None:
            yield from self.rows.spans(start // self._row_bytes, -(-stop // self._row_bytes)) if stop > start else ()
        elif stop > start:
            yield Span(self._file.file, self._file.offset + start, stop - start)
