"""Sums over a block in float64: 16 partial sums side by side, added up in order.

The products of two float32 are exact in float64, so only the additions round.
"""

from __future__ import annotations

import numpy as np

from ...quant.lanes import kernel

_LANES = 16


@kernel
def gram(x, out):  # type: ignore[no-untyped-def]
    """Dot products of all pairs of inputs.

    x : float32[n_inputs, n]
    out : float64[n_inputs * (n_inputs + 1) / 2], the pairs (0, 0), (0, 1), …, (1, 1), …
    """
    n = x.shape[1]
    whole = n - n % _LANES
    sums = np.empty(_LANES, np.float64)
    at = 0
    for i in range(len(x)):
        for j in range(i, len(x)):
            a, b = x[i], x[j]
            sums[:] = 0.0
            for start in range(0, whole, _LANES):
                p, q = a[start : start + _LANES], b[start : start + _LANES]
                for lane in range(len(p)):
                    sums[lane] += np.float64(p[lane]) * np.float64(q[lane])
            total = 0.0
            for lane in range(_LANES):
                total += sums[lane]
            for k in range(whole, n):
                total += np.float64(a[k]) * np.float64(b[k])
            out[at] = total
            at += 1


@kernel
def subtract(x, b):  # type: ignore[no-untyped-def]
    """Take the base from every input.

    x : float32[n_inputs, n], changed in place
    b : float32[n]
    """
    for i in range(len(x)):
        row = x[i]
        for k in range(len(b)):
            row[k] -= b[k]
