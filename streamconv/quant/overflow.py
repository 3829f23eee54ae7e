"""Values that a type cannot hold: a finite weight may come back as Inf."""

from __future__ import annotations

import numpy as np

from ..rows import Floats
from .types import TensorType

#: What every type can hold unless it is listed: block scales are float16.
_F16_MAX = 65504.0
#: float32 above this rounds to infinity in bfloat16
_SAFE = {"F32": float("inf"), "F64": float("inf"), "BF16": 3.38e38}


def may_overflow(type_: TensorType, largest: float) -> bool:
    """Whether rows whose largest magnitude is ``largest`` have to be decoded to know; never for the weights of real models."""
    return not largest <= _SAFE.get(type_.name, _F16_MAX)


def first_overflow(decoded: Floats) -> int | None:
    """Number of the first row of ``decoded`` float32[n_rows, n_cols] that is not finite, or None."""
    bad = np.flatnonzero(~np.isfinite(decoded).all(axis=1))
    return int(bad[0]) if bad.size else None
