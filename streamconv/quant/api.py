"""``quantize`` and ``dequantize`` for arrays: the block formats by name, with checks and threads."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, UsageError
from ..rows import Bytes, Floats
from ..threads import spread
from .base import Codec, codec
from .overflow import TooLarge, first_overflow, may_overflow
from .types import TYPES

#: Rows are handed on in pieces of about this many weights, which fit the second-level cache.
_TILE = 64 << 10


def _codec(name: str) -> Codec:
    try:
        return codec(name.upper())
    except (KeyError, ModuleNotFoundError):
        known = ", ".join(t.name for t in TYPES.values() if t.module)
        raise UsageError(f"{name!r} is not a type that weights can be stored in", f"Known: {known}.") from None


def quantize(
    x: ArrayLike, type: str, imatrix: ArrayLike | None = None, threads: int | None = None, compat: bool = False
) -> NDArray[np.uint8]:
    """Encode rows of weights as ggml does.

    Parameters
    ----------
    x : float32[n_rows, n_cols]; other types are converted
    type : name of a tensor type, any case
    imatrix : float32[n_cols] importance of each column
    threads : at most so many; None = all cores. They never change the bytes.
    compat : reproduce defects of ggml's quantizers, and let NaN, Inf and overflows through

    Returns
    -------
    uint8[n_rows, row_bytes]

    Raises
    ------
    UsageError : unknown type, wrong shape, importance missing or of the wrong length
    BadInput : NaN or Inf in ``x``; names row and column; or a value too large for the type

    Examples
    --------
    >>> import numpy as np
    >>> import streamconv
    >>> x = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
    >>> data = streamconv.quantize(x, "Q8_0")
    >>> data.shape, data.dtype
    ((2, 272), dtype('uint8'))
    """
    found = _codec(type)
    rows = np.ascontiguousarray(x, np.float32)
    if rows.ndim != 2:
        raise UsageError(f"quantize takes a matrix, not {rows.ndim} dimensions")
    n_rows, n_cols = rows.shape
    try:
        row_bytes = found.type.row_bytes(n_cols)
    except ValueError as e:
        raise UsageError(str(e)) from None
    weights = None if imatrix is None else np.ascontiguousarray(imatrix, np.float32).reshape(-1)
    if weights is not None and len(weights) != n_cols:
        raise UsageError(f"the importance has {len(weights)} values for {n_cols} columns")
    if weights is None and found.needs_weights:
        raise UsageError(f"{found.type.name} needs importance weights", "Pass imatrix=.")
    if not compat and not np.isfinite(rows).all():
        row, col = np.argwhere(~np.isfinite(rows))[0]
        raise BadInput(f"row {row}, column {col} holds {rows[row, col]}: not a finite number")
    out = np.empty((n_rows, row_bytes), np.uint8)
    step = max(1, _TILE // max(n_cols, 1))

    def work(start: int) -> None:
        stop = min(start + step, n_rows)
        try:
            found.quantize(rows[start:stop], out[start:stop], weights, compat)
        except TooLarge as e:
            raise TooLarge(start + e.row, found.type) from None
        if not compat and may_overflow(found.type, float(np.abs(rows[start:stop]).max(initial=0))):
            decoded = np.empty((stop - start, n_cols), np.float32)
            found.dequantize(out[start:stop], decoded)
            if (row := first_overflow(decoded)) is not None:
                raise TooLarge(start + row, found.type)

    _spread(work, range(0, n_rows, step), threads)
    return out


def dequantize(data: ArrayLike, type: str, cols: int, threads: int | None = None) -> Floats:
    """Decode rows of weights.

    Parameters
    ----------
    data : uint8[n_rows, row_bytes]
    type : name of a tensor type, any case
    cols : weights per row

    Returns
    -------
    float32[n_rows, cols]

    Raises
    ------
    UsageError : unknown type, or ``cols`` is no whole number of blocks

    Notes
    -----
    Not checked: that the bytes are blocks of this type. Any bytes decode to something.

    Examples
    --------
    >>> import numpy as np
    >>> import streamconv
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 32)
    >>> y = streamconv.dequantize(streamconv.quantize(x, "Q8_0"), "Q8_0", 32)
    >>> bool(abs(x - y).max() < 0.005)
    True
    """
    found = _codec(type)
    try:
        row_bytes = found.type.row_bytes(cols)
    except ValueError as e:
        raise UsageError(str(e)) from None
    raw = np.ascontiguousarray(data)
    rows: Bytes = raw.view(np.uint8).reshape(-1, row_bytes) if raw.size else np.empty((0, row_bytes), np.uint8)
    out = np.empty((len(rows), cols), np.float32)
    step = max(1, _TILE // max(cols, 1))

    def work(start: int) -> None:
        found.dequantize(rows[start : start + step], out[start : start + step])

    _spread(work, range(0, len(rows), step), threads)
    return out


def _spread(work: Callable[[int], None], starts: range, threads: int | None) -> None:
    """Call ``work`` for each start, on several threads where that can help."""
    n = min(threads or os.cpu_count() or 1, len(starts))
    if n > 1:
        work(starts[0])  # compiles in one thread
        starts = starts[1:]
    spread(work, starts, n)
