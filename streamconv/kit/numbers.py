"""Functions of numbers and changes of shape that several families need."""

from __future__ import annotations

import numpy as np

from ..rows import Floats, Rows
from .made import Function
from .reshaped import Reshaped


def _negative_exp(x: Floats) -> Floats:
    """In float64 and rounded once, so that no processor's arithmetic shows."""
    return -np.exp(x.astype(np.float64)).astype(np.float32)


def _plus_one(x: Floats) -> Floats:
    x += np.float32(1)
    return x


NEGATIVE_EXP = Function("-exp", 1, _negative_exp)
PLUS_ONE = Function("plus one", 1, _plus_one)


def squeezed(rows: Rows) -> Rows:
    """Without axes of one element."""
    shape = tuple(n for n in rows.shape if n != 1)
    return rows if shape == rows.shape else Reshaped(rows, shape)
