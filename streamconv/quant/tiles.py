"""First looks at a tile of rows: stored numbers become float32, and how large they are, in one pass over memory.

The bits of non-negative floats order like the floats, and integer maxima, unlike float ones, are free to vectorize. NaN
counts as larger than infinity.
"""

from __future__ import annotations

import numpy as np

from .lanes import bits, from_bits, kernel, magnitude

_ABS = np.int32(0x7FFFFFFF)


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
    """The largest magnitude of each block. x : float32[n_blocks, block_size]; top : float32[n_blocks]."""
    for b in range(len(x)):
        values = x[b]
        found = np.int32(0)
        for i in range(
            len(values)
        ):  # runs to a length unknown here: LLVM unrolls a known one before it could vectorize
            size = bits(magnitude(values[i]))
            found = size if size > found else found
        top[b] = from_bits(found)
