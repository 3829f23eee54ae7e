"""What Q4_0, Q4_1, Q5_0 and Q5_1 share: blocks of 32 with one scale, or a scale and a minimum.

Bytes of a block: d f16 | m f16 (Q4_1, Q5_1) | fifth bits u32 (Q5_0, Q5_1) | 16 bytes, weight j low and weight j + 16 high.
Plain, the scale follows from the largest value or the range; with importance weights it is searched. Either way one number
per block is found first, for all blocks, and the levels are made and packed after.

Source: ggml-quants.c ``quantize_row_q4_0_ref`` … ``quantize_row_q5_1_impl`` (ggml 0.25.3); bit-exact.
"""

from __future__ import annotations

import numpy as np

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
    rint_any,
)
from ...kernels.tiles import GROUP, bits_missing, larger, negated_bits, signed_bits, value
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

BLOCK = 32
_SIGN = np.int32(-0x80000000)
#: bit 0 of eight bytes, and what moves these bits to the top byte of a product
_BIT_0, _GATHER = np.uint64(0x0101010101010101), np.uint64(0x0102040810204080)
_INF, _15, _31 = np.float32(np.inf), np.float32(15.0), np.float32(31.0)

# Loops over a block run to ``len(values)``, which is always 32: LLVM unrolls a loop of known length before it could
# vectorize it.


