"""F32, F16 and BF16: one number a block, rounded to nearest, ties to even.

Source: ggml ``ggml_fp32_to_fp16_row`` and ``ggml_fp32_to_bf16_row``. Overflow of F16 becomes infinity, as there.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, kernel
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES


@kernel
def _encode_f16(x, out):  # type: ignore[no-untyped-def]
    """Half precision.

    x    : float32[n]
    out  : uint16[n]
    """
    for i in range(len(x)):
        out[i] = f32_to_f16(x[i])


@kernel
def _decode_f16(data, out):  # type: ignore[no-untyped-def]
    """Half precision to float32, exact.

    data : uint16[n]
    out  : float32[n]
    """
    for i in range(len(data)):
        out[i] = f16_to_f32(data[i])


@kernel
def _encode_bf16(x, out):  # type: ignore[no-untyped-def]
    """bfloat16.

    x    : float32[n]
    out  : uint16[n]
    """
    for i in range(len(x)):
        out[i] = f32_to_bf16(x[i])


@kernel
def _decode_bf16(data, out):  # type: ignore[no-untyped-def]
    """bfloat16 to float32, exact.

    data : uint16[n]
    out  : float32[n]
    """
    for i in range(len(data)):
        out[i] = bf16_to_f32(data[i])


def _encode_f32(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    out[...] = x.view(np.uint8)


def _decode_f32(data: Bytes, out: Floats) -> None:
    out[...] = data.view(np.float32)


CODECS = {
    "F32": Codec(TYPES["F32"], _encode_f32, _decode_f32),
    "F16": Codec(
        TYPES["F16"],
        lambda x, out, weights, compat: _encode_f16(x.reshape(-1), out.reshape(-1).view(np.uint16)),
        lambda data, out: _decode_f16(data.reshape(-1).view(np.uint16), out.reshape(-1)),
    ),
    "BF16": Codec(
        TYPES["BF16"],
        lambda x, out, weights, compat: _encode_bf16(x.reshape(-1), out.reshape(-1).view(np.uint16)),
        lambda data, out: _decode_bf16(data.reshape(-1).view(np.uint16), out.reshape(-1)),
    ),
}
