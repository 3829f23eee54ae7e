"""A kit of rows over rows, which families and merges put together: picked, stacked, reshaped, transposed, mapped, constant.

Each keeps ``stored`` where bytes can be copied unchanged, and names exactly the bytes that it needs.
"""

from __future__ import annotations

from .made import Constant, Function, Mapped, Zeros
from .numbers import NEGATIVE_EXP, PLUS_ONE, squeezed, times
from .order import Order, interleaved
from .picked import Columns, Selected, cut, every, split, take
from .projected import ACTIVATIONS, Projected
from .reshaped import Reshaped
from .stacked import Stacked, join
from .ternary import Ternary
from .transposed import Transposed

__all__ = [
    "ACTIVATIONS",
    "NEGATIVE_EXP",
    "PLUS_ONE",
    "Columns",
    "Constant",
    "Function",
    "Mapped",
    "Order",
    "Projected",
    "Reshaped",
    "Selected",
    "Stacked",
    "Ternary",
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
