"""Q8_0: 32 weights in 34 bytes; d f16 and int8 levels.

Source: ggml-quants.c ``quantize_row_q8_0_ref``. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, ZERO, f32_to_f16, get_f16, inline, kernel
from ...kernels.tiles import GROUP, from_magnitude_bits, larger, magnitude_bits, prefetch, value
from ...rows import Bytes, Floats
from ..base import Codec, Words
from ..types import TYPES

_BLOCK, _BYTES = 32, 34
_127 = np.float32(127.0)
_INF = np.float32(np.inf)
#: the largest float32 below one half: added before truncating it gives C ``roundf``, which 0.5 would not
_BELOW_HALF = np.float32(0.49999997)


@inline
def _largest(x, top):  # type: ignore[no-untyped-def]
    """The largest magnitude of each block; x : as below; top : float32[n_blocks]."""
    for b in range(len(x)):
        values = x[b]
        found = magnitude_bits(values[0])
        for i in range(len(values) // _BLOCK * _BLOCK):  # always 32, and LLVM sees that nothing is left over
            size = magnitude_bits(values[i])
            found = size if size > found else found
        top[b] = from_magnitude_bits(found)


@inline
def _scales(top, factor, head):  # type: ignore[no-untyped-def]
    """d = top / 127: its reciprocal and its float16 bits; the levels of a d too small to have a reciprocal are 0.

    top, factor : float32[n_blocks]; head : uint16[n_blocks]
    """
    for b in range(len(top)):
        d = top[b] / _127
        inverse = ONE / d if d != ZERO else ZERO
        factor[b] = inverse if inverse < _INF else ZERO
        head[b] = f32_to_f16(d)


@inline
def _pack(x, out, factor, head):  # type: ignore[no-untyped-def]
    """x : as below; out : uint8[n_blocks, 34]; factor : float32[n_blocks]; head : uint16[n_blocks]."""
    for b in range(len(x)):
        prefetch(x, b + GROUP)  # what comes after this group: its largest values are looked for too fast to wait then
        values, block = x[b], out[b]
        block[0], block[1] = np.uint8(head[b] & 0xFF), np.uint8(head[b] >> 8)
        f, qs = factor[b], block[2:]
        for i in range(len(qs)):
            v = value(values[i]) * f
            qs[i] = np.uint8(np.int32(v + np.copysign(_BELOW_HALF, v)) & 0xFF)


@kernel
def _quantize(x, out):  # type: ignore[no-untyped-def]
    """Encode all blocks, a few at a time, which stay in the first-level cache; return the largest magnitude.

    x : float32[n_blocks, 32], or bfloat16 as uint16; out : uint8[n_blocks, 34]
    """
    top, factor, head = np.empty(GROUP, np.float32), np.empty(GROUP, np.float32), np.empty(GROUP, np.uint16)
    found = ZERO
    for a in range(0, len(x), GROUP):
        values, blocks = x[a : a + GROUP], out[a : a + GROUP]
        n = len(values)
        _largest(values, top)
        _scales(top[:n], factor, head)
        _pack(values, blocks, factor, head)
        found = larger(found, top[:n])
    return found


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 34]; out : float32[n_blocks, 32] = level · d."""
    for b in range(len(out)):
        block, values = data[b], out[b]
        d = get_f16(block, 0)
        for i in range(_BLOCK):
            values[i] = np.float32(np.int8(block[2 + i])) * d


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    _quantize(x.reshape(-1, _BLOCK), out.reshape(-1, _BYTES))


def _encode_bf16(words: Words, out: Bytes) -> float:
    return float(_quantize(words.reshape(-1, _BLOCK), out.reshape(-1, _BYTES)))


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, _BLOCK))


CODEC = Codec(TYPES["Q8_0"], _encode, _decode, quantize_bf16=_encode_bf16)
