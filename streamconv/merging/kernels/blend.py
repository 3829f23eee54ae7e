"""Weighted sums of inputs, in the order of the inputs.

Where a sum says ``fused``, a product is added before it is rounded to float32, as the fused multiply-add of today's processors
does. It is spelled in float64, where the product is exact, so that it is the same on processors without it.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, kernel
from ...kernels.tiles import value

#: elements that go through all inputs together, so that the sum stays in the first-level cache
_STEP = 2048


@kernel
def weighted_sum(x, weights, divisor, out):  # type: ignore[no-untyped-def]
    """``out = Σ weights[i] x[i] / divisor``, fused.

    x : float32[n_inputs, n], or bfloat16 as uint16
    weights : float32[n_inputs]
    divisor : float32; 1 leaves the sum as it is
    out : float32[n]
    """
    for at in range(0, len(out), _STEP):
        total = out[at : at + _STEP]
        total[:] = np.float32(0)
        for i in range(len(x)):
            row, weight = x[i, at : at + _STEP], np.float64(weights[i])
            for k in range(len(total)):
                total[k] = np.float32(np.float64(total[k]) + weight * np.float64(value(row[k])))
        if divisor != ONE:
            for k in range(len(total)):
                total[k] /= divisor


@kernel
def mix(x, weights, out):  # type: ignore[no-untyped-def]
    """``out = Σ weights[i] x[i]``, every product rounded.

    x : float32[n_inputs, n], or bfloat16 as uint16
    weights : float32[n_inputs]
    out : float32[n]
    """
    for at in range(0, len(out), _STEP):
        total = out[at : at + _STEP]
        total[:] = np.float32(0)
        for i in range(len(x)):
            row, weight = x[i, at : at + _STEP], weights[i]
            for k in range(len(total)):
                total[k] += weight * value(row[k])


@kernel
def delta_sum(x, weights, divisor, factor, out):  # type: ignore[no-untyped-def]
    """``out = x[0] + factor · (Σ weights[i] (x[i + 1] - x[0]) / divisor)``.

    x : float32[1 + n_inputs, n], the base first, or bfloat16 as uint16
    weights : float32[n_inputs]
    divisor, factor : float32
    out : float32[n]
    """
    for at in range(0, len(out), _STEP):
        total, base = out[at : at + _STEP], x[0, at : at + _STEP]
        total[:] = np.float32(0)
        for i in range(len(weights)):
            row, weight = x[i + 1, at : at + _STEP], weights[i]
            for k in range(len(total)):
                total[k] += weight * (value(row[k]) - value(base[k]))
        for k in range(len(total)):
            total[k] = value(base[k]) + total[k] / divisor * factor
