"""The compiled loop of rows that go through a matrix."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ZERO, fma, kernel

#: columns done together; their sums and the matrix's part stay near the core
_STEP = 512


@kernel
def project(x, matrix, bias, out):  # type: ignore[no-untyped-def]
    """``out = x · matrix + bias``, each element a sum in ascending order of fused multiply-adds, to which the bias is added.

    x      : float32[n_rows, n_inner]
    matrix : float32[n_inner, n_cols], C order
    bias   : float32[n_cols]
    out    : float32[n_rows, n_cols]
    """
    n_inner = len(matrix)
    whole = n_inner - n_inner % 4
    scratch = np.empty(_STEP, np.float32)
    for at in range(0, out.shape[1], _STEP):
        for i in range(len(out)):
            row = out[i, at : at + _STEP]
            sums = scratch[: len(row)]
            sums[:] = ZERO
            for k in range(0, whole, 4):
                a, b, c, d = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
                p = matrix[k, at : at + _STEP]
                q = matrix[k + 1, at : at + _STEP]
                r = matrix[k + 2, at : at + _STEP]
                s = matrix[k + 3, at : at + _STEP]
                for j in range(len(sums)):
                    sums[j] = fma(d, s[j], fma(c, r[j], fma(b, q[j], fma(a, p[j], sums[j]))))  # type: ignore[call-arg]
            for k in range(whole, n_inner):
                a, p = x[i, k], matrix[k, at : at + _STEP]
                for j in range(len(sums)):
                    sums[j] = fma(a, p[j], sums[j])  # type: ignore[call-arg]
            added = bias[at : at + _STEP]
            for j in range(len(row)):
                row[j] = sums[j] + added[j]
