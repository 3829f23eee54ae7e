"""I8: groups of 128 values in 132 bytes; the smallest of a group is near -128 and the largest near 127.

    1 / s bf16 | z bf16 | q int8[128]         value = (q - z) / s

Source: gemma.cpp ``compression/int-inl.h`` (October 2025), built for a processor with FMA; bit-exact with one exception. Where
values differ by less than 1e-36 the reference has an infinite s; here they become 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.lanes import ONE, ZERO, bf16_to_f32, bits, clamp, f32_to_bf16, fma, from_bits, inline, kernel
from ...kernels.tiles import GROUP, bits_missing, negated_bits, prefetch, signed_bits, value
from ...rows import Bytes, Floats
from .types import SbsCodec

#: as type checkers see it, an intrinsic never returns
_fma: Any = fma
_GROUP, _HEAD, _LINE = 128, 4, 32
_128, _127, _255 = np.float32(128.0), np.float32(127.0), np.float32(255.0)
#: what becomes infinity as bfloat16
_INFINITE = np.float32(3.3961775e38)
#: added, it leaves the nearest whole number, ties to even, in the lowest bits
_WHOLE = np.float32(12582912.0)


@inline
def _range(x):  # type: ignore[no-untyped-def]
    """The smallest and the largest of a group, from maxima of integers, which are free to vectorize; x : as below."""
    top, bottom = signed_bits(x[0]), negated_bits(x[0])
    for i in range(len(x)):
        v, w = signed_bits(x[i]), negated_bits(x[i])
        top = v if v > top else top
        bottom = w if w > bottom else bottom
    nearest = signed_bits(x[0])
    if top < 0 or bottom < 0:  # all of one sign: the least integer is what is next to zero
        for i in range(len(x)):
            v = signed_bits(x[i])
            nearest = v if v < nearest else nearest
    missing = bits_missing(x[0])
    high = from_bits(np.int32(np.int32(top if top >= 0 else nearest) << missing))
    low = from_bits(np.int32(np.int32(nearest if bottom < 0 else bottom) << missing))
    low = low if bottom < 0 else -low
    return low, high


@kernel
def _encode(x, lines, out):  # type: ignore[no-untyped-def]
    """x : float32[n], or bfloat16 as uint16; lines : the same in rows of 32; out : uint8[n + 4 · groups]."""
    for a in range(0, len(x), _GROUP):
        for i in range(_GROUP // _LINE):  # memory is slower than this
            prefetch(lines, a // _LINE + i + GROUP)
        values = x[a : a + _GROUP]
        at = a // _GROUP * (_GROUP + _HEAD)
        low, high = _range(values)
        width = high - low
        s = _255 / (width if width != ZERO else ONE)
        s = s if s < _INFINITE else _255
        z = f32_to_bf16(np.trunc(_fma(-s, low, -_128)) + ZERO)  # no -0
        inverse = f32_to_bf16(ONE / s)
        out[at], out[at + 1] = np.uint8(inverse & 0xFF), np.uint8(inverse >> 8)
        out[at + 2], out[at + 3] = np.uint8(z & 0xFF), np.uint8(z >> 8)
        step, zero = bf16_to_f32(f32_to_bf16(s)), bf16_to_f32(z)
        q = out[at + _HEAD : at + _HEAD + len(values)]
        for i in range(len(q)):
            v = clamp(_fma(step, value(values[i]), zero), -_128, _127)
            q[i] = np.uint8(bits(v + _WHOLE) & 0xFF)


@kernel
def _decode(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n + 4 · groups]; out : float32[n]."""
    for a in range(0, len(out), _GROUP):
        values = out[a : a + _GROUP]
        at = a // _GROUP * (_GROUP + _HEAD)
        inverse = bf16_to_f32(np.int32(data[at]) | np.int32(np.int32(data[at + 1]) << 8))
        zero = bf16_to_f32(np.int32(data[at + 2]) | np.int32(np.int32(data[at + 3]) << 8))
        offset = -(zero * inverse)
        q = data[at + _HEAD : at + _HEAD + len(values)]
        for i in range(len(q)):
            values[i] = _fma(inverse, np.float32(np.int8(q[i])), offset)


def _packed(x: Any, out: Bytes, scale: np.float32) -> None:
    _encode(x, x[: len(x) // _LINE * _LINE].reshape(-1, _LINE), out)


def _unpacked(data: Bytes, out: Floats) -> None:
    _decode(data, out)


CODEC = SbsCodec(_packed, _unpacked)
