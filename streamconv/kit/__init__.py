"""A kit of rows over rows, which families and merges put together: picked, stacked, reshaped, transposed, mapped, constant.

Each keeps ``stored`` where bytes can be copied unchanged, and names exactly the bytes that it needs.
"""

from __future__ import annotations

from .made import Constant, Function, Mapped, Zeros
from .numbers import NEGATIVE_EXP, PLUS_ONE, squeezed, times
from .order import Order, interleaved
from .picked import Columns, Selected, cut, every, split, take
from .reshaped import Reshaped
from .softplus import SOFTPLUS
from .stacked import Stacked, join
from .transposed import Transposed

__all__ = [
    "NEGATIVE_EXP",
    "PLUS_ONE",
    "SOFTPLUS",
    "Columns",
    "Constant",
    "Function",
    "Mapped",
    "Order",
    "Reshaped",
    "Selected",
    "Stacked",
    "Transposed",
    "Zeros",
    "cut",
    "every",
    "interleaved",
    "join",
    "split",
    "squeezed",
    "take",
    "times",
]
