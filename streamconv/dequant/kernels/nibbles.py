"""Codes of four bits, two a byte, with one scale per block of the flat tensor.

A byte is looked up as a whole: a table of 256 pairs gives both of its values in one 8-byte load, and four of these make a
vector, which is multiplied by the scale on its way to memory. That is four times as fast as looking up nibble after nibble,
and the products are the same single float32 multiplications.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import inline, kernel
from ...kernels.rounding import rounded_bf16, rounded_f16
from . import mapped
from .vectors import WIDTH, put_products

#: elements made before they are rounded, 8 KiB; a block may exceed it
_RUN = np.uint64(2048)
_ONE, _TWO, _WIDTH = np.uint64(1), np.uint64(2), np.uint64(WIDTH)


@kernel
def expand(packed, pairs, scales, block, phase, precision, out):  # type: ignore[no-untyped-def]
    """``out = code value · scale of its block``, one float32 product, then rounded to the type wanted.

    packed : uint8[n / 2]
    pairs : float32[256, 2], the two values of each byte
    scales : float32[at least the blocks touched], the first for the block in which ``out`` begins
    block : int64, elements of a block, even
    phase : int64, elements of the first block that lie before ``out``, even
    precision : int64, significant bits wanted: 8 for bfloat16, 11 for float16, 24 for float32
    out : float32[n], n even
    """
    n, at, number = np.uint64(len(out)), np.uint64(0), np.uint64(0)
    limit = np.uint64(block - phase)
    while at < n:
        start = at
        while at < min(start + _RUN, n):
            end = min(limit, n)
            _products(packed, pairs, scales[number], out, at, end)
            at, limit, number = end, limit + np.uint64(block), number + _ONE
        run = out[start:at]
        if precision == 8:
            for i in range(len(run)):
                run[i] = rounded_bf16(run[i])
        elif precision == 11:
            for i in range(len(run)):
                run[i] = rounded_f16(run[i])


@inline
def _products(packed, pairs, scale, out, start, stop):  # type: ignore[no-untyped-def]
    """Elements ``start..stop``, uint64 and even, of one block."""
    whole = (stop - start) // _WIDTH
    for k in range(whole):
        put_products(pairs, packed, scale, out, start + _WIDTH * k)
    for at in range(start + _WIDTH * whole, stop, _TWO):
        byte = packed[at // _TWO]
        out[at], out[at + _ONE] = pairs[byte, 0] * scale, pairs[byte, 1] * scale


@kernel
def nested_scales(codes, table, scales, block, phase, offset, out):  # type: ignore[no-untyped-def]
    """Scales that were quantized themselves: ``table[code] · scale + offset``, two roundings, never fused.

    codes : uint8[n]
    table : float32[256]
    scales : float32[at least the blocks touched], the first for the block in which ``codes`` begin
    block : int64, codes of a block
    phase : int64, codes of the first block that lie before
    offset : float32
    out : float32[n]
    """
    at = 0
    while at < len(codes):
        number = (phase + at) // block
        limit = min((number + 1) * block - phase, len(codes))
        scale = scales[number]
        source, target = codes[at:limit], out[at:limit]
        for i in range(len(source)):
            target[i] = table[source[i]] * scale + offset
        at = limit


@kernel
def ggml_order(blocks, scales, out):  # type: ignore[no-untyped-def]
    """MXFP4 blocks as GGUF has them: scale, then element j in the low and element j + 16 in the high half of byte j.

    blocks : uint8[n, 16], elements 2 i and 2 i + 1 in the low and high half of byte i
    scales : uint8[n]
    out : uint8[n, 17]
    """
    four, low = np.uint8(4), np.uint8(15)
    for b in range(len(out)):
        source, target = blocks[b], out[b]
        target[0] = scales[b]
        for i in range(8):
            first, second = source[i], source[i + 8]
            target[1 + 2 * i] = (first & low) | np.uint8(second << four)
            target[2 + 2 * i] = (first >> four) | (second & np.uint8(0xF0))


def warm_up() -> None:
    """Compile all kernels of this file."""
    x, scales, table = np.zeros(32, np.float32), mapped(32, dtype=np.float32), mapped(256, dtype=np.float32)
    expand(mapped(16), mapped(256, 2, dtype=np.float32), scales, 32, 0, 24, x)
    nested_scales(mapped(1), table, scales, 256, 0, np.float32(0), x)
    ggml_order(mapped(1, 16), mapped(1), np.zeros((1, 17), np.uint8))
