"""Methods that decide element by element."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, ZERO, bits, kernel, magnitude

_STEP = 1024
_FLOOR = np.float32(1e-6)


@kernel
def near_swap(b, x, t, out):  # type: ignore[no-untyped-def]
    """``out = g x + (1 - g) b`` with ``g = t / max(|b - x|, 1e-6)`` limited to 0 … 1.

    b, x : float32[n]
    t : float32
    out : float32[n]
    """
    for k in range(len(out)):
        distance = magnitude(b[k] - x[k])
        g = t / (distance if distance > _FLOOR else _FLOOR)
        g = g if g > ZERO else ZERO
        g = g if g < ONE else ONE
        out[k] = g * x[k] + (ONE - g) * b[k]


@kernel
def count_changes(d, epsilon, counts):  # type: ignore[no-untyped-def]
    """Count for every model the elements it changed alone, and those that others changed too.

    d : float32[n_models, n]
    epsilon : float32; changes are larger than it
    counts : int64[n_models, 2], added to
    """
    changed = np.empty(_STEP, np.int32)
    for at in range(0, d.shape[1], _STEP):
        n = min(_STEP, d.shape[1] - at)
        c = changed[:n]
        c[:] = 0
        for i in range(len(d)):
            part = d[i, at : at + n]
            for k in range(n):
                c[k] += np.int32(1) if magnitude(part[k]) > epsilon else np.int32(0)
        for i in range(len(d)):
            part = d[i, at : at + n]
            alone = shared = 0
            for k in range(n):
                own = magnitude(part[k]) > epsilon
                alone += 1 if own and c[k] == 1 else 0
                shared += 1 if own and c[k] > 1 else 0
            counts[i, 0] += alone
            counts[i, 1] += shared


@kernel
def add_changes(d, epsilon, factors, base, out):  # type: ignore[no-untyped-def]
    """``out = base +`` the change of the only model that changed an element, times its factor, or the mean of the changes.

    d : float32[n_models, n]
    epsilon : float32; changes are larger than it
    factors : float32[n_models]
    base, out : float32[n]
    """
    changed = np.empty(_STEP, np.float32)
    for at in range(0, len(out), _STEP):
        y, b = out[at : at + _STEP], base[at : at + _STEP]
        c = changed[: len(y)]
        c[:] = ZERO
        y[:] = ZERO
        for i in range(len(d)):
            part = d[i, at : at + _STEP]
            for k in range(len(y)):
                c[k] += ONE if magnitude(part[k]) > epsilon else ZERO
        for i in range(len(d)):
            part, factor = d[i, at : at + _STEP], factors[i]
            for k in range(len(y)):
                own = factor * part[k] if c[k] == ONE else part[k] / c[k]
                y[k] += own if magnitude(part[k]) > epsilon else ZERO
        for k in range(len(y)):
            y[k] = b[k] + y[k]


@kernel
def variance_keys(d, keys):  # type: ignore[no-untyped-def]
    """Keys (see ``ranks``) of the population variance over the models, element by element, in float64.

    d : float32[n_models, n]
    keys : uint32[n]
    """
    mean, square = np.empty(_STEP, np.float64), np.empty(_STEP, np.float64)
    for at in range(0, len(keys), _STEP):
        out = keys[at : at + _STEP]
        m, s = mean[: len(out)], square[: len(out)]
        m[:] = 0.0
        s[:] = 0.0
        for i in range(len(d)):
            part = d[i, at : at + _STEP]
            for k in range(len(out)):
                m[k] += np.float64(part[k])
        for k in range(len(out)):
            m[k] /= len(d)
        for i in range(len(d)):
            part = d[i, at : at + _STEP]
            for k in range(len(out)):
                distance = np.float64(part[k]) - m[k]
                s[k] += distance * distance
        for k in range(len(out)):
            out[k] = np.uint32(bits(np.float32(s[k] / len(d))))


@kernel
def erase_minority(d, weights, base, out):  # type: ignore[no-untyped-def]
    """``out = base + Σ' w_i d_i / max(Σ' w_i, 1e-6)``, the sums over those ``d_i`` that have the sign of ``Σ d_i`` (+ for 0).

    d : float32[n_models, n]
    weights : float32[n_models]
    base, out : float32[n]
    """
    total, divisor = np.empty(_STEP, np.float32), np.empty(_STEP, np.float32)
    for at in range(0, len(out), _STEP):
        y, b = out[at : at + _STEP], base[at : at + _STEP]
        t, v = total[: len(y)], divisor[: len(y)]
        y[:] = ZERO
        t[:] = ZERO
        v[:] = ZERO
        for i in range(len(d)):
            part = d[i, at : at + _STEP]
            for k in range(len(y)):
                y[k] += part[k]
        for i in range(len(d)):
            part, w = d[i, at : at + _STEP], weights[i]
            for k in range(len(y)):
                agrees = (part[k] > ZERO) if y[k] >= ZERO else (part[k] < ZERO)
                t[k] += w * part[k] if agrees else ZERO
                v[k] += w if agrees else ZERO
        for k in range(len(y)):
            y[k] = b[k] + t[k] / (v[k] if v[k] > _FLOOR else _FLOOR)


@kernel
def take_over(b, x, importance, threshold, out):  # type: ignore[no-untyped-def]
    """``out = x`` where it is important enough, else ``b``.

    b, x, importance : float32[n]
    threshold : float32
    out : float32[n]
    """
    for k in range(len(out)):
        out[k] = b[k] + (x[k] - b[k]) if importance[k] >= threshold else b[k]
