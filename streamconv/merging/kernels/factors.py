"""Compiled linear algebra whose every sum runs in one fixed order.

A linear algebra library would be faster, but its results depend on processor and threads. The factors of a matrix are written
by several workers and perhaps by several runs on several machines; they fit together only if all find the same numbers.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import kernel
from .sums import LANES, dot

#: rows of a factor that stay in the first-level cache
_BLOCK = 16
#: what is left of a vector, by which it counts as a combination of the others
_NOTHING = 1e-9


@kernel
def add_products(left, right, out):  # type: ignore[no-untyped-def]
    """``out += left · right`` in float32, eight terms at a time, in ascending order.

    left  : float32[n_rows, n], C order
    right : float32[n, n_cols], C order
    out   : float32[n_rows, n_cols], C order
    """
    for start in range(0, len(right), _BLOCK):
        rows = right[start : start + _BLOCK]
        whole = len(rows) - len(rows) % 8
        for i in range(len(out)):
            total, x = out[i], left[i, start : start + _BLOCK]
            for j in range(0, whole, 8):
                a, b, c, d = x[j], x[j + 1], x[j + 2], x[j + 3]
                e, f, g, h = x[j + 4], x[j + 5], x[j + 6], x[j + 7]
                p, q, r, s = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
                t, u, v, w = rows[j + 4], rows[j + 5], rows[j + 6], rows[j + 7]
                for k in range(len(total)):
                    total[k] += ((a * p[k] + b * q[k]) + (c * r[k] + d * s[k])) + (
                        (e * t[k] + f * u[k]) + (g * v[k] + h * w[k])
                    )
            for j in range(whole, len(rows)):
                a, p = x[j], rows[j]
                for k in range(len(total)):
                    total[k] += a * p[k]


@kernel
def inner_products(a, b, first, last, out):  # type: ignore[no-untyped-def]
    """``out[i, j] = Σ a[i, k] b[j, k]`` in float64 for rows ``first`` … ``last - 1`` of ``a``.

    a, b : float64[n, length], C order
    first, last : int64
    out  : float64[n, n]
    """
    sums = np.empty(LANES, np.float64)
    for i in range(first, last):
        for j in range(len(b)):
            out[i, j] = dot(a[i], b[j], sums)


@kernel
def make_orthonormal(a):  # type: ignore[no-untyped-def]
    """Make the rows orthonormal, in place; one that is a combination of those before it becomes zero.

    Source: the modified Gram-Schmidt process, twice for every row.

    a : float64[n, length], C order
    """
    sums = np.empty(LANES, np.float64)
    for i in range(len(a)):
        x = a[i]
        size = 0.0
        for k in range(len(x)):
            size = max(size, abs(x[k]))
        if size == 0.0:
            continue
        for k in range(len(x)):
            x[k] /= size
        length = np.sqrt(dot(x, x, sums))
        for k in range(len(x)):
            x[k] /= length
        for _ in range(2):
            for j in range(i):
                y = a[j]
                part = dot(x, y, sums)
                for k in range(len(x)):
                    x[k] -= part * y[k]
        length = np.sqrt(dot(x, x, sums))
        if length <= _NOTHING:
            x[:] = 0.0
        else:
            for k in range(len(x)):
                x[k] /= length


@kernel
def make_tridiagonal(a, z, diagonal, beside):  # type: ignore[no-untyped-def]
    """Reduce a symmetric matrix to a tridiagonal one by Householder reflections.

    a        : float64[n, n], C order, symmetric; destroyed
    z        : float64[n, n], C order, the identity; its rows become the transformation: z · a · zᵀ is tridiagonal
    diagonal : float64[n]
    beside   : float64[n]; element ``i`` stands between ``i`` and ``i + 1``, the last is 0
    """
    n = len(a)
    v, w = np.empty(n, np.float64), np.empty(n, np.float64)
    for c in range(n - 2):
        size = 0.0
        for k in range(c + 1, n):
            size = max(size, abs(a[k, c]))
        beside[c] = a[c + 1, c]
        rest = 0.0
        for k in range(c + 2, n):
            rest = max(rest, abs(a[k, c]))
        if rest == 0.0:
            continue
        length = 0.0
        for k in range(c + 1, n):
            v[k] = a[k, c] / size
            length += v[k] * v[k]
        length = np.sqrt(length)
        if v[c + 1] > 0.0:
            length = -length
        beside[c] = length * size
        v[c + 1] -= length
        square = 0.0
        for k in range(c + 1, n):
            square += v[k] * v[k]
        scale = np.sqrt(2.0 / square)
        for k in range(c + 1, n):
            v[k] *= scale  # the reflection is 1 - v vᵀ
        part, out = v[c + 1 :], w[c + 1 :]
        out[:] = 0.0
        for i in range(c + 1, n):  # a · v, by columns, which are rows
            row, factor = a[i, c + 1 :], v[i]
            for k in range(len(out)):
                out[k] += factor * row[k]
        half = 0.0
        for k in range(len(out)):
            half += part[k] * out[k]
        half *= 0.5
        for k in range(len(out)):
            out[k] -= half * part[k]
        for i in range(c + 1, n):
            row, p, q = a[i, c + 1 :], v[i], w[i]
            for k in range(len(row)):
                row[k] -= p * out[k] + q * part[k]
        total = w
        total[:] = 0.0
        for i in range(c + 1, n):
            row, factor = z[i], v[i]
            for k in range(n):
                total[k] += factor * row[k]
        for i in range(c + 1, n):
            row, factor = z[i], v[i]
            for k in range(n):
                row[k] -= factor * total[k]
    if n > 1:
        beside[n - 2] = a[n - 1, n - 2]
    beside[n - 1] = 0.0
    for k in range(n):
        diagonal[k] = a[k, k]


@kernel
def make_diagonal(diagonal, beside, z):  # type: ignore[no-untyped-def]
    """Eigenvalues and eigenvectors of a symmetric tridiagonal matrix by the implicit QL algorithm.

    Source: Bowdler, Martin, Reinsch, Wilkinson, The QR and QL algorithms for symmetric matrices, 1968.

    diagonal : float64[n]; becomes the eigenvalues, in no order
    beside   : float64[n], as of ``make_tridiagonal``; destroyed
    z        : float64[n, n], C order, the transformation so far; its rows become the eigenvectors
    """
    n = len(diagonal)
    for first in range(n):
        for _ in range(60):
            last = first
            while last < n - 1:
                near = abs(diagonal[last]) + abs(diagonal[last + 1])
                if abs(beside[last]) <= 2.0**-52 * near:
                    break
                last += 1
            if last == first:
                break
            g = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first])
            r = np.sqrt(g * g + 1.0)
            g = diagonal[last] - diagonal[first] + beside[first] / (g + (r if g >= 0.0 else -r))
            s, c, p = 1.0, 1.0, 0.0
            whole = True
            for i in range(last - 1, first - 1, -1):
                f, b = s * beside[i], c * beside[i]
                r = np.sqrt(f * f + g * g)
                beside[i + 1] = r
                if r == 0.0:
                    diagonal[i + 1] -= p
                    beside[last] = 0.0
                    whole = False
                    break
                s, c = f / r, g / r
                g = diagonal[i + 1] - p
                r = (diagonal[i] - g) * s + 2.0 * c * b
                p = s * r
                diagonal[i + 1] = g + p
                g = c * r - b
                x, y = z[i], z[i + 1]
                for k in range(n):
                    f = y[k]
                    y[k] = s * x[k] + c * f
                    x[k] = c * x[k] - s * f
            if whole:
                diagonal[first] -= p
                beside[first] = g
                beside[last] = 0.0
