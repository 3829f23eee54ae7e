"""Q2_K: 256 weights in 84 bytes; sixteen sub-blocks of 16 with 4-bit scales and minima, 2-bit levels.

    scales 16 (low nibble scale, high nibble minimum) | qs 64 | d f16 | dmin f16

x ≈ (d · scale) · level − (dmin · minimum). For qs see ``_two_bits``.

Bit-exact with ggml ``quantize_row_q2_K_ref`` and ``quantize_row_q2_K_impl`` (0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, WIDE, ZERO, clamp, get_f16, kernel, put_f16, rint_any
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._importance import scaled_columns
from ._search import (
    GIVEN,
    INVERSE_ROW,
    LOW_ROW,
    MAGNITUDE,
    MINIMUM_ROW,
    N_RESULTS,
    SCALE_ROW,
    SUM_W_ROW,
    affine_runs,
    padded,
)
from ._search_positive import positive_runs
from ._two_bits import BLOCK, put_two_bits, two_bits

_TYPE = TYPES["Q2_K"]
_SUB, _SUBS, _BYTES = 16, 16, 84
_QS, _D, _DMIN = 16, 80, 82
_TOP = np.float32(3.0)
_15 = np.float32(15.0)
_LOW, _HIGH = np.int32(0), np.int32(3)


@kernel
def _plain_levels(values, scales, levels):  # type: ignore[no-untyped-def]
    """Per block: scale = largest / 15, levels in units of it; a negative value gets a negative level, kept as uint8.

    values : float32[n_blocks * 16]; scales : float32[n_blocks]; levels : uint8[n_blocks * 16]
    """
    for b in range(scales.size):
        largest = ZERO
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            largest = values[k] if values[k] > largest else largest
        inverse = _15 / largest if largest > ZERO else ZERO
        scales[b] = largest / _15
        for k in range(b * _SUBS, (b + 1) * _SUBS):
            levels[k] = np.uint8(rint_any(inverse * values[k]) & 0xFF)


@kernel
def _pack_scales(out, d, s, dmin, m):  # type: ignore[no-untyped-def]
    """Write all of a block but its ``qs``.

    out : uint8[n_blocks, 84]; d, dmin : float32[n_blocks]; s, m : uint8[n_blocks * 16]
    """
    for b in range(len(out)):
        put_f16(out[b], _D, d[b])
        put_f16(out[b], _DMIN, dmin[b])
        for k in range(_SUBS):
            # no mask: the bits of a negative scale spill into the minimum, as in the reference
            out[b, k] = s[b * _SUBS + k] | (m[b * _SUBS + k] << np.uint8(4))


@kernel(vector_bits=WIDE)
def _final_levels(x, levels, out, inverse, low):  # type: ignore[no-untyped-def]
    """Levels of every weight for the scales as they were packed; a sub-block of step 0 keeps those of its search.

    x : float32[n_subs, 16]; levels : uint8[n_subs, 16]; out : uint8[n_blocks, 84]; inverse, low : float32[n_subs]
    """
    for b in range(len(out)):
        block = out[b]
        d, dmin = get_f16(block, _D), get_f16(block, _DMIN)
        for k in range(_SUBS):
            sub = b * _SUBS + k
            step = d * np.float32(block[k] & np.uint8(15))
            offset = dmin * np.float32(block[k] >> np.uint8(4))
            divisor = step
            factor = ONE
            if step == ZERO:
                divisor, factor, offset = ONE, inverse[sub], -low[sub]
            values, row = x[sub], levels[sub]
            for i in range(len(values)):  # always 16: a loop of known length would be unrolled instead of vectorized
                row[i] = np.uint8(clamp(rint_any(factor * ((values[i] + offset) / divisor)), _LOW, _HIGH))


@kernel
def _dequantize(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks, 84]; out : float32[n_blocks, 256] = (d · scale) · level − dmin · minimum."""
    for b in range(len(out)):
        block = data[b]
        d, dmin = get_f16(block, _D), get_f16(block, _DMIN)
        for k in range(_SUBS):
            step = d * np.float32(block[k] & np.uint8(15))
            minimum = dmin * np.float32(block[k] >> np.uint8(4))
            qs, shift = two_bits(block, _QS, k)
            values = out[b, _SUB * k :]
            for i in range(_SUB):
                values[i] = step * np.float32((qs[i] >> shift) & np.uint8(3)) - minimum


def _encode(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    x, blocks = x.reshape(-1), out.reshape(-1, _BYTES)
    n_subs = x.size // _SUB
    w = np.empty_like(x)
    found = np.empty((N_RESULTS, padded(n_subs)), np.float32)
    scale, minimum, sums = found[SCALE_ROW, :n_subs], found[MINIMUM_ROW, :n_subs], found[SUM_W_ROW, :n_subs]
    d, dmin = np.empty((2, len(blocks)), np.float32)
    s, m = np.empty((2, n_subs), np.uint8)
    if weights is None:
        affine_runs(x, w, MAGNITUDE, found, _SUB, _TOP, np.float32(-0.5), np.float32(0.1), 15, True)
        _plain_levels(scale, d, s)
        _plain_levels(minimum, dmin, m)
    else:
        scaled_columns(x, w, weights, BLOCK, ONE)
        affine_runs(x, w, GIVEN, found, _SUB, _TOP, np.float32(-0.9), np.float32(0.05), 36, False)
        positive_runs(scale, sums, d, s, _SUBS, _15)
        positive_runs(minimum, sums, dmin, m, _SUBS, _15)
    _pack_scales(blocks, d, s, dmin, m)
    levels = w.view(np.uint8)[: x.size]  # the weights are done with
    _final_levels(
        x.reshape(-1, _SUB), levels.reshape(-1, _SUB), blocks, found[INVERSE_ROW, :n_subs], found[LOW_ROW, :n_subs]
    )
    put_two_bits(levels.reshape(-1, BLOCK), blocks, _QS)


def _decode(data: Bytes, out: Floats) -> None:
    _dequantize(data.reshape(-1, _BYTES), out.reshape(-1, BLOCK))


CODEC = Codec(_TYPE, _encode, _decode)
