"""gemma.cpp's tensor types: numbers, sizes and the scale of a whole tensor. Needs no numba.

Source: gemma.cpp ``compression/types.h`` and ``compress-inl.h`` (October 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels import load
from ...rows import Bytes, Floats

#: the largest magnitude that SFP has
LARGEST = 1.875


@dataclass(frozen=True)
class SbsType:
    """One tensor type.

    Attributes
    ----------
    name : upper case, as ours of the same meaning
    id : number in files
    element_bytes : what files state as bytes of an element
    bits : of a value; a file is of the type with the fewest
    group : values that are encoded together; pieces of a tensor begin at a multiple of it
    head : bytes before the values of each group
    largest : magnitudes up to this one are stored as numbers
    scaled : values above ``LARGEST`` are divided by a scale of the whole tensor first
    module : name of the module of the codec
    """

    name: str
    id: int
    element_bytes: int
    bits: int
    group: int = 1
    head: int = 0
    largest: float = float("inf")
    scaled: bool = False
    module: str = ""

    def n_bytes(self, n: int) -> int:
        """Bytes of ``n`` values from the beginning of a group on."""
        return -(-n // self.group) * self.head + -(-n * self.bits // 8)


_TABLE = [
    SbsType("F32", 1, 4, 32, module="floats"),
    SbsType("BF16", 2, 2, 16, largest=3.38e38, module="floats"),
    SbsType("SFP", 3, 1, 8, scaled=True, module="sfp"),
    SbsType("NUQ", 4, 1, 4, group=256, head=16, scaled=True, module="nuq"),
    SbsType("I8", 8, 1, 8, group=128, head=4, largest=1.7e38, module="i8"),
]
#: by upper-case name
SBS_TYPES: dict[str, SbsType] = {t.name: t for t in _TABLE}


@dataclass(frozen=True)
class SbsCodec:
    """The two directions of a type; both release the GIL.

    Attributes
    ----------
    encode : ``(x, out, scale)``, fills ``out`` = uint8[n_bytes(n)] from ``x`` = float32[n], finite, or uint16[n], the bits of
        bfloat16, of magnitudes up to ``largest``; ``scale`` is what ``scale_of`` gives for the whole tensor
    decode : ``(data, out)``, fills ``out`` = float32[n], which is still to be multiplied by the scale
    """

    encode: Callable[[Any, Bytes, np.float32], None]
    decode: Callable[[Bytes, Floats], None]


def codec(type_: SbsType) -> SbsCodec:
    """The codec of a type; imports numba and only this module."""
    module = load(f".quant.sbs.{type_.module}")
    found = module.CODECS[type_.name] if hasattr(module, "CODECS") else module.CODEC
    assert isinstance(found, SbsCodec)
    return found


def scale_of(type_: SbsType, largest: float) -> np.float32:
    """The scale of a tensor whose largest magnitude is ``largest``: 1 where all values are in range, or the type has none."""
    top = np.float32(largest)
    scale: np.float32 = top / np.float32(LARGEST) if type_.scaled and top > LARGEST else np.float32(1)
    return scale


def inverse_of(scale: np.float32) -> np.float32:
    """What values are multiplied by."""
    inverse: np.float32 = np.float32(1.0 / float(scale))
    return inverse
