"""Rows that go through a layer of a network: a matrix, a bias and an activation, computed once instead of in every run."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import numpy as np

from ..kernels import load
from ..rows import Floats, Rows, Span, matrix_shape
from .exponential import fused
from .made import Function

_LOCK = threading.Lock()
_LOG2_E, _LN2, _LN2_LOW = (
    np.float32(math.log2(math.e)),
    np.float32(0.693145751953125),
    np.float32(1.428606765330187e-06),
)
_SERIES = [np.float32(c) for c in (
    0.00139304355252534151, 0.00833336077630519867, 0.0416664853692054749, 0.166666671633720398, 0.5,
)]  # fmt: skip
_LIMIT = np.float32(110)


def _exp(x: Floats) -> Floats:
    """exp with the bits of SLEEF's ``expf`` of one unit in the last place, which torch's activations compute with."""
    x = np.clip(x, -_LIMIT, _LIMIT)
    n = np.rint(x * _LOG2_E)
    r = fused(n, -_LN2_LOW, fused(n, -_LN2, x))
    p = np.full(x.shape, 0.000198527617612853646, np.float32)
    for c in _SERIES:
        p = fused(p, r, c)
    with np.errstate(over="ignore"):
        made: Floats = np.ldexp(np.float32(1) + fused(r * r, p, r), n.astype(np.int32))
    return made


def _silu(x: Floats) -> Floats:
    made: Floats = x / (np.float32(1) + _exp(-x))
    return made


def _gelu(x: Floats) -> Floats:
    erf = np.asarray(np.frompyfunc(math.erf, 1, 1)(x.astype(np.float64) / math.sqrt(2)), np.float64)
    made: Floats = (x * (1 + erf) / 2).astype(np.float32)
    return made


def _relu(x: Floats) -> Floats:
    made: Floats = np.maximum(x, np.float32(0))
    return made


#: activations by the names that configurations have for them
ACTIVATIONS = {name: Function(name, 1, call) for name, call in (("silu", _silu), ("gelu", _gelu), ("relu", _relu))}


class Projected(Rows):
    """``rows · matrixᵀ + bias``, in float32.

    Parameters
    ----------
    inner : [n_rows, n_inner]
    matrix : [n_cols, n_inner], as layers store it; kept in memory from the first row on
    bias : [n_cols]
    """

    def __init__(self, inner: Rows, matrix: Rows, bias: Rows) -> None:
        if len(matrix.shape) != 2 or inner.shape[-1] != matrix.shape[1] or bias.shape != matrix.shape[:1]:
            raise ValueError(f"{list(inner.shape)} does not go through {list(matrix.shape)} and {list(bias.shape)}")
        self.inner = inner
        self.matrix = matrix
        self.bias = bias
        self.shape = (*inner.shape[:-1], matrix.shape[0])
        self.dtype = "F32"
        self._kept: tuple[Floats, Floats] | None = None

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        with _LOCK:
            if self._kept is None:
                turned = np.ascontiguousarray(self.matrix.read(0, self.matrix.shape[0]).T)
                self._kept = turned, self.bias.read(0, 1)[0]
        load(".kit.kernels.projection").project(self.inner.read(start, stop), *self._kept, out)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Those of the rows, and all of the matrix and the bias."""
        yield from self.inner.spans(start, stop)
        for part in (self.matrix, self.bias) if stop > start else ():
            yield from part.spans(0, matrix_shape(part.shape)[0])
