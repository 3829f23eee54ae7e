"""Compiled loops of the decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def mapped(*shape: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    """Zeros as kernels see what comes from a file, read-only; for ``warm_up``, which every module has."""
    zeros = np.zeros(shape, dtype)
    zeros.flags.writeable = False
    return zeros
