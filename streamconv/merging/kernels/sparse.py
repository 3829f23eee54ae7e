"""Task vectors: differences to a base, made sparse, put to a vote and added to the base again."""

from __future__ import annotations

import numpy as np

from ...quant.lanes import ONE, ZERO, kernel, magnitude

_STEP = 1024


@kernel
def combine(d, weights, scales, base, vote, normalize, factor, out):  # type: ignore[no-untyped-def]
    """Add sparse task vectors up: ``out = base + factor · Σ' q_i / Σ' w_i`` with ``q_i = w_i s_i d_i``.

    Without a vote the sums run over all i. With it, over those whose ``q_i`` has the sign of ``Σ q_i`` (+ for 0).
    The division takes place if ``normalize``; a divisor of 0 (without a vote: below 1e-8) counts as 1.

    d : float32[n_inputs, n], overwritten
    weights, scales : float32[n_inputs]
    base : float32[n]
    factor : float32
    out : float32[n]
    """
    plain = ZERO
    for i in range(len(weights)):
        plain += weights[i]
    plain = ONE if abs(plain) < np.float32(1e-8) else plain
    total, divisor = np.empty(_STEP, np.float32), np.empty(_STEP, np.float32)
    for at in range(0, len(out), _STEP):
        y, b = out[at : at + _STEP], base[at : at + _STEP]
        t, v = total[: len(y)], divisor[: len(y)]
        t[:] = ZERO
        for i in range(len(d)):
            q, w, s = d[i, at : at + _STEP], weights[i], scales[i]
            for k in range(len(t)):
                q[k] = w * (s * q[k])
                t[k] += q[k]
        v[:] = ZERO if vote else plain
        if vote:
            y[:] = t
            t[:] = ZERO
            for i in range(len(d)):
                q, w = d[i, at : at + _STEP], weights[i]
                for k in range(len(t)):
                    agrees = (q[k] > ZERO) if y[k] >= ZERO else (q[k] < ZERO)
                    t[k] += q[k] if agrees else ZERO
                    v[k] += w if agrees else ZERO
        if normalize:
            for k in range(len(t)):
                t[k] /= v[k] if v[k] != ZERO else ONE
        for k in range(len(t)):
            y[k] = b[k] + t[k] * factor


@kernel
def absolute_sum(x, out):  # type: ignore[no-untyped-def]
    """Add up |x| in float64, 16 sums side by side.

    x : float32[n]
    out : float64[1]
    """
    sums = np.zeros(16, np.float64)
    whole = len(x) - len(x) % 16
    for start in range(0, whole, 16):
        part = x[start : start + 16]
        for lane in range(len(part)):
            sums[lane] += np.float64(magnitude(part[lane]))
    total = 0.0
    for lane in range(16):
        total += sums[lane]
    for k in range(whole, len(x)):
        total += np.float64(magnitude(x[k]))
    out[0] = total
