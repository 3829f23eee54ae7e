"""Q4_1: 32 weights, a scale and a minimum, 4-bit levels; see ``legacy``."""

from __future__ import annotations

from .legacy import codec
from .types import TYPES

CODEC = codec(TYPES["Q4_1"], affine=True, five_bits=False)
