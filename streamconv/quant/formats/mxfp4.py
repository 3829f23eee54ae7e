"""MXFP4: 32 weights in 17 bytes; an exponent for the block and four bits a weight (``_e2m1.py``).

    e 1 | qs 16        step = 2^(e - 128); byte j holds weight j (low) and weight j + 16 (high)

Source: ggml-quants.c ``quantize_row_mxfp4_ref`` (ggml 0.25.3, glibc 2.36); bit-exact with one exception. For blocks below
2^-125 the reference's exponent turns negative and wraps to a huge one, which makes every weight zero and may make the block
NaN for readers that take 255 so. Here it stays 0 unless ``compat`` asks for the reference's bytes. Importance weights are
not used.
"""

from __future__ import annotations

from math import log

import numpy as np

from ...kernels.lanes import ZERO, bits, from_bits, inline, kernel
from ...kernels.tiles import block_largest
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._e2m1 import VALUES, encode

_BLOCK, _BYTES = 32, 17


def _ulps_rounded_up() -> np.ndarray:
    """By exponent field: how many float32 numbers next below a power of two have a ``log2f`` that rounds up to it.

    log2(2^k - u ulps) is k - u·2^-24 / ln 2, which rounds to k while u·2^-24 / ln 2 is at most half a step of the floats
    next to k on the side of k - 1.
    """
    found = np.zeros(256, np.int32)
    for field in range(1, 255):
        k = field - 126
        place = (k - 1).bit_length() if k > 0 else (-k).bit_length()  # of |k| as seen from k - 1
        found[field] = int(log(2) * 2.0 ** (place - 1)) if k else 0
    return found


_ROUNDED_UP = _ulps_rounded_up()


@inline
def _floor_log2(size):  # type: ignore[no-untyped-def]
    """floor(log2f(v)) as glibc rounds it, int32, for the bits ``size`` of a positive v."""
    if size >= 0x800000:
        return np.int32(np.int32(np.int32(size + _ROUNDED_UP[size >> 23]) >> 23) - 127)
    # A denormal counts in units of 2^-149; as a float32 of its own that count has the field to look at.
    count = bits(np.float32(size))
    rounded_up = np.int32(44 if size >= 1 << 21 else 88)
    return np.int32(np.int32(np.int32(count + rounded_up) >> 23) - (127 + 149))


@inline
def _step(exponent):  # type: ignore[no-untyped-def]
    """2^(exponent - 128) of int32 0..255; the two smallest are denormal."""
    return from_bits(np.int32(np.int32(exponent - 1) << 23) if exponent > 1 else np.int32(0x200000 << exponent))


@kernel
def _exponents(top, step, out, wrap):  # type: ignore[no-untyped-def]
    """The exponent of each block and the step it means.

    top, step : float32[n_blocks]; out : uint8[n_blocks, 17]; wrap : bool, let negative exponents wrap
    """
    for b in range(len(top)):
        exponent = np.int32(_floor_log2(bits(top[b])) + 125) if top[b] > ZERO else np.int32(0)
        if exponent < 0:
            exponent = np.int32(exponent & 0xFF) if wrap else np.int32(0)
        out[b, 0] = np.uint8(exponent)
        step[b] = _step(exponent)


@kernel
def _pack(codes, out):  # type: ignore[no-untyped-def]
    """codes : uint64[n_blocks, 4], eight weights each; out : uint8[n_blocks, 17]."""
    for b in range(len(codes)):
        for half in range(2):
            pairs = np.uint64(codes[b, half] | (codes[b, half + 2] << np.uint64(4)))
            for j in range(8):
                out[b, 1 + 8 * half + j] = np.uint8((pairs >> np.uint64(8 * j)) & np.uint64(0xFF))


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 17]; out : float32[n_blocks, 32] = VALUES[code] · step."""
    for b in range(len(out)):
        block, values = data[b], out[b]
        step = _step(np.int32(block[0]))
        qs = block[1:]
        for j in range(len(qs)):
            values[j] = VALUES[qs[j] & np.uint8(15)] * step
            values[j + 16] = VALUES[qs[j] >> np.uint8(4)] * step


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    values, blocks = x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES)
    top, step = np.empty((2, len(values)), np.float32)
    codes = np.empty(values.shape, np.uint8)
    block_largest(values, top)
    _exponents(top, step, blocks, compat)
    encode(values, codes, step)
    _pack(codes.view(np.uint64), blocks)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["MXFP4"], _encode, _decode)
