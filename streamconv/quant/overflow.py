"""Values that a type cannot hold: a finite weight may come back as Inf, or its square may overflow in a search."""

from __future__ import annotations

import numpy as np

from ..errors import BadInput
from ..rows import Floats
from .types import TensorType

#: What every type can hold unless it is listed: block scales are float16.
_F16_MAX = 65504.0
#: float32 above this rounds to infinity in bfloat16
_SAFE = {"F32": float("inf"), "F64": float("inf"), "BF16": 3.38e38}


class TooLarge(BadInput):
    """A row holds values that the type cannot hold.

    Attributes
    ----------
    row : number of the row, counted as the caller counts
    """

    def __init__(self, row: int, type_: TensorType, tensor: str = "") -> None:
        which = f"--tensor-type '{tensor}=BF16', or --type BF16" if tensor else "Q8_0, BF16 or F32"
        super().__init__(
            f"{f'tensor {tensor!r}, ' if tensor else ''}row {row} holds values too large for {type_.name}",
            f"Give it a wider type: {which}.",
        )
        self.row = row


def may_overflow(type_: TensorType, largest: float) -> bool:
    """Whether rows whose largest magnitude is ``largest`` have to be decoded to know; never for the weights of real models."""
    return not largest <= _SAFE.get(type_.name, _F16_MAX)


def first_overflow(decoded: Floats) -> int | None:
    """Number of the first row of ``decoded`` float32[n_rows, n_cols] that is not finite, or None."""
    bad = np.flatnonzero(~np.isfinite(decoded).all(axis=1))
    return int(bad[0]) if bad.size else None