@inline
def _peaks(x, peaks, positive, negative):  # type: ignore[no-untyped-def]
    """The value of largest magnitude of each block, the first of equals; +0 in an empty block.

    x : as for ``_quantize_plain``; peaks : float32[n_blocks]; positive, negative : int32[n_blocks], scratch
    """
    # As integers the bits of non-negative floats order like the floats, and integer maxima are free to vectorize. One maximum
    # at a time, and what follows from both for all blocks after: a decision in every block would cost more than the maxima.
    for b in range(len(x)):
        values, found = x[b], signed_bits(x[b, 0])
        for i in range(len(values) // BLOCK * BLOCK):
            v = signed_bits(values[i])
            found = v if v > found else found
        positive[b] = found
    for b in range(len(x)):
        values, found = x[b], negated_bits(x[b, 0])
        for i in range(len(values) // BLOCK * BLOCK):
            v = negated_bits(values[i])
            found = v if v > found else found
        negative[b] = found
    ties, shift, none = np.int32(0), bits_missing(x[0, 0]), np.int32(0)
    for b in range(len(x)):
        high = positive[b] if positive[b] > none else none
        low = negative[b] if negative[b] > none else none
        largest = high if high > low else low
        peaks[b] = from_bits(np.int32(np.int32(largest << shift) | (_SIGN if low > high else none)))
        ties |= np.int32((high == low) & (high > none))
    if ties:
        for b in range(len(x)):
            if (positive[b] == negative[b]) & (positive[b] > none):
                i, largest = np.uint64(0), bits(magnitude(peaks[b]))
                while bits(magnitude(value(x[b, i]))) != largest:  # bits, as NaN equals no number
                    i += np.uint64(1)
                peaks[b] = value(x[b, i])


@inline
def _ordered(v):  # type: ignore[no-untyped-def]
    """An int32 that orders like the float32 of bits ``v``, with -0 below +0; its own inverse."""
    return np.int32(v ^ np.int32((v >> 31) & 0x7FFFFFFF))


@inline
def _ranges(x, low, high):  # type: ignore[no-untyped-def]
    """Lowest and highest value of each block. x : as for ``_quantize_plain``; low, high : float32[n_blocks]."""
    for b in range(len(x)):
        values = x[b]
        smallest, greatest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
        for i in range(len(values)):
            v = _ordered(bits(value(values[i])))
            smallest = v if v < smallest else smallest
            greatest = v if v > greatest else greatest
        low[b], high[b] = from_bits(_ordered(smallest)), from_bits(_ordered(greatest))
        if low[b] == ZERO:  # of two zeros the first counts
            low[b] = ONE
            for i in range(len(values)):
                v = value(values[i])
                low[b] = v if v < low[b] else low[b]


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


@inline
def _eight_bits(word):  # type: ignore[no-untyped-def]
    """Bit 0 of the eight bytes of uint64 ``word`` as one uint8, the first byte's lowest."""
    return np.uint8(np.uint64((word & _BIT_0) * _GATHER) >> np.uint64(56))


@inline
def _plain_level(v, base, factor, offset, cap):  # type: ignore[no-untyped-def]
    """min(trunc((v − base) · factor + offset), cap) as int32; 0 for NaN, which an infinite range gives."""
    level = (v - base) * factor + offset
    level = level if level > ZERO else ZERO
    return np.int32(level if level < cap else cap)


@inline
def _searched_level(v, base, factor, bottom, top):  # type: ignore[no-untyped-def]
    level = rint_any(factor * (v - base))
    level = level if level > bottom else bottom
    level = level if level < top else top
    return np.int32(level - bottom) if factor != ZERO else np.int32(0)


@inline
def _pack_four_bits(x, out, factor, low, offset, start):  # type: ignore[no-untyped-def]
    """level = min(trunc((x − low) · factor + offset), 15), into the bytes from ``start`` on.

    x : as for ``_quantize_plain``; out : uint8[n_blocks, block_bytes]; factor, low, offset : float32[n_blocks]
    """
    for b in range(len(x)):
        values, qs = x[b], out[b, start:]
        base, f, o = low[b], factor[b], offset[b]
        for j in range(len(qs)):
            # both in one int32 first: bytes are costly to shift, and to make
            first = _plain_level(value(values[j]), base, f, o, _15)
            second = _plain_level(value(values[j + 16]), base, f, o, _15)
            qs[j] = np.uint8(np.int32(first | np.int32(second << 4)) & 0xFF)


@inline
def _pack_five_bits(x, out, factor, low, offset, start):  # type: ignore[no-untyped-def]
    """level = min(trunc((x − low) · factor + offset), 31), the fifth bits before ``start``; arrays as above.

    The reference does not cap Q5_1, but none of its levels is beyond 31.
    """
    fifths = np.empty(16, np.uint8)  # of weight j in bit 0, of weight j + 16 in bit 1
    words = fifths.view(np.uint64)
    for b in range(len(x)):
        values, qs = x[b], out[b, start:]
        base, f, o = low[b], factor[b], offset[b]
        for j in range(len(qs)):
            first = _plain_level(value(values[j]), base, f, o, _31)
            second = _plain_level(value(values[j + 16]), base, f, o, _31)
            qs[j] = np.uint8(np.int32(np.int32(first & 15) | np.int32(second << 4)) & 0xFF)
            fifths[j] = np.uint8(np.int32(first >> 4) | np.int32(np.int32(second >> 4) << 1))
        for k in range(2):
            out[b, start - 4 + k] = _eight_bits(words[k])
            out[b, start - 2 + k] = _eight_bits(words[k] >> np.uint64(1))


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
    start = out.shape[1] - 16
    found = ZERO
    for a in range(0, len(x), GROUP):
        values, blocks = x[a : a + GROUP], out[a : a + GROUP]
        n = len(values)
        if affine:
            _ranges(values, low, top)
            found = larger(found, low[:n])
        else:
            _peaks(values, top, positive, negative)
        found = larger(found, top[:n])
        _scales(top[:n], low, divisor, half, factor, offset, head)
        if five_bits:
            _pack_five_bits(values, blocks, factor, low, offset, start)
        else:
            _pack_four_bits(values, blocks, factor, low, offset, start)
        _put_heads(head, blocks, affine)
    return found


@kernel
def _pack_searched(x, out, scale, minimum, inverse, low, bottom, top, affine, five_bits):  # type: ignore[no-untyped-def]
    """level = clamp(rint(inverse · (x − low)), bottom, top) − bottom; 0 in a run without magnitude, whose inverse is 0.

    x, out as above; scale, minimum, inverse, low : float32[n_blocks]; bottom, top : int32
    """
    fifths = np.empty(16, np.uint8)  # as in ``_pack_five_bits``
    words = fifths.view(np.uint64)
    start = out.shape[1] - 16
    for b in range(len(x)):
        values, block, qs, f = x[b], out[b], out[b, start:], inverse[b]
        put_f16(block, 0, scale[b])
        if affine:
            put_f16(block, 2, -minimum[b])
        base = low[b] if affine else ZERO
        if five_bits:
            for j in range(len(qs)):
                first = _searched_level(values[j], base, f, bottom, top)
                second = _searched_level(values[j + 16], base, f, bottom, top)
                qs[j] = np.uint8(np.int32(np.int32(first & 15) | np.int32(second << 4)) & 0xFF)
                fifths[j] = np.uint8(np.int32(first >> 4) | np.int32(np.int32(second >> 4) << 1))
            for k in range(2):
                block[start - 4 + k] = _eight_bits(words[k])
                block[start - 2 + k] = _eight_bits(words[k] >> np.uint64(1))
        else:
            for j in range(len(qs)):
                first = _searched_level(values[j], base, f, bottom, top)
                second = _searched_level(values[j + 16], base, f, bottom, top)
                qs[j] = np.uint8(np.int32(first | np.int32(second << 4)) & 0xFF)


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
