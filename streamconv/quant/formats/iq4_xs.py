"""IQ4_XS: 256 weights in eight sub-blocks of 32 with a 6-bit scale each; the values are those of IQ4_NL.

Block, 136 bytes: d f16 · scales_h uint16 · scales_l uint8[4] · qs uint8[128]; a sub-block's 16 bytes are laid out as in
IQ4_NL. Its scale level ls + 32 has the low four bits in nibble ``ib`` of scales_l and the high two in bits ``2·ib`` of
scales_h.
Value: d · (ls − 32) · VALUES[code]

Bit-exact with ggml 0.25.3 (``quantize_iq4_xs``), with and without importance weights. Not checked: that values are finite.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ONE, WIDE, ZERO, get_f16, inline, kernel, magnitude, put_f16, rint_any
from ...rows import Bytes, Floats
from ..base import Codec
from ..types import TYPES
from ._iq4_search import (
    INVERSE,
    REGS_SIZE,
    SCALE,
    SIGMA2,
    TILE_SIZE,
    VALUES,
    W,
    X,
    encode,
    load,
    search_scales,
    square,
    weigh,
)
from ._iq_calls import flat, quantize_with

_BYTES = 136
_SUBS = 8
_STEPS = np.float32(32)
_PER_WEIGHT = np.float32(2 / 256)


@kernel(vector_bits=WIDE)
def _quantize_blocks(x, out, weights):  # type: ignore[no-untyped-def]
    """Encode all blocks, four at a time.

    x : float32[n_blocks * 256]; out : uint8[n_blocks * 136]; weights : float32[n_cols], or empty without importance
    """
    tile = np.empty(TILE_SIZE, np.float32)
    regs = np.empty(REGS_SIZE, np.float32)
    codes = np.empty(LANES * 16, np.uint8)
    n_subs = len(x) // 32
    for start in range(0, n_subs, LANES):
        n_lanes = min(LANES, n_subs - start)
        load(tile, X, x, start, n_lanes, n_subs)
        if len(weights):
            load(tile, W, weights, start, n_lanes, len(weights) // 32)
            _sum_blocks(tile, regs)
            weigh(tile, regs)
        else:
            square(tile)
        search_scales(tile, regs)
        for lane in range(0, n_lanes, _SUBS):
            _store_scales(regs, lane, out, (start + lane) // _SUBS * _BYTES)
        encode(tile, regs, codes)
        for j in range(n_lanes):
            at = (start + j) // _SUBS * _BYTES + 8 + j % _SUBS * 16
            for i in range(16):
                out[at + i] = codes[j * 16 + i]


@inline(vector_bits=WIDE)
def _sum_blocks(tile, regs):  # type: ignore[no-untyped-def]
    """SIGMA2 of all lanes of a block = twice the mean of its squares, summed from the first to the last weight."""
    for j in range(LANES):
        regs[SIGMA2 + j] = ZERO
    for sub in range(_SUBS):
        for row in range(0, 32 * LANES, LANES):
            for lane in range(0, LANES, _SUBS):
                x = tile[X + row + lane + sub]
                regs[SIGMA2 + lane] += x * x
    for j in range(LANES):
        regs[SIGMA2 + j] = regs[SIGMA2 + j // _SUBS * _SUBS] * (_PER_WEIGHT if j % _SUBS == 0 else ONE)


@inline
def _store_scales(regs, lane, out, at):  # type: ignore[no-untyped-def]
    """Round the scales of the block that starts at ``lane``, store them from ``out[at]`` on and set INVERSE to match."""
    widest = ZERO
    for j in range(lane, lane + _SUBS):
        scale = regs[SCALE + j]
        if magnitude(scale) > magnitude(widest):
            widest = scale
    d = -widest / _STEPS
    inverse = ONE / d if d != ZERO else ZERO
    put_f16(out, at, d)
    low = np.int64(0)
    high = 0
    for sub in range(_SUBS):
        level = min(max(rint_any(inverse * regs[SCALE + lane + sub]), -32), 31)
        # the unrounded d decides the codes
        dl = d * np.float32(level)
        regs[INVERSE + lane + sub] = ONE / dl if dl != ZERO else ZERO
        low |= ((level + 32) & 15) << 4 * sub
        high |= ((level + 32) >> 4) << 2 * sub
    out[at + 2] = np.uint8(high & 255)
    out[at + 3] = np.uint8(high >> 8)
    for i in range(4):
        out[at + 4 + i] = np.uint8(low >> 8 * i & 255)


@kernel
def _dequantize_blocks(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_blocks * 136]; out : float32[n_blocks * 256], filled."""
    for sub in range(len(out) // 32):
        at = sub // _SUBS * _BYTES
        ib = sub % _SUBS
        low = data[at + 4 + ib // 2] >> 4 * (ib % 2) & 15
        high = data[at + 2 + ib // 4] >> 2 * (ib % 4) & 3
        dl = get_f16(data, at) * np.float32(np.int32(low | high << 4) - 32)
        for i in range(16):
            byte = data[at + 8 + ib * 16 + i]
            out[sub * 32 + i] = dl * VALUES[byte & 15]
            out[sub * 32 + i + 16] = dl * VALUES[byte >> 4]


def _quantize(x: Floats, out: Bytes, weights: Floats | None, compat: bool) -> None:
    quantize_with(_quantize_blocks, x, out, weights, TYPES["IQ4_XS"])


def _dequantize(data: Bytes, out: Floats) -> None:
    _dequantize_blocks(flat(data), out.reshape(-1))


CODEC = Codec(TYPES["IQ4_XS"], _quantize, _dequantize)
