"""Compiled loops of low-rank adapters.

Every sum runs in one fixed order, whatever rows and columns are done together, so results do not depend on how a tensor is
cut, nor on a linear algebra library. Imported when the first row is read, for numba takes a while to load.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, ZERO, kernel
from .sums import LANES, dot

#: columns done together; their sums and the factor's part stay near the core
_STEP = 512


@kernel
def add_product(left, right, scale, out):  # type: ignore[no-untyped-def]
    """``out += scale · (left · right)``, each element a sum over the rank in ascending order, float32.

    left  : float32[n_rows, rank], C order
    right : float32[rank, n_cols], C order
    scale : float32
    out   : float32[n_rows, n_cols], C order
    """
    rank = left.shape[1]
    whole = rank - rank % 4
    sums = np.empty(_STEP, np.float32)
    for at in range(0, out.shape[1], _STEP):
        for i in range(len(out)):
            row = out[i, at : at + _STEP]
            total = sums[: len(row)]
            total[:] = ZERO
            for k in range(0, whole, 4):
                a, b, c, d = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
                p = right[k, at : at + _STEP]
                q = right[k + 1, at : at + _STEP]
                r = right[k + 2, at : at + _STEP]
                s = right[k + 3, at : at + _STEP]
                for j in range(len(total)):
                    total[j] = (((total[j] + a * p[j]) + b * q[j]) + c * r[j]) + d * s[j]
            for k in range(whole, rank):
                a = left[i, k]
                p = right[k, at : at + _STEP]
                for j in range(len(total)):
                    total[j] += a * p[j]
            for j in range(len(row)):
                row[j] += scale * total[j]


@kernel
def give_rows_length(lengths, x):  # type: ignore[no-untyped-def]
    """Stretch every row to the length it is given; a row of zeros stays one.

    lengths : float32[n_rows]
    x       : float32[n_rows, n_cols], C order, changed in place
    Rounding: squares are added up in float64, 16 partial sums side by side; the length is rounded to float32 once
    """
    sums = np.empty(LANES, np.float64)
    for i in range(len(x)):
        row = x[i]
        length = np.float32(np.sqrt(dot(row, row, sums)))
        factor = lengths[i] / (length if length > ZERO else ONE)
        for k in range(len(row)):
            row[k] *= factor


@kernel
def add_column_squares(x, sums):  # type: ignore[no-untyped-def]
    """Add the squares of every column, row after row.

    x    : float32[n_rows, n_cols], C order
    sums : float64[n_cols]
    """
    for i in range(len(x)):
        row = x[i]
        for k in range(len(sums)):
            sums[k] += np.float64(row[k]) * np.float64(row[k])


@kernel
def scale_columns(factors, x):  # type: ignore[no-untyped-def]
    """Multiply every column by its factor.

    factors : float32[n_cols]
    x       : float32[n_rows, n_cols], C order, changed in place
    """
    for i in range(len(x)):
        row = x[i]
        for k in range(len(factors)):
            row[k] *= factors[k]
