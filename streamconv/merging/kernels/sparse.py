"""Task vectors: differences to a base, made sparse, put to a vote and added to the base again."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import ONE, ZERO, bits, inline, kernel, magnitude
from ...kernels.tiles import value
from .random import draw
from .sums import LANES

#: elements that go through all steps together, so that they stay in the first-level cache
_STEP = 1024
_BLOCKS = _STEP // 4 + 1
_ABS = np.int32(0x7FFFFFFF)
_ALWAYS = np.uint64(1 << 32)
_NEVER = np.uint64(0)


@kernel
def combine(x, ready, bounds, chances, first, weights, scales, vote, normalize, factor, out):  # type: ignore[no-untyped-def]
    """Add sparse task vectors up: ``out = b + factor · Σ' q_i / Σ' w_i`` with ``q_i = w_i s_i d_i``.

    ``d_i`` is the difference of input i to the base ``b``, cleared where its magnitude is out of bounds or chance has it so.
    Without a vote the sums run over all i. With it, over those whose ``q_i`` has the sign of ``Σ q_i`` (+ for 0); NaN is never
    outvoted. The division takes place if ``normalize``; a divisor of 0 (without a vote: below 1e-8) counts as 1.

    x : float32[1 + n_inputs, n], the base first, or bfloat16 as uint16
    ready : uint8[n_inputs], not 0 where ``x`` holds ``d_i`` already
    bounds : int32[n_segments, 1 + 2 * n_inputs]: where a segment of elements ends, then for every input ``low, high``; keys (see
        ``ranks``) are kept if ``low < key <= high``
    chances : uint64[n_inputs, 3]: the key of a stream of random words, and the number that the word of an element has to be below
    first : int64, number of the first element in its tensor, which is that of its word
    weights, scales : float32[n_inputs]
    factor : float32
    out : float32[n]
    """
    plain = ZERO
    for i in range(len(weights)):
        plain += weights[i]
    plain = ONE if abs(plain) < np.float32(1e-8) else plain
    kept = np.empty((len(weights), _STEP), np.float32)
    words = np.empty((3, 2 * _BLOCKS), np.uint64)
    base, total, divisor = np.empty(_STEP, np.float32), np.empty(_STEP, np.float32), np.empty(_STEP, np.float32)
    at = 0
    for segment in range(len(bounds)):
        end = bounds[segment, 0]
        while at < end:
            n = min(_STEP, end - at)
            y, b, t, v, origin = out[at : at + n], base[:n], total[:n], divisor[:n], x[0, at : at + n]
            for k in range(n):
                b[k], t[k], v[k] = value(origin[k]), ZERO, plain
            for i in range(len(weights)):
                q, scale, weight = kept[i, :n], scales[i], weights[i]
                low, high = bounds[segment, 2 * i + 1], bounds[segment, 2 * i + 2]
                _difference(x[i + 1, at : at + n], b, ready[i], q)
                _thin(q, chances[i], first + at, words)
                for k in range(n):
                    q[k] = _bounded(q[k], low, high) * scale * weight
                    t[k] += q[k]
            if vote:
                _vote(kept, weights, t, v, y)
            if normalize:
                for k in range(len(t)):
                    t[k] /= v[k] if v[k] != ZERO else ONE
            for k in range(len(t)):
                y[k] = b[k] + t[k] * factor
            at += n


@kernel
def magnitudes(x, ready, bounds, chances, first, block, out):  # type: ignore[no-untyped-def]
    """Sums of the magnitudes of task vectors in float64, block by block, 16 sums side by side.

    x, ready, bounds, chances, first : see ``combine``
    block : int64, elements of a block; the last one may be shorter
    out : float64[n_blocks, 2, n_inputs], of all elements and of those that are kept
    """
    n_inputs = out.shape[2]
    base, kept = np.empty(_STEP, np.float32), np.empty(_STEP, np.float32)
    words = np.empty((3, 2 * _BLOCKS), np.uint64)
    sums = np.empty((2, n_inputs, LANES), np.float64)
    segment = 0
    for number in range(len(out)):
        start, end = number * block, min((number + 1) * block, x.shape[1])
        sums[:] = 0.0
        for at in range(start, end, _STEP):
            n = min(_STEP, end - at)
            b, d, origin = base[:n], kept[:n], x[0, at : at + n]
            for k in range(n):
                b[k] = value(origin[k])
            while bounds[segment, 0] <= at:
                segment += 1
            for i in range(n_inputs):
                _difference(x[i + 1, at : at + n], b, ready[i], d)
                out[number, 0, i] = _add_magnitudes(d, sums[0, i], at + n == end)
                _thin(d, chances[i], first + at, words)
                place, here = segment, 0
                while here < n:
                    low, high = bounds[place, 2 * i + 1], bounds[place, 2 * i + 2]
                    part = d[here : min(n, bounds[place, 0] - at)]
                    for k in range(len(part)):
                        part[k] = _bounded(part[k], low, high)
                    here, place = here + len(part), place + 1
                out[number, 1, i] = _add_magnitudes(d, sums[1, i], at + n == end)


@inline
def _add_magnitudes(d, sums, is_last):  # type: ignore[no-untyped-def]
    """Add |d| of float32[n] to float64[LANES] ``sums``; of the last ``d``, whose n need be no multiple of LANES, the sum of all."""
    at, whole = 0, len(d) - len(d) % LANES
    while at + 4 * LANES <= whole:  # four at a time, in order: every sum is read and written once for them
        p, q = d[at : at + LANES], d[at + LANES : at + 2 * LANES]
        r, s = d[at + 2 * LANES : at + 3 * LANES], d[at + 3 * LANES : at + 4 * LANES]
        for k in range(len(sums)):
            two = (sums[k] + np.float64(magnitude(p[k]))) + np.float64(magnitude(q[k]))
            sums[k] = (two + np.float64(magnitude(r[k]))) + np.float64(magnitude(s[k]))
        at += 4 * LANES
    while at < whole:
        p = d[at : at + LANES]
        for k in range(len(sums)):
            sums[k] += np.float64(magnitude(p[k]))
        at += LANES
    total = 0.0
    if is_last:
        for k in range(len(sums)):
            total += sums[k]
        for k in range(whole, len(d)):
            total += np.float64(magnitude(d[k]))
    return total


@inline
def _difference(row, base, ready, out):  # type: ignore[no-untyped-def]
    """Fill float32[n] ``out`` with ``row`` less ``base``, or with ``row`` if ``ready``."""
    if ready:
        for k in range(len(out)):
            out[k] = value(row[k])
    else:
        for k in range(len(out)):
            out[k] = value(row[k]) - base[k]


@inline
def _thin(d, chance, first, words):  # type: ignore[no-untyped-def]
    """Clear of float32[n] ``d`` what chance does not keep.

    chance, first : of this input and the first element, see ``combine``
    words : uint64[3, 2 * n_blocks], scratch
    """
    if chance[2] == _NEVER:
        d[:] = ZERO
    elif chance[2] < _ALWAYS:
        skip = first & 3
        n = (skip + len(d) + 3) >> 2
        draw(chance, first >> 2, words[0, :n], words[1, :n], words[2].reshape(-1, 2)[:n])
        own, limit = words[2].view(np.uint32)[skip : skip + len(d)], np.uint32(chance[2])
        for k in range(len(d)):
            d[k] = d[k] if own[k] < limit else ZERO


@inline
def _bounded(d, low, high):  # type: ignore[no-untyped-def]
    """float32 ``d``, or 0 where it is out of bounds."""
    key = bits(d) & _ABS
    return d if (key > low) & (key <= high) else ZERO


@inline
def _vote(kept, weights, total, divisor, sign):  # type: ignore[no-untyped-def]
    """Sums of those that agree with ``total``; ``sign`` is scratch."""
    for k in range(len(total)):
        sign[k], total[k], divisor[k] = total[k], ZERO, ZERO
    for i in range(len(weights)):
        q, w = kept[i], weights[i]
        for k in range(len(total)):
            agrees = not (q[k] if sign[k] >= ZERO else -q[k]) <= ZERO
            total[k] += q[k] if agrees else ZERO
            divisor[k] += w if agrees else ZERO
