"""A kit of rows over rows, which families and merges put together: picked, stacked, reshaped, transposed, mapped, constant.

Each keeps ``stored`` where bytes can be copied unchanged, and names exactly the bytes that it needs.
"""

from __future__ import annotations

from .folded import FoldedNorm
from .largest import WithLargest
from .made import Averaged, Constant, Function, Mapped, Narrowed, Product, Sum, Zeros
from .numbers import EXP, MINUS_ONE, NEGATIVE_EXP, PLUS_ONE, squeezed, times
from .order import Order, interleaved
from .picked import Columns, Selected, cut, every, split, take
from .projected import ACTIVATIONS, Projected
from .resampled import Resampled
from .reshaped import Reshaped
from .sine import cosine, sine
from .softplus import SOFTPLUS
from .stacked import Stacked, join
from .ternary import Ternary
from .transposed import Transposed
from .unit_columns import UnitColumns

__all__ = [
    "ACTIVATIONS",
    "EXP",
    "MINUS_ONE",
    "NEGATIVE_EXP",
    "PLUS_ONE",
    "SOFTPLUS",
    "Averaged",
    "Columns",
    "Constant",
    "FoldedNorm",
    "Function",
    "Mapped",
    "Narrowed",
    "Order",
    "Product",
    "Projected",
    "Resampled",
    "Reshaped",
    "Selected",
    "Stacked",
    "Sum",
    "Ternary",
    "Transposed",
    "UnitColumns",
    "WithLargest",
    "Zeros",
    "cosine",
    "cut",
    "every",
    "interleaved",
    "join",
    "sine",
    "split",
    "squeezed",
    "take",
    "times",
]
