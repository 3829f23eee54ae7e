"""Sub-blocks side by side in lanes, with their importance: shared by IQ1_S and IQ1_M.

Matrices X and W of a tile hold weights and importance of up to ``LANES`` sub-blocks of ``n`` weights; see ``lanes``.

Source: ggml-quants.c, the beginning of ``quantize_row_iq1_s_impl`` and ``quantize_row_iq1_m_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import LANES, ZERO, inline

#: matrices of a tile
X, W = 0, 32 * LANES
#: twice the mean of x², one a lane; the first row of regs
SIGMA2 = 0
_TWO = np.float32(2)


@inline
def load(tile, matrix, values, start, n_lanes, period, n):  # type: ignore[no-untyped-def]
    """Lane ``j`` of a matrix = ``n`` of ``values`` from ``(start + j) % period * n`` on; zeros from lane ``n_lanes`` on."""
    for j in range(LANES):
        at = (start + j) % period * n
        for i in range(n):
            tile[matrix + i * LANES + j] = values[at + i] if j < n_lanes else ZERO


@inline
def load_weights(tile, regs, x, start, n_lanes, weights, n, subs):  # type: ignore[no-untyped-def]
    """X and W of ``n_lanes`` sub-blocks from sub-block ``start`` on; ``subs`` of them are a block.

    Importance is q · sqrt(SIGMA2 + x²) with importance weights q, and x² without (``weights`` is empty). SIGMA2 is that of
    the block, whose squares are summed from the first to the last.
    """
    load(tile, X, x, start, n_lanes, len(x) // n, n)
    if len(weights):
        load(tile, W, weights, start, n_lanes, len(weights) // n, n)
        _sum_squares(tile, regs, n, subs)
        for row in range(0, n * LANES, LANES):
            for j in range(LANES):
                v = tile[X + row + j]
                tile[W + row + j] *= np.sqrt(regs[SIGMA2 + j] + v * v)
    else:
        for row in range(0, n * LANES, LANES):
            for j in range(LANES):
                v = tile[X + row + j]
                tile[W + row + j] = v * v


@inline
def _sum_squares(tile, regs, n, subs):  # type: ignore[no-untyped-def]
    for j in range(LANES):
        regs[SIGMA2 + j] = ZERO
    for sub in range(subs):
        for row in range(0, n * LANES, LANES):
            for lane in range(0, LANES, subs):
                v = tile[X + row + lane + sub]
                regs[SIGMA2 + lane] += v * v
    for lane in range(0, LANES, subs):
        # doubled first, as in the reference: it may overflow
        sigma2 = _TWO * regs[SIGMA2 + lane] / np.float32(n * subs)
        for j in range(lane, lane + subs):
            regs[SIGMA2 + j] = sigma2
