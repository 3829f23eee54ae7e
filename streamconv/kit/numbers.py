"""Functions of numbers and changes of shape that several families need."""

from __future__ import annotations

import numpy as np

from ..rows import Floats, Rows
from .exponential import exp
from .made import Function
from .reshaped import Reshaped


def _negative_exp(x: Floats) -> Floats:
    return -exp(x)


def _plus_one(x: Floats) -> Floats:
    x += np.float32(1)
    return x


def _minus_one(x: Floats) -> Floats:
    x -= np.float32(1)
    return x


EXP = Function("exp", 1, exp)
MINUS_ONE = Function("minus one", 1, _minus_one)
NEGATIVE_EXP = Function("-exp", 2, _negative_exp)
PLUS_ONE = Function("plus one", 1, _plus_one)


def times(factor: float) -> Function:
    """Each number times ``factor``, as float32."""
    by = np.float32(factor)

    def call(x: Floats) -> Floats:
        x *= by
        return x

    return Function(f"times {float(by)!r}", 1, call)


def squeezed(rows: Rows) -> Rows:
    """Without axes of one element."""
    shape = tuple(n for n in rows.shape if n != 1)
    return rows if shape == rows.shape else Reshaped(rows, shape)
