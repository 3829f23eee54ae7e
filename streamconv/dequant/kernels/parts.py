"""HQQ: codes packed by parts of the matrix, not by neighbours; one part of a word is one run of codes."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import kernel
from . import mapped


@kernel
def codes(words, shift, mask, out):  # type: ignore[no-untyped-def]
    """The codes at bit ``shift`` of each word, as numbers.

    words : uint8[n] or int32[n]
    shift, mask : int64
    out : float32[n]
    """
    for i in range(len(out)):
        out[i] = np.float32((np.int64(words[i]) >> shift) & mask)


@kernel
def minus_blocks(x, zeros, block, phase):  # type: ignore[no-untyped-def]
    """Subtract the zero of each block.

    x : float32[n], changed in place
    zeros : float32[at least the blocks touched]
    block, phase : int64, as in ``nibbles.expand``
    """
    for i in range(len(x)):
        x[i] = x[i] - zeros[(phase + i) // block]


@kernel
def times_blocks(x, scales, block, phase):  # type: ignore[no-untyped-def]
    """Multiply by the scale of each block.

    x : float32[n], changed in place
    scales : float32[at least the blocks touched]
    block, phase : int64, as in ``nibbles.expand``
    """
    for i in range(len(x)):
        x[i] = x[i] * scales[(phase + i) // block]


def warm_up() -> None:
    """Compile all kernels of this file."""
    x = np.zeros(1, np.float32)
    codes(mapped(1), 0, 1, x)
    codes(np.zeros(1, np.int32), 0, 1, x)
    minus_blocks(x, mapped(1, dtype=np.float32), 1, 0)
    times_blocks(x, mapped(1, dtype=np.float32), 1, 0)
