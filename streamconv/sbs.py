"""Encode and decode arrays as gemma.cpp's weight files (``.sbs``) hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .errors import BadInput, UsageError
from .quant.sbs.types import SBS_TYPES, SbsType, codec, scale_of
from .rows import Bytes, Floats


def _type(name: str) -> SbsType:
    if name.upper() not in SBS_TYPES:
        known = ", ".join(t.lower() for t in SBS_TYPES)
        raise UsageError(f"{name!r} is not a type of .sbs files", f"Known: {known}.")
    return SBS_TYPES[name.upper()]


def encode(values: ArrayLike, type: str) -> tuple[Bytes, np.float32]:
    """Encode a tensor as gemma.cpp does, byte for byte.

    Parameters
    ----------
    values : float32 of any shape, flattened; other types are converted
    type : f32, bf16, sfp, nuq or i8, any case

    Returns
    -------
    uint8[n_bytes] and the scale of the tensor; sfp and nuq have one, where a magnitude is above 1.875, of the others it is 1

    Raises
    ------
    UsageError : unknown type
    BadInput : NaN or Inf in ``values``; names the place; or a value too large for the type

    Examples
    --------
    >>> from streamconv import sbs
    >>> data, scale = sbs.encode([1.0, -3.75], "sfp")
    >>> data.tolist(), float(scale), sbs.decode(data, "sfp", 2, scale).tolist()
    ([112, 255], 2.0, [1.0, -3.75])
    """
    found, x = _type(type), np.ascontiguousarray(values, np.float32).reshape(-1)
    largest = float(max(x.max(initial=0), -x.min(initial=0)))
    if not np.isfinite(largest):
        (at, *_) = np.flatnonzero(~np.isfinite(x))
        raise BadInput(f"value {at} is {x[at]}: not a finite number")
    if largest > found.largest:
        raise BadInput(f"a magnitude of {largest:g} is too large for {found.name}", "Divide the tensor, or take f32.")
    out, scale = np.empty(found.n_bytes(len(x)), np.uint8), scale_of(found, largest)
    codec(found).encode(x, out, scale)
    return out, scale


def decode(packed: ArrayLike, type: str, n: int, scale: float = 1.0) -> Floats:
    """Decode a tensor.

    Parameters
    ----------
    packed : uint8[n_bytes]
    type : f32, bf16, sfp, nuq or i8, any case
    n : number of values
    scale : of the tensor

    Returns
    -------
    float32[n]

    Raises
    ------
    UsageError : unknown type, or as many values have another number of bytes
    """
    found, data = _type(type), np.ascontiguousarray(packed).reshape(-1).view(np.uint8)
    if n < 0 or len(data) != found.n_bytes(n):
        raise UsageError(f"{n} values are {found.n_bytes(max(n, 0))} bytes as {found.name}, not {len(data)}")
    out = np.empty(n, np.float32)
    codec(found).decode(data, out)
    return out if scale == 1 else out * np.float32(scale)
