"""Codes of one byte each, already unpacked, times the scale of their group.

Rows know the row of scales they take; groups are runs of ``width`` columns, or listed column by column.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import kernel
from . import mapped


@kernel
def scaled(levels, flip, zeros, scales, row_of, width, factor, out):  # type: ignore[no-untyped-def]
    """``out = ((level ^ flip) − zero) · scale · factor``, rounded after each product; the difference is exact.

    levels : uint8[n, n_cols]; ``flip`` 128 turns a signed code into an unsigned one, 128 larger
    zeros, scales : float32[n_scale_rows, n_groups]
    row_of : int64[n], the row of scales of each row
    width : int64, columns of a group; the last may be short
    factor : float32, 1 for none
    out : float32[n, n_cols]
    """
    for r in range(len(out)):
        own = row_of[r]
        at, group = 0, 0
        while at < out.shape[1]:
            end = min(at + width, out.shape[1])
            zero, scale = zeros[own, group], scales[own, group]
            source, target = levels[r, at:end], out[r, at:end]
            for i in range(len(target)):
                target[i] = (np.float32(source[i] ^ flip) - zero) * scale * factor
            at, group = end, group + 1


@kernel
def affine(levels, scales, biases, width, out):  # type: ignore[no-untyped-def]
    """``out = level · scale + bias``, rounded after each step.

    levels : uint8[n, n_cols]
    scales, biases : float32[n, n_groups]
    width : int64, columns of a group
    out : float32[n, n_cols]
    """
    for r in range(len(out)):
        at, group = 0, 0
        while at < out.shape[1]:
            end = min(at + width, out.shape[1])
            scale, bias = scales[r, group], biases[r, group]
            source, target = levels[r, at:end], out[r, at:end]
            for i in range(len(target)):
                target[i] = np.float32(source[i]) * scale + bias
            at, group = end, group + 1


@kernel
def scaled_by_column(levels, zeros, scales, group_of, out):  # type: ignore[no-untyped-def]
    """``out = (level − zero) · scale`` with a group for each column, in any order.

    levels : uint8[n, n_cols]
    zeros, scales : float32[n, n_groups]
    group_of : int32[n_cols], below n_groups
    out : float32[n, n_cols]
    """
    for r in range(len(out)):
        zero, scale = zeros[r], scales[r]
        source, target = levels[r], out[r]
        for i in range(len(target)):
            g = np.uint32(group_of[i])
            target[i] = (np.float32(source[i]) - zero[g]) * scale[g]


@kernel
def looked_up(codes, table, scales, row_of, width, out):  # type: ignore[no-untyped-def]
    """``out = table[code] · scale``.

    codes : uint8[n, n_cols]
    table : float32[256]
    scales : float32[n_scale_rows, n_groups]
    row_of, width, out : as in ``scaled``; int64[n], int64, float32[n, n_cols]
    """
    for r in range(len(out)):
        own = row_of[r]
        at, group = 0, 0
        while at < out.shape[1]:
            end = min(at + width, out.shape[1])
            scale = scales[own, group]
            source, target = codes[r, at:end], out[r, at:end]
            for i in range(len(target)):
                target[i] = table[source[i]] * scale
            at, group = end, group + 1


@kernel
def looked_up_flat(codes, table, scales, block, phase, out):  # type: ignore[no-untyped-def]
    """The same with blocks of the flat tensor, which run across rows.

    codes : uint8[n]
    table : float32[256]
    scales : float32[at least the blocks touched]
    block, phase : int64, as in ``nibbles.expand``
    out : float32[n]
    """
    at = 0
    while at < len(out):
        number = (phase + at) // block
        end = min((number + 1) * block - phase, len(out))
        scale = scales[number]
        source, target = codes[at:end], out[at:end]
        for i in range(len(target)):
            target[i] = table[source[i]] * scale
        at = end


def warm_up() -> None:
    """Compile all kernels of this file."""
    x, row_of = np.zeros((1, 1), np.float32), np.zeros(1, np.int64)
    scales, table = mapped(1, 1, dtype=np.float32), mapped(256, dtype=np.float32)
    scaled(mapped(1, 1), np.uint8(0), scales, scales, row_of, 1, np.float32(1), x)
    affine(mapped(1, 1), scales, scales, 1, x)
    scaled_by_column(mapped(1, 1), scales, scales, np.zeros(1, np.int32), x)
    looked_up(mapped(1, 1), table, scales, row_of, 1, x)
    looked_up_flat(mapped(1), table, scales[0], 1, 0, x[0])
