"""The compiled loop of rows that go through a matrix."""

from __future__ import annotations

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
    for at in range(0, out.shape[1], _STEP):
        for i in range(len(out)):
            sums = out[i, at : at + _STEP]
            for j in range(len(sums)):
                sums[j] = ZERO
            for k in range(len(matrix)):
                a, row = x[i, k], matrix[k, at : at + _STEP]
                for j in range(len(sums)):
                    sums[j] = fma(a, row[j], sums[j])  # type: ignore[call-arg]
            added = bias[at : at + _STEP]
            for j in range(len(sums)):
                sums[j] += added[j]
