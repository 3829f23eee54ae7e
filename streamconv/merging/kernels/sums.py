"""Sums over a block in float64: 16 partial sums side by side, added up in order.

The products of two float32 are exact in float64, so only the additions round.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import inline, kernel
from ...kernels.tiles import value

LANES = 16
_STEP = 1024


@inline
def dot(a, b, sums):  # type: ignore[no-untyped-def]
    """The dot product of float[n] ``a`` and ``b`` in float64; ``sums`` float64[LANES] is scratch."""
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


@inline
def total_of(x, sums):  # type: ignore[no-untyped-def]
    """The sum of float64[n] ``x``; ``sums`` float64[LANES] is scratch."""
    whole = len(x) - len(x) % LANES
    sums[:] = 0.0
    for start in range(0, whole, LANES):
        part = x[start : start + LANES]
        for lane in range(len(part)):
            sums[lane] += part[lane]
    total = 0.0
    for lane in range(LANES):
        total += sums[lane]
    for k in range(whole, len(x)):
        total += x[k]
    return total


@kernel
def gram(x, from_base, block, out):  # type: ignore[no-untyped-def]
    """Dot products of all pairs of inputs, or of their differences to the first, block by block.

    x : float32[n_inputs, n], or bfloat16 as uint16; the first is the base if ``from_base``, and no input
    block : int64, elements of a block; the last one may be shorter
    out : float64[n_blocks, n_inputs * (n_inputs + 1) / 2], the pairs (0, 0), (0, 1), …, (1, 1), …
    """
    count = len(x) - 1 if from_base else len(x)
    values, base = np.empty((count, _STEP), np.float32), np.empty(_STEP, np.float32)
    sums = np.empty((out.shape[1], LANES), np.float64)
    for number in range(len(out)):
        first = number * block
        end = min(first + block, x.shape[1])
        sums[:] = 0.0
        n = 0
        for start in range(first, end, _STEP):
            n = min(_STEP, end - start)
            if from_base:
                origin = x[0, start : start + n]
                for k in range(n):
                    base[k] = value(origin[k])
            for i in range(count):
                row = values[i, :n]
                if from_base:
                    stored = x[i + 1, start : start + n]
                    for k in range(n):
                        row[k] = value(stored[k]) - base[k]
                else:
                    stored = x[i, start : start + n]
                    for k in range(n):
                        row[k] = value(stored[k])
            whole = n - n % LANES
            if count == 2:
                _add_pair(values[0, :whole], values[1, :whole], sums[0], sums[1], sums[2])
            else:
                at = 0
                for i in range(count):
                    for j in range(i, count):
                        _add_products(values[i, :whole], values[j, :whole], sums[at])
                        at += 1
        at = 0
        for i in range(count):
            for j in range(i, count):
                total = 0.0
                for lane in range(LANES):
                    total += sums[at, lane]
                for k in range(n - n % LANES, n):
                    total += np.float64(values[i, k]) * np.float64(values[j, k])
                out[number, at] = total
                at += 1


@inline
def _add_products(a, b, sums):  # type: ignore[no-untyped-def]
    """Add the products of float32[n] ``a`` and ``b`` to float64[LANES] ``sums``; n is a multiple of LANES."""
    for start in range(0, len(a), LANES):
        p, q = a[start : start + LANES], b[start : start + LANES]
        for lane in range(len(sums)):
            sums[lane] += np.float64(p[lane]) * np.float64(q[lane])


@inline
def _add_pair(a, b, aa, ab, bb):  # type: ignore[no-untyped-def]
    """The same for all three products of two inputs."""
    for start in range(0, len(a), LANES):
        p, q = a[start : start + LANES], b[start : start + LANES]
        for lane in range(len(aa)):
            u, v = np.float64(p[lane]), np.float64(q[lane])
            aa[lane] += u * u
            ab[lane] += u * v
            bb[lane] += v * v


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
