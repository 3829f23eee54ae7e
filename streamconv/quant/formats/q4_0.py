"""Q4_0: 32 weights, one scale, 4-bit levels; see ``_legacy``."""

from __future__ import annotations

from ..types import TYPES
from ._legacy import codec

CODEC = codec(TYPES["Q4_0"], affine=False, five_bits=False)
