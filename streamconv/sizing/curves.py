"""How much of a tensor each type loses: squared errors, weighted by importance, relative to the weighted squares of the values.

Measured with our own encoders and decoders on whole rows, spread evenly over the tensor, some of every expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..quant.base import Codec, codec
from ..rows import Floats, Rows, matrix_shape

#: weights of a tensor that are looked at, and rows of an expert at least
_SAMPLE, _ROWS_OF_EXPERT = 1 << 20, 8
_TILE = 1 << 16


class Loss(NamedTuple):
    """What a type loses of a tensor: the share of its weighted squares, and of those of the row that loses most."""

    error: float
    worst_row: float


def sampled(n_rows: int, n_cols: int, n_experts: int = 1) -> NDArray[np.int64]:
    """Numbers of the rows that are looked at, the same share of every expert.

    >>> sampled(4, 1 << 19).tolist(), sampled(64, 1 << 18, 2).tolist()[:3]
    ([0, 2], [0, 4, 8])
    """
    of_expert = n_rows // n_experts
    wanted = max(1, _SAMPLE // n_cols // n_experts, _ROWS_OF_EXPERT if n_experts > 1 else 1)
    wanted = min(wanted, of_expert)
    inside = np.arange(wanted) * of_expert // wanted
    return (np.arange(n_experts)[:, None] * of_expert + inside).reshape(-1)


def losses(
    rows: Rows,
    types: Sequence[str],
    weights: Floats | None = None,
    visits: NDArray[np.float64] | None = None,
    compat: bool = False,
) -> dict[str, Loss]:
    """What each of ``types`` loses of ``rows``.

    Parameters
    ----------
    weights : float32[n_experts, n_cols] importance of each column; None: all the same
    visits : float64[n_experts] tokens that reached each expert, by which its errors count; None: all the same
    """
    n_rows, n_cols = matrix_shape(rows.shape)
    n_experts = rows.shape[0] if len(rows.shape) == 3 else 1
    if not n_rows or not n_cols:
        return {name: Loss(0.0, 0.0) for name in types}
    numbers = sampled(n_rows, n_cols, n_experts)
    step, of_expert = max(1, _TILE // n_cols), n_rows // n_experts
    found = {name: codec(name) for name in types}
    errors, worst, total = dict.fromkeys(types, 0.0), dict.fromkeys(types, 0.0), 0.0
    for group in _tiles(numbers, step, of_expert):
        expert = int(group[0]) // of_expert
        x = np.empty((len(group), n_cols), np.float32)
        for n, row in enumerate(group.tolist()):
            rows.read(row, row + 1, x[n : n + 1])
        own = None if weights is None else weights[min(expert, len(weights) - 1)]
        share = 1.0 if visits is None else float(visits[expert])
        squares = _weighted(x, own)
        total += share * float(squares.sum())
        for name, each in found.items():
            lost = _weighted(_decoded(rows, each, x, own, compat) - x, own)
            errors[name] += share * float(lost.sum())
            with np.errstate(divide="ignore", invalid="ignore"):
                worst[name] = max(worst[name], float(np.nan_to_num(lost / squares, posinf=0.0).max(initial=0.0)))
    return {name: Loss(errors[name] / total if total else 0.0, worst[name]) for name in types}


def _tiles(numbers: NDArray[np.int64], step: int, of_expert: int) -> list[NDArray[np.int64]]:
    """Rows that are taken together, those of one expert at a time."""
    ends = np.flatnonzero(np.diff(numbers // of_expert)) + 1
    return [part[at : at + step] for part in np.split(numbers, ends) for at in range(0, len(part), step)]


def _decoded(rows: Rows, each: Codec, x: Floats, weights: Floats | None, compat: bool) -> Floats:
    if rows.native(each.type.name, 0, 0) is not None:  # copied
        return x
    data = np.empty((len(x), each.type.row_bytes(x.shape[1])), np.uint8)
    each.quantize(x, data, weights, compat)
    out = np.empty_like(x)
    each.dequantize(data, out)
    return out


def _weighted(x: Floats, weights: Floats | None) -> NDArray[np.float64]:
    """float64[n] weighted sums of squares of rows."""
    squares = np.square(x, dtype=np.float64)
    return np.asarray((squares if weights is None else np.multiply(squares, weights, out=squares)).sum(axis=1))
