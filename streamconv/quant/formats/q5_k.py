"""Q5_K: 256 weights in 176 bytes; as Q4_K with a fifth bit for every level.

    d f16 | dmin f16 | scales 12 | qh 32 | qs 128; qs as in Q4_K, qh byte l bit k = fifth bit of weight 32 k + l

Bit-exact with ggml ``quantize_row_q5_K_ref`` and ``quantize_row_q5_K_impl`` (0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import get_f16, kernel
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._affine_k import BLOCK, SUB, SUBS, quantize, scale_and_min

_TYPE = TYPES["Q5_K"]


@kernel
def _pack(levels, out):  # type: ignore[no-untyped-def]
    """levels : uint8[n_blocks * 256]; out : uint8[n_blocks * 176], its ``qh`` and ``qs`` are written."""
    four, fifteen = np.uint8(4), np.uint8(15)
    for b in range(levels.size // BLOCK):
        start, at = b * BLOCK, b * 176 + 16
        for l in range(SUB):
            high = np.uint8(0)
            for k in range(SUBS):
                high |= (levels[start + SUB * k + l] >> four) << np.uint8(k)
            out[at + l] = high
        for g in range(4):
            first, to = start + 64 * g, at + 32 + 32 * g
            for l in range(32):
                out[to + l] = (levels[first + l] & fifteen) | (levels[first + 32 + l] << four)


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 176]; out : float32[n_blocks * 256] = (d · scale) · level − dmin · minimum."""
    for b in range(out.size // BLOCK):
        at = b * 176
        d, dmin = get_f16(data, at), get_f16(data, at + 2)
        for k in range(SUBS):
            both = scale_and_min(data, at, k)
            step = d * np.float32(both & 0xFF)
            minimum = dmin * np.float32(both >> 8)
            shift, bit = np.uint8(4 * (k % 2)), np.uint8(k)
            for i in range(SUB):
                q = (data[at + 48 + 32 * (k // 2) + i] >> shift) & np.uint8(0xF)
                q |= ((data[at + 16 + i] >> bit) & np.uint8(1)) << np.uint8(4)
                out[b * BLOCK + k * SUB + i] = step * np.float32(q) - minimum


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    flat = out.reshape(-1)
    _pack(quantize(x.reshape(-1), flat, weights, 31, (-0.5, 15), _TYPE.block_bytes, cap=True), flat)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1), out.reshape(-1))


CODEC = Codec(_TYPE, _encode, _decode)
