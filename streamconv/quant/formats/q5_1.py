"""Q5_1: 32 weights, a scale and a minimum, 5-bit levels; see ``_legacy``."""

from __future__ import annotations

from ..types import TYPES
from ._legacy import codec

CODEC = codec(TYPES["Q5_1"], affine=True, five_bits=True)
