"""A tensor of a weight file of gemma.cpp as rows that can be made in any order: its type as geometry, its codec with its scale.

Groups run on over the ends of rows, so rows are whole groups; what is left behind the last whole group is a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...kernels import load
from ...rows import Bytes, Floats
from ..base import Codec, Words
from ..types import TYPES, TensorType
from .types import SbsType, codec, scale_of


def tensor_type(kind: SbsType, n_cols: int) -> TensorType:
    """``kind`` as a type of rows of ``n_cols`` values: whole groups, or one that is shorter."""
    if kind.name in ("F32", "BF16"):
        return TYPES[kind.name]
    group = kind.group if n_cols % kind.group == 0 else n_cols
    return TensorType(kind.name, kind.id, group, kind.n_bytes(group), f".quant.sbs.{kind.module}")


def codec_of(kind: SbsType, type_: TensorType, largest: Callable[[], float] | None) -> Codec:
    """The codec of one tensor.

    Parameters
    ----------
    type_ : what ``tensor_type`` gives for its rows
    largest : tells the largest magnitude of the whole tensor, which is finite; None: the type has no scale
    """
    found = codec(kind)

    def scale() -> np.float32:
        return np.float32(1) if largest is None else scale_of(kind, largest())

    def quantize(x: Floats, out: Bytes, _weights: Floats | None, _compat: bool) -> None:
        found.encode(x.reshape(-1), out.reshape(-1), scale())

    def quantize_bf16(words: Words, out: Bytes) -> float:
        top = largest() if largest is not None else _largest(words)
        if top <= kind.largest:  # else it is told by who encodes float32
            found.encode(words.reshape(-1), out.reshape(-1), scale())
        return top

    def dequantize(data: Bytes, out: Floats) -> None:
        found.decode(np.ascontiguousarray(data).reshape(-1), out.reshape(-1))
        if (by := scale()) != 1:
            out *= by

    def warm_up() -> None:
        x, out = np.zeros(type_.block_size, np.float32), np.empty(type_.block_bytes, np.uint8)
        words = np.zeros(type_.block_size, np.uint16)
        words.flags.writeable = False
        for values in (x, words):
            found.encode(values, out, np.float32(1))
        found.decode(out, x)
        _largest(words.reshape(1, -1))

    return Codec(type_, quantize, dequantize, quantize_bf16=quantize_bf16, warm_up=warm_up)


def _largest(words: Words) -> float:
    """The largest magnitude of bfloat16 rows, NaN when there is one."""
    top = np.empty(len(words), np.float32)
    load(".kernels.tiles").block_largest(words, top)
    return float(top.max(initial=0))
