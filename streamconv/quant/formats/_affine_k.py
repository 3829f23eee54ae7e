"""What Q4_K and Q5_K share: eight sub-blocks of 32 weights, each with a 6-bit scale and a 6-bit minimum.

x ≈ (d · scale) · level − (dmin · minimum). A block begins with d f16, dmin f16 and 12 bytes of scales and minima.

Source: ggml-quants.c ``quantize_row_q4_K_impl``, ``quantize_row_q5_K_impl`` and their ``_ref`` twins (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels.lanes import ONE, WIDE, ZERO, get_f16, inline, kernel, put_f16, rint_any
from ...rows import Bytes, Floats
from ._importance import scaled_columns
from ._search import (
    GIVEN,
    INVERSE_ROW,
    LOW_ROW,
    MEAN_AND_MAGNITUDE,
    MINIMUM_ROW,
    N_RESULTS,
    SCALE_ROW,
    SUM_W_ROW,
    affine_runs,
    padded,
)
from ._search_positive import positive_runs

SUB = 32
SUBS = 8
BLOCK = SUB * SUBS
_63 = np.float32(63.0)


@kernel
def _plain_levels(values, scales, levels):  # type: ignore[no-untyped-def]
    """Per block: scale = largest / 63, levels in units of it, capped at 63.

    values : float32[n_blocks * 8]; scales : float32[n_blocks]; levels : uint8[n_blocks * 8]
    """
    for b in range(scales.size):
        largest = ZERO
        for k in range(b * SUBS, (b + 1) * SUBS):
            largest = values[k] if values[k] > largest else largest
        inverse = _63 / largest if largest > ZERO else ZERO
        scales[b] = largest / _63
        for k in range(b * SUBS, (b + 1) * SUBS):
            level = rint_any(inverse * values[k]) & 0xFF
            levels[k] = np.uint8(level if level < 63 else 63)


@kernel
def _pack_scales(out, block_bytes, d, s, dmin, m):  # type: ignore[no-untyped-def]
    """Write the first 16 bytes of every block.

    out : uint8[n_blocks * block_bytes]; d, dmin : float32[n_blocks]; s, m : uint8[n_blocks * 8]
    """
    for b in range(d.size):
        at = b * block_bytes
        put_f16(out, at, d[b])
        put_f16(out, at + 2, dmin[b])
        for k in range(4):
            low_s, high_s = np.int32(s[b * SUBS + k]), np.int32(s[b * SUBS + 4 + k])
            low_m, high_m = np.int32(m[b * SUBS + k]), np.int32(m[b * SUBS + 4 + k])
            out[at + 4 + k] = np.uint8((low_s | ((high_s >> 4) << 6)) & 0xFF)
            out[at + 8 + k] = np.uint8((low_m | ((high_m >> 4) << 6)) & 0xFF)
            out[at + 12 + k] = np.uint8(((high_s & 0xF) | ((high_m & 0xF) << 4)) & 0xFF)


@inline
def scale_and_min(data, at, k):  # type: ignore[no-untyped-def]
    """The 6-bit scale and minimum of sub-block ``k``, as scale + 256 · minimum."""
    if k < 4:
        return np.int32(data[at + 4 + k] & 63) + 256 * np.int32(data[at + 8 + k] & 63)
    s = np.int32(data[at + 8 + k] & 0xF) | np.int32(data[at + k] >> 6) << 4
    m = np.int32(data[at + 8 + k] >> 4) | np.int32(data[at + 4 + k] >> 6) << 4
    return s + 256 * m


@kernel(vector_bits=WIDE)
def _final_levels(x, levels, out, block_bytes, inverse, low, n_max):  # type: ignore[no-untyped-def]
    """Levels of every weight for the scales as they were packed; a sub-block of step 0 keeps those of its search.

    x : float32[n]; levels : uint8[n], filled; out : uint8[n_blocks * block_bytes] with its scales; inverse, low :
    float32[n_blocks * 8] of the search; n_max : float32
    """
    for b in range(x.size // BLOCK):
        at = b * block_bytes
        d, dmin = get_f16(out, at), get_f16(out, at + 2)
        for k in range(SUBS):
            both = scale_and_min(out, at, k)
            step = d * np.float32(both & 0xFF)
            offset = dmin * np.float32(both >> 8)
            divisor = step
            factor = ONE
            if step == ZERO:
                divisor, factor, offset = ONE, inverse[b * SUBS + k], -low[b * SUBS + k]
            start = b * BLOCK + k * SUB
            for i in range(start, start + SUB):
                level = rint_any(factor * ((x[i] + offset) / divisor))
                level = level if level > 0 else np.int32(0)
                levels[i] = np.uint8(level if level < n_max else np.int32(n_max))


def quantize(
    x: Floats,
    out: Bytes,
    weights: Floats | None,
    n_max: int,
    plain_range: tuple[float, int],
    block_bytes: int,
    cap: bool,
) -> NDArray[np.uint8]:
    """Search, quantize the scales, write the first 16 bytes of every block, and return the levels.

    Parameters
    ----------
    x : float32[n], flat, whole blocks
    out : uint8[n_blocks * block_bytes], flat
    weights : float32[n_cols] or None
    n_max : highest level
    plain_range : first offset and number of the trial scales without weights
    cap : limit weighted 6-bit levels to 63, which Q4_K of the reference does not

    Returns
    -------
    uint8[n] : the level of every weight
    """
    n_blocks = x.size // BLOCK
    n_subs = n_blocks * SUBS
    w = np.empty_like(x)
    found = np.empty((N_RESULTS, padded(n_subs)), np.float32)
    d, dmin = np.empty((2, n_blocks), np.float32)
    s, m = np.empty((2, n_subs), np.uint8)
    top = np.float32(n_max)
    if weights is None:
        first, n_step = np.float32(plain_range[0]), plain_range[1]
        affine_runs(x, w, MEAN_AND_MAGNITUDE, found, SUB, top, first, np.float32(0.1), n_step, False)
        _plain_levels(found[SCALE_ROW, :n_subs], d, s)
        _plain_levels(found[MINIMUM_ROW, :n_subs], dmin, m)
    else:
        scaled_columns(x, w, weights, BLOCK, np.float32(2.0))
        affine_runs(x, w, GIVEN, found, SUB, top, np.float32(-0.9), np.float32(0.05), 36, False)
        sums = found[SUM_W_ROW, :n_subs]
        positive_runs(found[SCALE_ROW, :n_subs], sums, d, s, SUBS, _63)
        positive_runs(found[MINIMUM_ROW, :n_subs], sums, dmin, m, SUBS, _63)
        if cap:
            np.minimum(s, 63, out=s)
            np.minimum(m, 63, out=m)
    _pack_scales(out, block_bytes, d, s, dmin, m)
    levels = w.view(np.uint8)[: x.size]  # the weights are done with
    _final_levels(x, levels, out, block_bytes, found[INVERSE_ROW, :n_subs], found[LOW_ROW, :n_subs], top)
    return levels
