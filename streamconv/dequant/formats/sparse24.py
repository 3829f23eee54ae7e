"""compressed-tensors' ``sparse-24-bitmask``: two values of every four columns, and a mask that says which.

A row has half as many values as columns, in their order, and a bit for each column, the first in the lowest bit of its byte.
Values may be 8-bit floats or whole numbers with a scale for the tensor or for each row, like those of matrices that are not sparse.

Source: compressed_tensors/compressors/sparse_compressors/sparse_24_bitmask.py (0.13).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import BadInput
from ...rows import Floats
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range, numbers, rows_of
from ..format import LOST, Format
from ..raw import Raw
from ..store import Store

_FLOATS = ("F32", "F16", "BF16")
_CODES = ("F8_E4M3", "I8")


class SparseRows(DecodedRows):
    """``parts`` are values [n_rows, n_cols / 2], the mask uint8[n_rows, n_cols / 8], and scales where values are codes."""

    kernels = (".kernels.rounding",)

    def __init__(self, name: str, shape: tuple[int, int], parts: list[Raw]) -> None:
        stored = parts[2].dtype if len(parts) > 2 else parts[0].dtype
        kind = f" of {parts[0].dtype.lower()}" if len(parts) > 2 else ""
        super().__init__(name, shape, stored, f"sparse 2:4{kind}", parts)

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        values, mask = (rows_of(part, self.n_rows, start, stop)[1:] for part in self.parts[:2])
        bits = np.unpackbits(
            self.parts[1].bytes(*mask).reshape(stop - start, -1), axis=1, count=self.n_cols, bitorder="little"
        ).view(bool)
        odd = np.flatnonzero(np.count_nonzero(bits, axis=1) * 2 != self.n_cols)
        if len(odd):
            raise BadInput(
                f"{self.parts[1]}: row {start + int(odd[0])} does not keep half of its {self.n_cols} columns"
            )
        size = self.parts[0].itemsize
        kept = self.parts[0].floats(values[0] // size, values[1] // size)
        out[...] = 0
        out[bits] = kept
        if len(self.parts) > 2:
            out *= self._scales(start, stop)

    def _scales(self, start: int, stop: int) -> Floats:
        scales = self.parts[2]
        return scales.floats(0, 1) if scales.n_values == 1 else scales.floats(start, stop).reshape(-1, 1)

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        yield from (rows_of(part, self.n_rows, start, stop) for part in self.parts[:2])
        for scales in self.parts[2:]:
            yield numbers(scales, *((0, 1) if scales.n_values == 1 else (start, stop)))


def find(store: Store) -> None:
    """Recognise matrices by their ``bitmask``.

    Raises
    ------
    BadInput : a part is missing or does not fit, or it is sparse in another way; names file and tensor
    """
    for name, module in list(store.ending(".bitmask")):
        if f"{module}.compressed" in store:
            with store.about(name, f"{module}.weight"):
                _put(store, name, module)


def _put(store: Store, name: str, module: str) -> None:
    if f"{module}.row_offsets" in store:
        raise BadInput(
            f"{store.where(name)}: tensor {shown(name)} is of format sparse-bitmask, which cannot be decoded"
        )
    mask = store.companion(name, name, ("U8",))
    values = store.companion(name, f"{module}.compressed", (*_FLOATS, *_CODES))
    stated = store.companion(name, f"{module}.shape", ("I64", "I32"), 2)
    n_rows, n_cols = (int(n) for n in stated.integers())
    if (
        n_rows < 1
        or n_cols < 4
        or n_cols % 4
        or values.shape != (n_rows, n_cols // 2)
        or mask.shape != (n_rows, -(-n_cols // 8))
    ):
        raise BadInput(
            f"{values} has shape {list(values.shape)} and {shown(name)} {list(mask.shape)}, which do not fit a matrix of"
            f" [{n_rows}, {n_cols}] of which every second value is kept"
        )
    parts = [values, mask]
    if values.dtype in _CODES:
        scales = store.companion(name, f"{module}.weight_scale", _FLOATS)
        if scales.n_values not in (1, n_rows):
            raise BadInput(f"{scales} has shape {list(scales.shape)}, not one value or one for each of {n_rows} rows")
        if f"{module}.weight_zero_point" in store:
            raise BadInput(f"{values} is sparse and has zero points, which cannot be decoded")
        parts.append(scales)
    store.put(name, SparseRows(f"{module}.weight", (n_rows, n_cols), parts), stated)


FORMAT = Format(find, likely_parts={r"\.(bitmask|compressed|row_offsets)$": LOST})
