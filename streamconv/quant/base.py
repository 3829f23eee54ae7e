"""What a block format is, and how to find one.

A module of ``formats/`` (named in ``types.py``) holds the kernels of one format and ends with

    CODEC = Codec(TYPES["Q4_K"], quantize=_quantize, dequantize=_dequantize)   # or CODECS = {...} for a close family

Contract of the two functions (rows are independent; all arrays C-contiguous unless said; they fill ``out`` and return None):

``quantize(x, out, weights, compat)``
    x : float32[n_rows, n_cols], finite, ``n_cols % block_size == 0``
    out : uint8[n_rows, row_bytes]
    weights : float32[n_cols] importance of each column, or None
    compat : reproduce defects of the reference where it has any
    Bytes are those of ggml's reference quantizer on x86-64.
``quantize_bf16(words, out)``
    The same without weights from bfloat16 rows, words : uint16[n_rows, n_cols]; returns the largest magnitude, NaN when there
    is one, for rows that are not known to be finite. Only for formats that are about as fast to make as memory is to read:
    they save the way over a float32 tile.
``dequantize(data, out)``
    data : uint8[n_rows, row_bytes], may be read-only
    out : float32[n_rows, n_cols]

Both release the GIL while kernels run and allocate at most a fixed scratch per call, so threads scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from ..kernels import PACKAGE, load
from ..rows import Bytes, Floats
from .types import TYPES, TensorType

Quantize = Callable[[Floats, Bytes, "Floats | None", bool], None]
#: bits of bfloat16 numbers
Words = NDArray[np.uint16]
QuantizeBf16 = Callable[[Words, Bytes], float]
Dequantize = Callable[[Bytes, Floats], None]


@dataclass(frozen=True)
class Codec:
    """The two directions of one tensor type.

    Attributes
    ----------
    type : the tensor type
    quantize, dequantize : see the module's contract
    needs_weights : the format needs importance weights
    quantize_bf16 : see there; None where rows become float32 first
    warm_up : compiles the kernels of one that belongs to a tensor, whose facts are not known yet; None: ``quantize`` of zeros does
    """

    type: TensorType
    quantize: Quantize
    dequantize: Dequantize
    needs_weights: bool = False
    quantize_bf16: QuantizeBf16 | None = None
    warm_up: Callable[[], None] | None = None


def has_codec(name: str) -> bool:
    """Whether rows can be encoded as tensor type ``name``; imports nothing."""
    return name in TYPES and bool(TYPES[name].module) and find_spec(codec_module(TYPES[name]), PACKAGE) is not None


def codec_module(tensor_type: TensorType) -> str:
    """What ``kernels.load`` calls the module of the codec of a tensor type that has one."""
    return tensor_type.module if tensor_type.module.startswith(".") else f".quant.formats.{tensor_type.module}"


def codec(name: str) -> Codec:
    """The codec of tensor type ``name`` (upper case); imports numba and only this format's module.

    Raises
    ------
    KeyError : there is no such type, or it has no codec (integer types)
    """
    tensor_type = TYPES[name]
    if not tensor_type.module:
        raise KeyError(name)
    module = load(codec_module(tensor_type))
    found = module.CODECS[name] if hasattr(module, "CODECS") else module.CODEC
    assert isinstance(found, Codec)
    assert found.type is tensor_type
    return found
