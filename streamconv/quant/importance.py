"""How much each weight's error counts in a search, from an importance matrix.

All fill ``w``, float32[n], for ``x``, float32[n], whole blocks of rows laid end to end.
"""

from __future__ import annotations

import numpy as np

from .lanes import ZERO, kernel


@kernel
def from_columns(x, w, importance):  # type: ignore[no-untyped-def]
    """w = importance of the column; importance : float32[n_cols]."""
    n_cols = importance.size
    for row in range(x.size // n_cols):
        for i in range(n_cols):
            w[row * n_cols + i] = importance[i]


@kernel
def scaled_columns(x, w, importance, n, factor):  # type: ignore[no-untyped-def]
    """w = importance · sqrt(sigma² + x²), sigma² = factor · Σ x² / n over each block of ``n``, summed in order.

    importance : float32[n_cols]; factor : float32
    """
    sums = np.empty(8, np.float32)
    blocks = x.size // n
    per_row = importance.size // n
    for base in range(0, blocks, 8):
        count = min(8, blocks - base)
        for b in range(8):
            sums[b] = ZERO
        for i in range(n):
            for b in range(count):
                v = x[(base + b) * n + i]
                sums[b] += v * v
        for b in range(count):
            sigma2 = factor * sums[b] / np.float32(n)
            column = (base + b) % per_row * n
            start = (base + b) * n
            for i in range(n):
                v = x[start + i]
                w[start + i] = importance[column + i] * np.sqrt(sigma2 + v * v)
