"""Q3_K: 256 weights in 110 bytes; sixteen sub-blocks of 16 with signed 6-bit scales, 3-bit levels -4..3.

    hmask 32 | qs 64 | scales 12 | d f16

Levels are stored plus 4: their low two bits in qs as in Q2_K, the third of weight 32 k + l as bit k of hmask byte l. Scales
are stored plus 32: the low four bits of scale k < 8 and of scale k + 8 share byte k, the high two of scale k stand in byte
8 + k % 4 from bit 2 (k // 4) on. x ≈ (d · scale) · level.

Bit-exact with ggml ``quantize_row_q3_K_ref`` and ``quantize_row_q3_K_impl`` (0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, ONE, WIDE, ZERO, clamp, get_f16, inline, kernel, magnitude, put_f16, rint_any
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._importance import scaled_columns
from ._q3_search import SUB, moved_runs
from ._search import GIVEN, INVERSE_ROW, N_RESULTS, SCALE_ROW, SUM_W_ROW, padded
from ._search_symmetric import symmetric_runs
from ._two_bits import BLOCK, put_two_bits, two_bits

_TYPE = TYPES["Q3_K"]
_SUBS, _BYTES = 16, 110
_QS, _SCALES, _D = 32, 96, 108
_TOP, _SCALE_TOP = np.float32(4.0), np.float32(32.0)
_LOW, _HIGH = np.int32(-4), np.int32(3)


@kernel
def _plain_scales(values, d, scales):  # type: ignore[no-untyped-def]
    """Per block: d = -largest / 32 and the scales in units of it, plus 32; a block without any gets zeros.

    values : float32[n_blocks * 16]; d : float32[n_blocks]; scales : uint8[n_blocks * 16]
    """
    for b in range(d.size):
        peak = largest = ZERO
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            if magnitude(values[k]) > largest:
                largest = magnitude(values[k])
                peak = values[k]
        inverse = -_SCALE_TOP / peak if peak != ZERO else ZERO
        d[b] = ONE / inverse if peak != ZERO else ZERO
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            # the reference keeps the low byte before it limits the range
            level = clamp(np.int32(np.int8(rint_any(inverse * values[k]))), np.int32(-32), np.int32(31))
            scales[k] = np.uint8(level + 32) if peak != ZERO else np.uint8(0)


@kernel
def _searched_scales(values, inverse, d, scales):  # type: ignore[no-untyped-def]
    """The scales as found by importance, plus 32; all 0, like d, in a block whose values are below EPSILON or NaN.

    values : float32[n_blocks * 16]; inverse, d : float32[n_blocks]; scales : uint8[n_blocks * 16]
    """
    for b in range(inverse.size):
        live = False
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            live |= magnitude(values[k]) >= EPSILON
        d[b] = d[b] if live else ZERO
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            level = clamp(rint_any(inverse[b] * values[k]), np.int32(-32), np.int32(31))
            scales[k] = np.uint8(level + 32) if live else np.uint8(0)


@kernel
def _pack_scales(out, d, scales):  # type: ignore[no-untyped-def]
    """Write ``scales`` and ``d`` of every block. out : uint8[n_blocks, 110]; d : float32[n_blocks]; scales as above."""
    two, four, six, low = np.uint8(2), np.uint8(4), np.uint8(6), np.uint8(15)
    for b in range(len(out)):
        put_f16(out[b], _D, d[b])
        packed, l = out[b, _SCALES:], scales[b * _SUBS :]
        for k in range(8):
            packed[k] = (l[k] & low) | ((l[8 + k] & low) << four)
        for k in range(4):
            low_two = (l[k] >> four) | (l[4 + k] >> four << two)
            packed[8 + k] = low_two | (l[8 + k] >> four << four) | (l[12 + k] >> four << six)


@inline
def _scale(block, k):  # type: ignore[no-untyped-def]
    """The signed 6-bit scale of sub-block ``k``, as float32."""
    low = (block[_SCALES + k % 8] >> np.uint8(4 * (k // 8))) & np.uint8(15)
    high = (block[_SCALES + 8 + k % 4] >> np.uint8(2 * (k // 4))) & np.uint8(3)
    return np.float32(np.int32(low | (high << np.uint8(4))) - np.int32(32))


@kernel(vector_bits=WIDE)
def _final_levels(x, levels, out, inverse):  # type: ignore[no-untyped-def]
    """Levels plus 4 of every weight for the scales as they were packed; a sub-block of step 0 keeps those of its search.

    x : float32[n_subs, 16]; levels : uint8[n_subs, 16]; out : uint8[n_blocks, 110]; inverse : float32[n_subs] of the search
    by importance, or float32[0] where ``levels`` holds what the search found
    """
    for b in range(len(out)):
        d = get_f16(out[b], _D)
        for k in range(_SUBS):
            sub = b * _SUBS + k
            step = d * _scale(out[b], k)
            factor, divisor, offset = ONE, step, np.int32(4)
            if step == ZERO:
                if inverse.size == 0:
                    continue
                factor, divisor = inverse[sub], ONE
                offset = np.int32(4) if inverse[sub] != ZERO else np.int32(0)
            values, row = x[sub], levels[sub]
            for i in range(len(values)):  # always 16: a loop of known length would be unrolled instead of vectorized
                level = clamp(rint_any(factor * (values[i] / divisor)), _LOW, _HIGH)
                row[i] = np.uint8(np.int32(level + offset))


@kernel
def _put_third_bits(levels, out):  # type: ignore[no-untyped-def]
    """Write ``hmask``. levels : uint8[n_blocks, 256], 0..7; out : uint8[n_blocks, 110]."""
    two = np.uint8(2)
    for b in range(len(out)):
        hmask, q = out[b], levels[b]
        for l in range(32):
            mask = np.uint8(0)
            for k in range(8):
                mask |= (q[32 * k + l] >> two) << np.uint8(k)
            hmask[l] = mask


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 110]; out : float32[n_blocks, 256] = (d · scale) · level."""
    for b in range(len(out)):
        block = data[b]
        d = get_f16(block, _D)
        for k in range(_SUBS):
            step = d * _scale(block, k)
            qs, shift = two_bits(block, _QS, k)
            hmask, bit, values = block[16 * (k % 2) :], np.uint8(k // 2), out[b, SUB * k :]
            for i in range(SUB):
                low = (qs[i] >> shift) & np.uint8(3)
                level = np.int32(low | (((hmask[i] >> bit) & np.uint8(1)) << np.uint8(2))) - np.int32(4)
                values[i] = step * np.float32(level)


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    x, blocks = x.reshape(-1), out.reshape(-1, _BYTES)
    n_blocks, n_subs = len(blocks), x.size // SUB
    scales, levels = np.empty(n_subs, np.uint8), np.empty(x.size, np.uint8)
    if weights is None:
        found, d = np.empty(n_subs, np.float32), np.empty(n_blocks, np.float32)
        moved_runs(x, found, levels)
        _plain_scales(found, d, scales)
        inverse = np.empty(0, np.float32)
    else:
        w = np.empty_like(x)
        by_sub = np.empty((N_RESULTS, padded(n_subs)), np.float32)
        by_block = np.empty((N_RESULTS, padded(n_blocks)), np.float32)
        scaled_columns(x, w, weights, BLOCK, np.float32(2.0))
        symmetric_runs(x, w, GIVEN, by_sub, SUB, _TOP)
        found, inverse = by_sub[SCALE_ROW, :n_subs], by_sub[INVERSE_ROW, :n_subs]
        symmetric_runs(found, by_sub[SUM_W_ROW, :n_subs], GIVEN, by_block, _SUBS, _SCALE_TOP)
        d = by_block[SCALE_ROW, :n_blocks]
        _searched_scales(found, by_block[INVERSE_ROW, :n_blocks], d, scales)
    _pack_scales(blocks, d, scales)
    _final_levels(x.reshape(-1, SUB), levels.reshape(-1, SUB), blocks, inverse)
    _put_third_bits(levels.reshape(-1, BLOCK), blocks)
    put_two_bits(levels.reshape(-1, BLOCK), blocks, _QS)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, BLOCK))


CODEC = Codec(_TYPE, _encode, _decode)
