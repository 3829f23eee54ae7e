"""NaN and infinity in the data: in float tensors every value, in quantized ones the scales of every block.

Rows stream through a fixed window and are released behind it, so a file of any size is scanned in a few MiB.
Source of the block layouts: ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..quant.types import TYPES, TensorType
from ..rows import Bytes, Rows, matrix_shape
from ..sources.naming import shown
from .finding import Finding
from .subject import Subject

#: rows looked at between two hints: enough for the disk to be read in large requests, little beside the interpreter
_WINDOW_BYTES = 4 << 20
_PREFETCH_WINDOWS = 2

#: type -> byte offsets of the float16 fields in a block
_HALF_FIELDS = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ1_S": (0,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    "Q1_0": (0,),
    "Q2_0": (0,),
}
#: float types: word type and the mask of the exponent, all ones for NaN and infinity
_FLOATS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F64": ("<u8", 0x7FF << 52)}

Mask = NDArray[np.bool_]


def check(subject: Subject) -> Iterator[Finding]:
    """One finding for each tensor that holds something not finite."""
    for file in subject.files:
        for name, info in file.tensors.items():
            if info.type.name in _FLOATS or _scales(info.type) is not None:
                yield from _scan(name, file.rows(info), info.type)


def _scan(name: str, rows: Rows, type: TensorType) -> Iterator[Finding]:
    n_rows, n_cols = matrix_shape(rows.shape)
    step = max(1, _WINDOW_BYTES // type.row_bytes(n_cols))
    count, first = 0, (0, 0)
    for start in range(0, n_rows, step):
        stop = min(n_rows, start + step)
        rows.prefetch(stop, min(n_rows, stop + _PREFETCH_WINDOWS * step))
        data = rows.stored(start, stop)
        assert data is not None  # rows of a GGUF tensor are whole bytes
        bad = bad_cells(data, type)
        if bad.any():
            if not count:
                row, column = np.argwhere(bad)[0]
                first = (start + int(row), int(column))
            count += int(np.count_nonzero(bad))
        rows.release(start, stop)
    if count:
        cell = "value" if type.name in _FLOATS else "block"
        total = n_rows * n_cols // type.block_size
        yield Finding(
            "error",
            f"{shown(name)}: {count} of {total} {cell}s {'are' if cell == 'value' else 'have a scale that is'} NaN or"
            f" infinite, the first in row {first[0]}, {cell} {first[1]}",
            name,
        )


def bad_cells(data: Bytes, type: TensorType) -> Mask:
    """Which values (float types) or blocks are not finite: bool[n_rows, n_cells] of ``data`` uint8[n_rows, row_bytes]."""
    if type.name in _FLOATS:
        word, exponent = _FLOATS[type.name]
        words = data.view(np.dtype(word))
        mask = words.dtype.type(exponent)
        return np.asarray((words & mask) == mask)
    scales = _scales(type)
    assert scales is not None
    blocks = data.reshape(-1, type.block_bytes)
    return scales(blocks).reshape(len(data), -1)


def _scales(type: TensorType) -> Callable[[Bytes], Mask] | None:
    """The test for blocks uint8[n, block_bytes] of one type; None where any bytes are finite (integers, NVFP4)."""
    if type.name in _HALF_FIELDS:
        return lambda blocks: _any_half(blocks, _HALF_FIELDS[type.name])
    return {"MXFP4": _mxfp4, "IQ1_M": _iq1_m}.get(type.name)


def _any_half(blocks: Bytes, offsets: tuple[int, ...]) -> Mask:
    bad = np.zeros(len(blocks), bool)
    for offset in offsets:
        # Little-endian: the exponent of a half is in its second byte.
        bad |= (blocks[:, offset + 1] & 0x7C) == 0x7C
    return bad


def _mxfp4(blocks: Bytes) -> Mask:
    """One E8M0 exponent; 0xFF is NaN by the format's text, and ggml refuses it when it validates."""
    return np.asarray(blocks[:, 0] == 0xFF)


def _iq1_m(blocks: Bytes) -> Mask:
    """The half is spread over the top nibbles of the four scale words; its exponent is in the last two."""
    high, low = blocks[:, 55] >> 4, blocks[:, 53] >> 4
    return np.asarray(((high & 0x7) == 0x7) & ((low & 0xC) == 0xC))


assert all(name in TYPES for name in (*_HALF_FIELDS, *_FLOATS))
