"""Compiled loops of the decoders; imported when the first tensor is decoded, for numba takes a while to load."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...quant import cache


def load(name: str) -> ModuleType:
    """The kernel module ``name``."""
    return cache.compiled(f"{__name__}.{name}")


def mapped(*shape: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    """Zeros as kernels see what comes from a file, read-only; for ``warm_up``, which every module has."""
    zeros = np.zeros(shape, dtype)
    zeros.flags.writeable = False
    return zeros
