"""What TQ1_0, TQ2_0 and Q2_0 share: weights become -d, 0 or +d, with d the largest magnitude of the block.

Levels are ``roundf(x / d) + 1`` = 0, 1, 2. As |x / d| never exceeds 1 by more than rounding, two comparisons give them.

Source: ggml-quants.c ``quantize_row_tq1_0_ref``, ``quantize_row_tq2_0_ref`` and ``quantize_row_q2_0_ref`` (ggml 0.25.3);
bit-exact. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from .lanes import HALF, ONE, ZERO, bits, from_bits, inline, kernel, magnitude

_INF = np.float32(np.inf)


@kernel
def scales(x, scale, inverse):  # type: ignore[no-untyped-def]
    """The largest magnitude d of each block, and 1 / d; 0 for a block of zeros.

    x : float32[n_blocks, block_size]; scale, inverse : float32[n_blocks]. The reciprocal of a tiny denormal is infinite.
    """
    for b in range(len(x)):
        values = x[b]
        largest = np.int32(0)  # the bits of non-negative floats order like the floats
        for i in range(len(values)):
            size = bits(magnitude(values[i]))
            largest = size if size > largest else largest
        d = from_bits(largest)
        scale[b] = d
        inverse[b] = ONE / d if d != ZERO else ZERO


@inline
def trit(v, factor):  # type: ignore[no-untyped-def]
    """``roundf(v · factor) + 1`` as int32 0, 1 or 2, for a factor that is finite and brings ``v`` to -1..1."""
    scaled = v * factor
    level = np.int32(2) if scaled >= HALF else np.int32(1)
    return np.int32(0) if scaled <= -HALF else level


@inline
def finite_or_zero(factor):  # type: ignore[no-untyped-def]
    """``factor``, or 0 when it is infinite: the reference rounds Inf and NaN to 0 as well."""
    return factor if factor < _INF else ZERO
