"""Q6_K: 256 weights in 210 bytes; sixteen sub-blocks of 16 with signed 8-bit scales, 6-bit levels -32..31.

    ql 128 | qh 64 | scales int8 x 16 | d f16

Bit-exact with ggml ``quantize_row_q6_K_ref`` and ``quantize_row_q6_K_impl`` (0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import EPSILON, ONE, WIDE, ZERO, f32_to_f16, get_f16, kernel, magnitude, rint_any
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._importance import from_columns
from ._search import GIVEN, INVERSE_ROW, N_RESULTS, SCALE_ROW, SQUARE, padded
from ._search_symmetric import symmetric_runs

_TYPE = TYPES["Q6_K"]
_BLOCK, _SUB, _SUBS, _BYTES = 256, 16, 16, 210
_TOP = np.float32(32.0)
_127 = np.int32(127)


@kernel
def _scale(scale, out):  # type: ignore[no-untyped-def]
    """Write d and the sub-block scales of every block; a block without magnitude becomes all zero bytes.

    scale : float32[n_blocks * 16]; out : uint8[n_blocks * 210]
    """
    for b in range(out.size // _BYTES):
        at = b * _BYTES
        peak = largest = ZERO
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            if magnitude(scale[k]) > largest:
                largest = magnitude(scale[k])
                peak = scale[k]
        if largest < EPSILON:
            for i in range(at, at + _BYTES):
                out[i] = np.uint8(0)
            continue
        inverse = np.float32(-128.0) / peak
        half = f32_to_f16(ONE / inverse)
        out[at + 208] = np.uint8(half & 0xFF)
        out[at + 209] = np.uint8(half >> 8)
        for k in range(_SUBS):
            level = rint_any(inverse * scale[b * _SUBS + k])
            level = level if level < _127 else _127
            out[at + 192 + k] = np.uint8(level & 0xFF)


@kernel(vector_bits=WIDE)
def _levels(x, levels, scale, inverse, out):  # type: ignore[no-untyped-def]
    """Levels plus 32 for the scales as they were packed; a sub-block of step 0 keeps those of its search.

    x : float32[n_subs, 16]; levels : uint8[n_subs, 16]; scale, inverse : float32[n_subs] of the search;
    out : uint8[n_blocks * 210]
    """
    for b in range(out.size // _BYTES):
        at = b * _BYTES
        d = get_f16(out, at + 208)
        empty = True  # the reference leaves a block without magnitude as zero bytes, levels included
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            empty &= not magnitude(scale[k]) >= EPSILON  # NaN counts as none
        for k in range(_SUBS):
            sub = b * _SUBS + k
            step = d * np.float32(np.int8(out[at + 192 + k]))
            factor, divisor = (inverse[sub], ONE) if step == ZERO else (ONE, step)
            dead = empty | ((step == ZERO) & (inverse[sub] == ZERO))
            values, row = x[sub], levels[sub]
            for i in range(len(values)):  # always 16: a loop of known length would be unrolled instead of vectorized
                level = rint_any(factor * (values[i] / divisor))
                level = level if level > -32 else np.int32(-32)
                level = level if level < 31 else np.int32(31)
                level = np.int32(0) if dead else np.int32(level + 32)
                row[i] = np.uint8(level)


@kernel
def _pack(levels, out):  # type: ignore[no-untyped-def]
    """levels : uint8[n_blocks * 256], 0..63; out : uint8[n_blocks * 210], its ``ql`` and ``qh`` are written."""
    two, four, six, low = np.uint8(2), np.uint8(4), np.uint8(6), np.uint8(15)
    for b in range(levels.size // _BLOCK):
        for half in range(2):
            start, ql, qh = b * _BLOCK + 128 * half, b * _BYTES + 64 * half, b * _BYTES + 128 + 32 * half
            for l in range(32):
                q0, q1 = levels[start + l], levels[start + 32 + l]
                q2, q3 = levels[start + 64 + l], levels[start + 96 + l]
                out[ql + l] = (q0 & low) | (q2 << four)
                out[ql + 32 + l] = (q1 & low) | (q3 << four)
                out[qh + l] = (q0 >> four) | (q1 >> four << two) | (q2 >> four << four) | (q3 >> four << six)


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 210]; out : float32[n_blocks * 256] = (d · scale) · (level − 32)."""
    low, three = np.uint8(15), np.uint8(3)
    for b in range(out.size // _BLOCK):
        at = b * _BYTES
        d = get_f16(data, at + 208)
        for quarter in range(8):
            half, part = quarter // 4, quarter % 4
            ql = at + 64 * half + 32 * (part % 2)
            qh = at + 128 + 32 * half
            shift, pair = np.uint8(4 * (part // 2)), np.uint8(2 * part)
            for sixteen in range(2):
                step = d * np.float32(np.int8(data[at + 192 + 2 * quarter + sixteen]))
                for l in range(16 * sixteen, 16 * sixteen + 16):
                    q = ((data[ql + l] >> shift) & low) | (((data[qh + l] >> pair) & three) << np.uint8(4))
                    out[b * _BLOCK + 32 * quarter + l] = step * np.float32(np.int32(q) - 32)


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    x, flat = x.reshape(-1), out.reshape(-1)
    n_subs = x.size // _SUB
    w = np.empty_like(x)
    found = np.empty((N_RESULTS, padded(n_subs)), np.float32)
    if weights is None:
        symmetric_runs(x, w, SQUARE, found, _SUB, _TOP)
    else:
        from_columns(x, w, weights)
        symmetric_runs(x, w, GIVEN, found, _SUB, _TOP)
    scale, inverse = found[SCALE_ROW, :n_subs], found[INVERSE_ROW, :n_subs]
    _scale(scale, flat)
    levels = w.view(np.uint8)[: x.size]  # the weights are done with
    _levels(x.reshape(-1, _SUB), levels.reshape(-1, _SUB), scale, inverse, flat)
    _pack(levels, flat)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1), out.reshape(-1))


CODEC = Codec(_TYPE, _encode, _decode)
