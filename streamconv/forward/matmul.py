"""Products with weights that are widened a panel of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rows import Floats, Rows, matrix_shape

#: tokens that are multiplied at once; fixed, as the last bits of a product may depend on it
PIECE = 512
#: bytes of a panel, or its rows where that is more (fewer are slower: the tokens are packed for each panel); fixed, too
_PANEL_BYTES, _PANEL_ROWS = 16 << 20, 512


def panel_rows(n_cols: int) -> int:
    """Rows of a panel."""
    return max(_PANEL_ROWS, _PANEL_BYTES // (4 * max(n_cols, 1)) // 64 * 64)


def pieces_of(stop: int, start: int = 0) -> list[slice]:
    """Tokens ``start..stop`` in pieces that are multiplied at once."""
    return [slice(at, min(at + PIECE, stop)) for at in range(start, stop, PIECE)]


def multiply(
    x: Floats,
    weight: Rows,
    pieces: Sequence[slice],
    panel: Floats,
    start: int = 0,
    stop: int | None = None,
    out: Floats | None = None,
) -> Floats:
    """``x`` times the transpose of rows ``start..stop`` of ``weight``: float32[len(x), stop - start].

    Parameters
    ----------
    x : float32[n, n_cols], C order
    pieces : which of its rows are multiplied at once
    panel : room for the widened rows, see ``new_panel``
    """
    n_rows, n_cols = matrix_shape(weight.shape)
    stop = n_rows if stop is None else stop
    if out is None:
        out = np.empty((len(x), stop - start), np.float32)
    step = panel_rows(n_cols)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if last < stop:
            weight.prefetch(last, min(last + step, stop))
        widened = weight.read(first, last, panel[: (last - first) * n_cols].reshape(last - first, n_cols))
        for piece in pieces:
            np.matmul(x[piece], widened.T, out=out[piece, first - start : last - start])
    return out


def panel_bytes(n_cols: int) -> int:
    """Bytes that a panel of rows of up to ``n_cols`` columns takes at most."""
    return max(_PANEL_BYTES, 4 * _PANEL_ROWS * n_cols)


def new_panel(n_cols: int) -> Floats:
    """Room for a panel of rows of up to ``n_cols`` columns."""
    return np.empty(panel_bytes(n_cols) // 4, np.float32)
