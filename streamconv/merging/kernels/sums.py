"""Sums over a block in float64: 16 partial sums side by side, added up in order.

The products of two float32 are exact in float64, so only the additions round.
"""

from __future__ import annotations

import numpy as np

from ...quant.lanes import inline, kernel

LANES = 16


@inline
def dot(a, b, sums):  # type: ignore[no-untyped-def]
    """The dot product of float32[n] ``a`` and ``b`` in float64; ``sums`` float64[LANES] is scratch."""
    whole = len(a) - len(a) % LANES
    sums[:] = 0.0
    for start in range(0, whole, LANES):
        p, q = a[start : start + LANES], b[start : start + LANES]
        for lane in range(len(p)):
            sums[lane] += np.float64(p[lane]) * np.float64(q[lane])
    total = 0.0
    for lane in range(LANES):
        total += sums[lane]
    for k in range(whole, len(a)):
        total += np.float64(a[k]) * np.float64(b[k])
    return total


@kernel
def gram(x, out):  # type: ignore[no-untyped-def]
    """Dot products of all pairs of inputs.

    x : float32[n_inputs, n]
    out : float64[n_inputs * (n_inputs + 1) / 2], the pairs (0, 0), (0, 1), …, (1, 1), …
    """
    sums = np.empty(LANES, np.float64)
    at = 0
    for i in range(len(x)):
        for j in range(i, len(x)):
            a, b = x[i], x[j]
            out[at] = dot(a, b, sums)
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
