"""What TQ1_0, TQ2_0 and Q2_0 share: weights become -d, 0 or +d, with d the largest magnitude of the block.

Levels are ``roundf(x / d) + 1`` = 0, 1, 2. As |x / d| never exceeds 1 by more than rounding, two comparisons give them.

Source: ggml-quants.c ``quantize_row_tq1_0_ref``, ``quantize_row_tq2_0_ref`` and ``quantize_row_q2_0_ref`` (ggml 0.25.3);
bit-exact. Importance weights are not used.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import HALF, ONE, ZERO, inline

_INF = np.float32(np.inf)


@inline
def reciprocal(d):  # type: ignore[no-untyped-def]
    """1 / d, or 0 where that is infinite: the reference rounds Inf and NaN to 0 as well."""
    inverse = ONE / d if d != ZERO else ZERO
    return inverse if inverse < _INF else ZERO


@inline
def trit(v, factor):  # type: ignore[no-untyped-def]
    """``roundf(v · factor) + 1`` as int32 0, 1 or 2, for a factor that is finite and brings ``v`` to -1..1."""
    scaled = v * factor
    level = np.int32(2) if scaled >= HALF else np.int32(1)
    return np.int32(0) if scaled <= -HALF else level
