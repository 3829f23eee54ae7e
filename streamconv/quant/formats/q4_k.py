"""Q4_K: 256 weights in 144 bytes; eight sub-blocks with 6-bit scales and minima, 4-bit levels.

    d f16 | dmin f16 | scales 12 | qs 128; qs byte 32 g + l holds weight 64 g + l (low) and 64 g + 32 + l (high)

Bit-exact with ggml ``quantize_row_q4_K_ref`` and ``quantize_row_q4_K_impl`` (0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import get_f16, kernel
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._affine_k import BLOCK, SUB, SUBS, quantize, scale_and_min

_TYPE = TYPES["Q4_K"]


@kernel
def _pack(levels, out):  # type: ignore[no-untyped-def]
    """levels : uint8[n_blocks * 256]; out : uint8[n_blocks * 144], its ``qs`` are written."""
    for b in range(levels.size // BLOCK):
        for g in range(4):
            start, at = b * BLOCK + 64 * g, b * 144 + 16 + 32 * g
            for l in range(32):
                out[at + l] = levels[start + l] | (levels[start + 32 + l] << np.uint8(4))


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 144]; out : float32[n_blocks * 256] = (d · scale) · level − dmin · minimum."""
    for b in range(out.size // BLOCK):
        at = b * 144
        d, dmin = get_f16(data, at), get_f16(data, at + 2)
        for k in range(SUBS):
            both = scale_and_min(data, at, k)
            step = d * np.float32(both & 0xFF)
            minimum = dmin * np.float32(both >> 8)
            shift = np.uint8(4 * (k % 2))
            for i in range(SUB):
                q = (data[at + 16 + 32 * (k // 2) + i] >> shift) & np.uint8(0xF)
                out[b * BLOCK + k * SUB + i] = step * np.float32(q) - minimum


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    flat = out.reshape(-1)
    _pack(quantize(x.reshape(-1), flat, weights, 15, (-1.0, 20), _TYPE.block_bytes, cap=False), flat)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1), out.reshape(-1))


CODEC = Codec(_TYPE, _encode, _decode)
