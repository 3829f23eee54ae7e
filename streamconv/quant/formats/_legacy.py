"""What Q4_0, Q4_1, Q5_0 and Q5_1 share: blocks of 32 with one scale, or a scale and a minimum.

Bytes of a block: d f16 | m f16 (Q4_1, Q5_1) | fifth bits u32 (Q5_0, Q5_1) | 16 bytes, weight j low and weight j + 16 high.
Plain, the scale follows from the largest value or the range; with importance weights it is searched. Either way one number
per block is found first, for all blocks, and the levels are made and packed after.

Source: ggml-quants.c ``quantize_row_q4_0_ref`` … ``quantize_row_q5_1_impl`` (ggml 0.25.3); bit-exact.
"""

from __future__ import annotations

import numpy as np

from ...kernels.blocks import (
    SIZE,
    from_ordered,
    highest,
    highest_negated,
    highest_ordered,
    lowest_ordered,
    nearest_levels,
    truncated_levels,
)
from ...kernels.lanes import (
    ONE,
    ZERO,
    bits,
    f32_to_f16,
    from_bits,
    get_f16,
    inline,
    kernel,
    magnitude,
    put_f16,
)
from ...kernels.tiles import GROUP, bits_missing, larger, prefetch, value
from ...rows import Bytes, Floats
from ..base import Codec, Words
from ..types import TensorType
from ._importance import scaled_columns
from ._search import (
    GIVEN,
    INVERSE_ROW,
    LOW_ROW,
    MINIMUM_ROW,
    N_RESULTS,
    SCALE_ROW,
    affine_runs,
    padded,
)
from ._search_symmetric import symmetric_runs

BLOCK = SIZE
_SIGN = np.int32(-0x80000000)
_INF, _15, _31 = np.float32(np.inf), np.float32(15.0), np.float32(31.0)


@inline
def _peaks(x, peaks, positive, negative):  # type: ignore[no-untyped-def]
    """The value of largest magnitude of each block, the first of equals; +0 in an empty block.

    x : as for ``_quantize_plain``; peaks : float32[n_blocks]; positive, negative : int32[n_blocks], scratch
    """
    # What follows from the maxima comes for all blocks after: a decision in every block would cost more than the maxima.
    for b in range(len(x)):
        positive[b] = highest(x[b])
        negative[b] = highest_negated(x[b])
    ties, missing, none = np.int32(0), bits_missing(x[0, 0]), np.int32(0)
    for b in range(len(x)):
        high = positive[b] if positive[b] > none else none
        low = negative[b] if negative[b] > none else none
        largest = high if high > low else low
        peaks[b] = from_bits(np.int32(np.int32(largest << missing) | (_SIGN if low > high else none)))
        ties |= np.int32((high == low) & (high > none))
    if ties:
        for b in range(len(x)):
            if (positive[b] == negative[b]) & (positive[b] > none):
                i, largest = np.uint64(0), bits(magnitude(peaks[b]))
                while bits(magnitude(value(x[b, i]))) != largest:  # bits, as NaN equals no number
                    i += np.uint64(1)
                peaks[b] = value(x[b, i])


@inline
def _ranges(x, low, high, lowest, top):  # type: ignore[no-untyped-def]
    """Lowest and highest value of each block.

    x : as for ``_quantize_plain``; low, high : float32[n_blocks]; lowest, top : int32[n_blocks], scratch
    """
    for b in range(len(x)):
        lowest[b] = lowest_ordered(x[b])
        top[b] = highest_ordered(x[b])
    zeros, missing = False, bits_missing(x[0, 0])
    for b in range(len(x)):
        low[b], high[b] = from_ordered(lowest[b], missing), from_ordered(top[b], missing)
        zeros |= low[b] == ZERO
    if zeros:
        for b in range(len(x)):
            if low[b] == ZERO:  # of two zeros the first counts
                i = np.uint64(0)
                while value(x[b, i]) != ZERO:
                    i += np.uint64(1)
                low[b] = value(x[b, i])


@inline
def _scales(top, low, divisor, half, factor, offset, head):  # type: ignore[no-untyped-def]
    """d = (top − low) / divisor: its reciprocal, what to add before truncating, and the float16 numbers of the block.

    top, low, factor, offset : float32[n_blocks]; divisor, half : float32; head : uint16[2, n_blocks], the bits of d and low.
    Where the reciprocal of a denormal d is infinite the reference's levels are 0, so factor and offset are.
    """
    for b in range(len(top)):
        d = (top[b] - low[b]) / divisor
        inverse = ONE / d if d != ZERO else ZERO
        finite = magnitude(inverse) < _INF
        factor[b] = inverse if finite else ZERO
        offset[b] = half if finite else ZERO
        head[0, b] = f32_to_f16(d)
        head[1, b] = f32_to_f16(low[b])


@inline
def _put_heads(head, out, affine):  # type: ignore[no-untyped-def]
    """Write d, and the minimum where there is one. head : uint16[2, n_blocks]; out : uint8[n_blocks, block_bytes]."""
    for b in range(len(out)):
        out[b, 0] = np.uint8(head[0, b] & 0xFF)
        out[b, 1] = np.uint8(head[0, b] >> 8)
        if affine:
            out[b, 2] = np.uint8(head[1, b] & 0xFF)
            out[b, 3] = np.uint8(head[1, b] >> 8)


