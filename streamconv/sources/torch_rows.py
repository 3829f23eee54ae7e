"""Row sources over tensors of torch: views of a storage by offset, size and stride.

A view whose numbers lie one after the other is a ``StoredRows`` like any tensor. Any other (a transposed matrix, a slice of
columns, an expanded vector) is gathered row by row from the mapped storage, without a copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Bytes, Floats, Span, matrix_shape
from .mapped import MappedFile
from .naming import shown
from .stored import FileRows, StoredRows
from .torch_globals import Tensor
from .widen import STORED_TYPES

#: of all dimensions that are not 0; in bytes they fit in 63 bits, whatever the type
_MAX_ELEMENTS = 2**59
#: what an expanded tensor (stride 0) may take beyond its storage
_MAX_EXPANDED_BYTES = 16 << 20
#: most bytes that are read at once where reading copies
_PIECE_BYTES = 4 << 20


def tensor_rows(file: MappedFile, name: str, tensor: Tensor, place: tuple[int, int]) -> StoredRows | StridedRows:
    """The rows of ``tensor``, whose storage is at ``place`` = offset and length in bytes of the file.

    Errors: BadInput names the file, the tensor and the byte where the view leaves its storage or makes no sense.
    """
    first = _checked(file, name, tensor, place)
    size, itemsize = tensor.size, STORED_TYPES[tensor.dtype].bits // 8
    # Strides of dimensions of one are never used; torch writes anything there.
    strides = [stride for stride, n in zip(tensor.stride, size, strict=True) if n != 1]
    sizes = [n for n in size if n != 1]
    if 0 in size or strides == [prod(sizes[i + 1 :]) for i in range(len(sizes))]:
        return StoredRows(file, first, name, size, tensor.dtype)
    return StridedRows(file, first, name, size, tuple(stride * itemsize for stride in tensor.stride), tensor.dtype)


def _checked(file: MappedFile, name: str, tensor: Tensor, place: tuple[int, int]) -> int:
    """Offset of the first number in the file, after making sure that all of them are in the storage."""
    storage, size = tensor.storage, tensor.size
    where = f"{file.path}: tensor {shown(name)} (described at byte {tensor.at})"
    if len(size) != len(tensor.stride):
        raise BadInput(f"{where}: it has {len(size)} sizes and {len(tensor.stride)} strides")
    start, n_bytes = place
    # An untyped storage counts bytes, its tensors numbers.
    itemsize = STORED_TYPES[tensor.dtype].bits // 8
    unit = STORED_TYPES[storage.dtype].bits // 8 if storage.dtype else 1
    needed = storage.numel * unit
    if needed > n_bytes:
        raise BadInput(
            f"{where}: its storage {shown(storage.key)} is short: {storage.numel} numbers have a size of {needed} bytes,"
            f" {n_bytes} are there at byte {start}; truncated?"
        )
    if prod(n for n in size if n) > _MAX_ELEMENTS:
        raise BadInput(f"{where}: its size, {shown(str(size))}, overflows 64 bits")
    length = storage.length * unit
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(size, tensor.stride, strict=True))
    used = 0 if 0 in size else (last + 1) * itemsize
    if max(used, tensor.offset * itemsize) > length:
        raise BadInput(
            f"{where}: offset {tensor.offset}, size {shown(str(list(size)))} and stride {shown(str(list(tensor.stride)))}"
            f" lead to byte {used} of a storage of {length}, out of bounds"
        )
    logical = prod(size) * itemsize
    if logical > max(length, _MAX_EXPANDED_BYTES):
        raise BadInput(f"{where}: it expands a storage of {length} bytes to {logical}, over the limit")
    return start + storage.start * unit + tensor.offset * itemsize


class StridedRows(FileRows):
    """A tensor whose numbers do not lie one after the other.

    Parameters
    ----------
    file, offset : where the first number is
    name : the tensor, for messages
    shape : logical shape, slowest dimension first
    strides : bytes from one index to the next in each dimension; all numbers must be inside the file
    dtype : of ``STORED_TYPES``, in whole bytes

    Reading takes no more memory than the rows asked for, but a transposed matrix of which few rows are read at a time is
    gone through once for each of these reads.
    """

    def __init__(
        self, file: MappedFile, offset: int, name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str
    ) -> None:
        word = STORED_TYPES[dtype].word
        if word is None:
            raise ValueError(f"{dtype} is not in whole bytes")
        self._word = word
        super().__init__(file, offset, name, shape, dtype, matrix_shape(shape)[1] * word.itemsize)
        self._column_stride = strides[-1]
        self._dimensions = _merged(shape[:-1], strides[:-1])

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        widen = STORED_TYPES[self.dtype].widen
        if widen is None:
            raise BadInput(
                f"{self.file.path}: tensor {shown(self.name)} is stored as {self.dtype}, which has no float form"
            )
        for row, column, words in self._pieces(start, stop):
            widen(words, out[row : row + words.shape[0], column : column + words.shape[1]])

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """See ``Rows.native``; a copy."""
        self._range(start, stop)
        if kind != self.dtype:
            return None
        out = np.empty((stop - start, self.n_cols), self._word)
        for row, column, words in self._pieces(start, stop):
            out[row : row + words.shape[0], column : column + words.shape[1]] = words
        return out.view(np.uint8)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``; one range from the first number to the last, with whatever lies between them."""
        self._range(start, stop)
        if start == stop or not self.n_cols:
            return
        row_span = (self.n_cols - 1) * self._column_stride + self._word.itemsize
        if len(self._dimensions) > 1:
            first, last = 0, sum((size - 1) * stride for size, stride in self._dimensions)
        else:
            row_stride = self._dimensions[0][1] if self._dimensions else 0
            first, last = start * row_stride, (stop - 1) * row_stride
        yield Span(self.file, self.offset + first, last - first + row_span)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Parts of the rows ``start..stop``: first row (from ``start``) and column, and the words, a view of the file."""
        run, run_stride = self._dimensions[-1] if self._dimensions else (1, 0)
        row = start
        while row < stop:
            outer, inner = divmod(row, run)
            n = min(run - inner, stop - row)
            offset = self.offset + inner * run_stride
            for size, stride in reversed(self._dimensions[:-1]):
                outer, index = divmod(outer, size)
                offset += index * stride
            yield from self._split(row - start, 0, offset, (n, self.n_cols), (run_stride, self._column_stride))
            row += n

    def _split(
        self, row: int, column: int, offset: int, shape: tuple[int, int], strides: tuple[int, int]
    ) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """One matrix, in pieces that span few bytes when reading the file copies them."""
        spans = (shape[0] - 1) * strides[0], (shape[1] - 1) * strides[1]
        n_bytes = sum(spans) + self._word.itemsize
        if self.file.io == "mmap" or n_bytes <= _PIECE_BYTES:
            data = self.bytes_at(offset, n_bytes)
            yield row, column, np.ndarray(shape, self._word, data.data, 0, strides)
        elif spans[0] >= spans[1]:
            half = shape[0] // 2
            yield from self._split(row, column, offset, (half, shape[1]), strides)
            rest = shape[0] - half, shape[1]
            yield from self._split(row + half, column, offset + half * strides[0], rest, strides)
        else:
            half = shape[1] // 2
            yield from self._split(row, column, offset, (shape[0], half), strides)
            rest = shape[0], shape[1] - half
            yield from self._split(row, column + half, offset + half * strides[1], rest, strides)


def _merged(sizes: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Sizes and strides of the leading dimensions, those joined that are walked through at one pace.

    >>> _merged((2, 3, 1, 4), (24, 8, 0, 2))
    [(24, 2)]
    """
    joined: list[tuple[int, int]] = []
    for size, stride in zip(sizes, strides, strict=True):
        if size == 1:
            continue
        if joined and joined[-1][1] == size * stride:
            joined[-1] = joined[-1][0] * size, stride
        else:
            joined.append((size, stride))
    return joined
