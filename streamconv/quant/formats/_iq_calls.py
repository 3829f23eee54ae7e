"""How the IQ codecs call their kernels, and what they answer when a kernel gives up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...rows import Bytes, Floats
from ..overflow import TooLarge
from ..types import TensorType


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """A flat, read-only view: numba would compile a kernel once for writable and once for read-only arrays."""
    view = array.reshape(-1)
    view.flags.writeable = False
    return view


_NO_WEIGHTS = flat(np.empty(0, np.float32))


def quantize_with(
    kernel: Any, x: Floats, out: Bytes, weights: Floats | None, tensor_type: TensorType, *more: object
) -> None:
    """Run ``kernel(x, out, weights, *more)`` on flat arrays; no weights are an empty array.

    Raises
    ------
    TooLarge : the kernel returned the number of a block that it cannot encode, instead of -1
    """
    block = kernel(flat(x), out.reshape(-1), _NO_WEIGHTS if weights is None else flat(weights), *more)
    if block is not None and block >= 0:
        raise TooLarge(block * tensor_type.block_size // x.shape[1], tensor_type)
