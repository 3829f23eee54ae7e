"""Q5_0: 32 weights, one scale, 5-bit levels; see ``legacy``."""

from __future__ import annotations

from .legacy import codec
from .types import TYPES

CODEC = codec(TYPES["Q5_0"], affine=False, five_bits=True)
