"""Task vectors: differences to a base, made sparse, put to a vote and added to the base again."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, ZERO, bits, inline, kernel, magnitude
from ...kernels.tiles import value

_STEP = 1024
_ABS = np.int32(0x7FFFFFFF)


@kernel
def combine(x, ready, bounds, weights, scales, vote, normalize, factor, out):  # type: ignore[no-untyped-def]
    """Add sparse task vectors up: ``out = b + factor · Σ' q_i / Σ' w_i`` with ``q_i = w_i s_i d_i``.

    ``d_i`` is the difference of input i to the base ``b``, cleared where its magnitude is out of bounds. Without a vote the sums
    run over all i. With it, over those whose ``q_i`` has the sign of ``Σ q_i`` (+ for 0); NaN is never outvoted.
    The division takes place if ``normalize``; a divisor of 0 (without a vote: below 1e-8) counts as 1.

    x : float32[1 + n_inputs, n], the base first, or bfloat16 as uint16
    ready : uint8[n_inputs], not 0 where ``x`` holds ``d_i`` already
    bounds : int32[n_segments, 1 + 2 * n_inputs]: where a segment of elements ends, then for every input ``low, high``; keys (see
        ``ranks``) are kept if ``low < key <= high``
    weights, scales : float32[n_inputs]
    factor : float32
    out : float32[n]
    """
    plain = ZERO
    for i in range(len(weights)):
        plain += weights[i]
    plain = ONE if abs(plain) < np.float32(1e-8) else plain
    kept = np.empty((len(weights), _STEP), np.float32)
    base, total, divisor = np.empty(_STEP, np.float32), np.empty(_STEP, np.float32), np.empty(_STEP, np.float32)
    at = 0
    for segment in range(len(bounds)):
        end = bounds[segment, 0]
        while at < end:
            n = min(_STEP, end - at)
            y, b, t, v, origin = out[at : at + n], base[:n], total[:n], divisor[:n], x[0, at : at + n]
            for k in range(n):
                b[k] = value(origin[k])
            t[:] = ZERO
            for i in range(len(weights)):
                row, q = x[i + 1, at : at + n], kept[i, :n]
                low, high, scale, weight = bounds[segment, 2 * i + 1], bounds[segment, 2 * i + 2], scales[i], weights[i]
                if ready[i]:
                    for k in range(n):
                        q[k] = _bounded(value(row[k]), low, high) * scale * weight
                        t[k] += q[k]
                else:
                    for k in range(n):
                        q[k] = _bounded(value(row[k]) - b[k], low, high) * scale * weight
                        t[k] += q[k]
            if vote:
                _vote(kept, weights, t, v, y)
            elif normalize:
                v[:] = plain
            if normalize:
                for k in range(len(t)):
                    t[k] /= v[k] if v[k] != ZERO else ONE
            for k in range(len(t)):
                y[k] = b[k] + t[k] * factor
            at += n


@inline
def _bounded(d, low, high):  # type: ignore[no-untyped-def]
    """float32 ``d``, or 0 where it is out of bounds."""
    key = bits(d) & _ABS
    return d if (key > low) & (key <= high) else ZERO


@inline
def _vote(kept, weights, total, divisor, sign):  # type: ignore[no-untyped-def]
    """Sums of those that agree with ``total``; ``sign`` is scratch."""
    sign[:] = total
    total[:] = ZERO
    divisor[:] = ZERO
    for i in range(len(weights)):
        q, w = kept[i], weights[i]
        for k in range(len(total)):
            against = (q[k] <= ZERO) if sign[k] >= ZERO else (q[k] >= ZERO)
            total[k] += ZERO if against else q[k]
            divisor[k] += ZERO if against else w


@kernel
def keep_within(d, bounds):  # type: ignore[no-untyped-def]
    """Clear what is out of bounds.

    d : float32[n], changed in place
    bounds : int32[n_segments, 3], see ``combine``
    """
    at = 0
    for segment in range(len(bounds)):
        end, low, high = bounds[segment, 0], bounds[segment, 1], bounds[segment, 2]
        part = d[at:end]
        for k in range(len(part)):
            key = bits(part[k]) & _ABS
            part[k] = part[k] if (key > low) & (key <= high) else ZERO
        at = end


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