@kernel
def _quantize_plain(x, out, divisor, half, affine, five_bits):  # type: ignore[no-untyped-def]
    """Encode all blocks without importance, a few at a time; return the largest magnitude.

    x : float32[n_blocks, 32], or bfloat16 as uint16; out : uint8[n_blocks, block_bytes]; divisor, half : float32;
    affine : blocks have a minimum; five_bits : of every level, not four
    """
    top, low = np.zeros(GROUP, np.float32), np.zeros(GROUP, np.float32)
    factor, offset = np.empty(GROUP, np.float32), np.empty(GROUP, np.float32)
    positive, negative = np.empty(GROUP, np.int32), np.empty(GROUP, np.int32)
    head = np.empty((2, GROUP), np.uint16)
    start, cap = out.shape[1] - 16, _31 if five_bits else _15
    found = ZERO
    for a in range(0, len(x), GROUP):
        values, blocks = x[a : a + GROUP], out[a : a + GROUP]
        n = len(values)
        if affine:
            _ranges(values, low, top, negative, positive)
            found = larger(found, low[:n])
        else:
            _peaks(values, top, positive, negative)
        found = larger(found, top[:n])
        _scales(top[:n], low, divisor, half, factor, offset, head)
        for b in range(n):
            prefetch(
                x, a + b + GROUP
            )  # what comes after this group: its largest values are looked for too fast to wait then
            truncated_levels(values[b], low[b], factor[b], offset[b], cap, five_bits, blocks[b], start)
        _put_heads(head, blocks, affine)
    return found


@kernel
def _pack_searched(x, out, scale, minimum, inverse, low, bottom, top, affine, five_bits):  # type: ignore[no-untyped-def]
    """level = clamp(rint(inverse · (x − low)), bottom, top) − bottom; 0 in a run without magnitude, whose inverse is 0.

    x, out as above; scale, minimum, inverse, low : float32[n_blocks]; bottom, top : int32
    """
    start = out.shape[1] - 16
    for b in range(len(x)):
        put_f16(out[b], 0, scale[b])
        if affine:
            put_f16(out[b], 2, -minimum[b])
        base, highest_level = low[b] if affine else ZERO, top if inverse[b] != ZERO else bottom
        nearest_levels(x[b], base, inverse[b], bottom, highest_level, five_bits, out[b], start)


@kernel
def _dequantize(data, out, affine, five_bits):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, block_bytes]; out : float32[n_blocks, 32] = (level − offset) · d, or level · d + m.

    affine, five_bits : as of ``_quantize_plain``
    """
    head = 4 if affine else 2
    offset = np.int32(0 if affine else (16 if five_bits else 8))
    qs = head + (4 if five_bits else 0)
    for b in range(len(out)):
        block, values = data[b], out[b]
        d = get_f16(block, 0)
        m = get_f16(block, 2) if affine else ZERO
        for j in range(16):
            low, high = np.int32(block[qs + j] & 15), np.int32(block[qs + j] >> 4)
            if five_bits:
                low |= ((np.int32(block[head + j // 8]) >> (j % 8)) & 1) << 4
                high |= ((np.int32(block[head + 2 + j // 8]) >> (j % 8)) & 1) << 4
            a = np.float32(low - offset) * d
            c = np.float32(high - offset) * d
            values[j] = a + m if affine else a
            values[16 + j] = c + m if affine else c


def codec(tensor_type: TensorType, *, affine: bool, five_bits: bool) -> Codec:
    """The codec of one of the four formats."""
    size = tensor_type.block_bytes
    n_max = 31 if five_bits else 15
    half = (n_max + 1) // 2

    divisor, rounding = np.float32(n_max if affine else -half), np.float32(0.5 if affine else half + 0.5)

    def encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
        values, blocks = x.reshape(-1, BLOCK), out.reshape(-1, size)
        if weights is not None:
            _searched(values, blocks, weights, x.shape[1])
        else:
            _quantize_plain(values, blocks, divisor, rounding, affine, five_bits)

    def encode_bf16(words: Words, out: Bytes) -> float:
        blocks = out.reshape(-1, size)
        return float(_quantize_plain(words.reshape(-1, BLOCK), blocks, divisor, rounding, affine, five_bits))

    def _searched(x: Floats, out: Bytes, weights: Floats, n_cols: int) -> None:
        flat = x.reshape(-1)
        w = np.empty_like(flat)
        found = np.empty((N_RESULTS, padded(len(x))), np.float32)
        scaled_columns(flat, w, weights, n_cols, ONE)
        if affine:
            affine_runs(flat, w, GIVEN, found, BLOCK, np.float32(n_max), np.float32(-0.9), np.float32(0.05), 36, False)
        else:
            symmetric_runs(flat, w, GIVEN, found, BLOCK, np.float32(half))
        row = found[:, : len(x)]
        numbers = row[SCALE_ROW], row[MINIMUM_ROW], row[INVERSE_ROW], row[LOW_ROW]
        bottom, highest = (0, n_max) if affine else (-half, half - 1)
        _pack_searched(x, out, *numbers, np.int32(bottom), np.int32(highest), affine, five_bits)

    def decode(data: Bytes, out: Floats) -> None:
        _dequantize(data.reshape(-1, size), out.reshape(-1, BLOCK), affine, five_bits)

    return Codec(tensor_type, encode, decode, quantize_bf16=encode_bf16)
