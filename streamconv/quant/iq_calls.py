"""How the IQ codecs call their kernels, and what they answer when a kernel gives up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Bytes, Floats
from .types import TensorType

_NO_WEIGHTS = np.empty(0, np.float32)


class TooLarge(BadInput):
    """A row holds values whose squares overflow float32; ``row`` counts from the first row of the call."""

    def __init__(self, row: int, tensor_type: TensorType) -> None:
        super().__init__(
            f"row {row} holds values too large for {tensor_type.name} (their squares overflow)",
            "Give this tensor a wider type: Q8_0, BF16 or F32.",
        )
        self.row = row


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """A flat, read-only view: numba would compile a kernel once for writable and once for read-only arrays."""
    view = array.reshape(-1)
    view.flags.writeable = False
    return view


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
