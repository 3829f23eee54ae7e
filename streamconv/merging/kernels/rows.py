"""Dot products and weighted sums of single rows or columns."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ZERO, kernel
from .sums import LANES, dot


@kernel
def gram_of_rows(x, out):  # type: ignore[no-untyped-def]
    """Dot products of all pairs of inputs, row by row, as ``sums.gram``.

    x : float32[n_inputs, n_rows, n_cols]
    out : float64[n_rows, n_inputs * (n_inputs + 1) / 2]
    """
    sums = np.empty(LANES, np.float64)
    for row in range(x.shape[1]):
        at = 0
        for i in range(len(x)):
            for j in range(i, len(x)):
                a, b = x[i, row], x[j, row]
                out[row, at] = dot(a, b, sums)
                at += 1


@kernel
def gram_of_columns(x, out):  # type: ignore[no-untyped-def]
    """Dot products of all pairs of inputs, column by column.

    x : float32[n_inputs, n_rows, n_cols]
    out : float64[n_inputs * (n_inputs + 1) / 2, n_cols], added to
    """
    at = 0
    for i in range(len(x)):
        for j in range(i, len(x)):
            sums = out[at]
            for row in range(x.shape[1]):
                a, b = x[i, row], x[j, row]
                for k in range(len(sums)):
                    sums[k] += np.float64(a[k]) * np.float64(b[k])
            at += 1


@kernel
def mix_rows(x, weights, base, add_base, out):  # type: ignore[no-untyped-def]
    """``out[row] = Σ weights[row, i] x[i, row]``, plus the base if ``add_base``.

    x : float32[n_inputs, n_rows, n_cols]
    weights : float32[n_rows, n_inputs]
    base : float32[n_rows, n_cols]
    out : float32[n_rows, n_cols]
    """
    for row in range(len(out)):
        total = out[row]
        total[:] = ZERO
        for i in range(len(x)):
            values, weight = x[i, row], weights[row, i]
            for k in range(len(total)):
                total[k] += weight * values[k]
        if add_base:
            origin = base[row]
            for k in range(len(total)):
                total[k] = origin[k] + total[k]


@kernel
def mix_columns(x, weights, base, add_base, out):  # type: ignore[no-untyped-def]
    """``out[:, k] = Σ weights[i, k] x[i, :, k]``, plus the base if ``add_base``.

    x : float32[n_inputs, n_rows, n_cols]
    weights : float32[n_inputs, n_cols]
    base : float32[n_rows, n_cols]
    out : float32[n_rows, n_cols]
    """
    for row in range(len(out)):
        total = out[row]
        total[:] = ZERO
        for i in range(len(x)):
            values, weight = x[i, row], weights[i]
            for k in range(len(total)):
                total[k] += weight[k] * values[k]
        if add_base:
            origin = base[row]
            for k in range(len(total)):
                total[k] = origin[k] + total[k]
