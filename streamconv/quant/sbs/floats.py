"""F32 and BF16, whose bytes are those of ggml's types of these names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...rows import Bytes, Floats
from ..base import codec
from .types import SbsCodec


def _of(name: str) -> SbsCodec:
    def encode(x: Any, out: Bytes, scale: np.float32) -> None:
        if x.dtype == np.uint16:
            x = (x.astype(np.uint32) << 16).view(np.float32)
        codec(name).quantize(x.reshape(1, -1), out.reshape(1, -1), None, False)

    def decode(data: Bytes, out: Floats) -> None:
        codec(name).dequantize(data.reshape(1, -1), out.reshape(1, -1))

    return SbsCodec(encode, decode)


CODECS = {name: _of(name) for name in ("F32", "BF16")}
