"""How much each weight's error counts in a search, from an importance matrix.

All fill ``w``, float32[n], for ``x``, float32[n], whole blocks of rows laid end to end.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ZERO, inline, kernel


@kernel
def from_columns(x, w, importance):  # type: ignore[no-untyped-def]
    """w = importance of the column, whatever ``x`` is. importance : float32[n_cols]."""
    n_cols = importance.size
    for row in range(x.size // n_cols):
        for i in range(n_cols):
            w[row * n_cols + i] = importance[i]


@kernel
def scaled_columns(x, w, importance, n, factor):  # type: ignore[no-untyped-def]
    """w = importance · sqrt(sigma² + x²), sigma² = factor · Σ x² / n over each block of ``n``, summed in order.

    x, w : as above; importance : float32[n_cols]; factor : float32
    """
    blocks = x.size // n
    per_row = importance.size // n
    for base in range(0, blocks, 4):
        # four at a time: a sum in order waits for each addition, four sums do not
        second, third, fourth = min(base + 1, blocks - 1), min(base + 2, blocks - 1), min(base + 3, blocks - 1)
        sums = _sums_of_squares(x[base * n :], x[second * n :], x[third * n :], x[fourth * n :], n)
        for b in range(base, fourth + 1):
            sigma2 = factor * sums[b - base] / np.float32(n)
            column = b % per_row * n
            values, out, columns = x[b * n : (b + 1) * n], w[b * n :], importance[column:]
            for i in range(len(values)):
                v = values[i]
                out[i] = columns[i] * np.sqrt(sigma2 + v * v)


@inline
def _sums_of_squares(x0, x1, x2, x3, n):  # type: ignore[no-untyped-def]
    s0 = s1 = s2 = s3 = ZERO
    for i in range(n):
        s0 += x0[i] * x0[i]
        s1 += x1[i] * x1[i]
        s2 += x2[i] * x2[i]
        s3 += x3[i] * x3[i]
    return s0, s1, s2, s3
