"""First looks at a tile of rows: stored numbers become float32, and how large they are, in one pass over memory.

The bits of non-negative floats order like the floats, and integer maxima, unlike float ones, are free to vectorize. NaN
counts as larger than infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .lanes import bf16_to_f32, bits, from_bits, inline, kernel, magnitude

_ABS = np.int32(0x7FFFFFFF)
#: blocks that a kernel takes through all its steps before the next ones: few enough for the first-level cache
GROUP = 64


def value(v: Any) -> Any:
    """``v`` as float32: a float32 itself, or the bfloat16 whose bits are uint16 ``v``. For kernels over either."""
    return bf16_to_f32(v) if isinstance(v, np.uint16) else v


@overload(value, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _value(v):  # type: ignore[no-untyped-def]
    """Decided when a kernel is compiled."""
    if isinstance(v, types.Integer):
        return lambda v: from_bits(np.int32(np.int32(v) << 16))
    return lambda v: v


@kernel
def largest(x):  # type: ignore[no-untyped-def]
    """The largest magnitude in ``x`` float32[n], NaN when there is one; 0 when it is empty."""
    found = np.int32(0)
    for i in range(len(x)):
        size = bits(magnitude(x[i]))
        found = size if size > found else found
    return from_bits(found)


@kernel
def widen_bf16(words, x):  # type: ignore[no-untyped-def]
    """Fill ``x`` float32[n] from bfloat16 ``words`` uint16[n]; return the largest magnitude, as ``largest`` does."""
    found = np.int32(0)
    for i in range(len(words)):
        v = np.int32(np.int32(words[i]) << 16)
        x[i] = from_bits(v)
        size = np.int32(v & _ABS)
        found = size if size > found else found
    return from_bits(found)


@kernel
def block_largest(x, top):  # type: ignore[no-untyped-def]
    """The largest magnitude of each block. x : float32[n_blocks, block_size], or bfloat16 as uint16; top : float32[n_blocks]."""
    for b in range(len(x)):
        values = x[b]
        found = np.int32(0)
        for i in range(
            len(values)
        ):  # runs to a length unknown here: LLVM unrolls a known one before it could vectorize
            size = bits(magnitude(value(values[i])))
            found = size if size > found else found
        top[b] = from_bits(found)


@inline
def larger(found, top):  # type: ignore[no-untyped-def]
    """The largest magnitude of ``found`` and float32[n] ``top``, NaN when there is one."""
    size = bits(found)
    for b in range(len(top)):
        other = bits(magnitude(top[b]))
        size = other if other > size else size
    return from_bits(size)
