"""Q4_1: 32 weights, a scale and a minimum, 4-bit levels; see ``_legacy``."""

from __future__ import annotations

from ..types import TYPES
from ._legacy import codec

CODEC = codec(TYPES["Q4_1"], affine=True, five_bits=False)
