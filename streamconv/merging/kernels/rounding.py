"""float32 to bfloat16 as it is stored, and back."""

from __future__ import annotations

import numpy as np

from ...quant.lanes import bf16_to_f32, f32_to_bf16, kernel


@kernel
def pack_bf16(x, words):  # type: ignore[no-untyped-def]
    """Round to bfloat16, ties to even; return the largest magnitude, NaN when there is one.

    x : float32[n]
    words : uint16[n]
    """
    found = np.int32(0)
    for i in range(len(words)):
        word = f32_to_bf16(x[i])
        words[i] = word
        size = np.int32(word & 0x7FFF)
        found = size if size > found else found
    return bf16_to_f32(found)


@kernel
def widen_bf16(words, x):  # type: ignore[no-untyped-def]
    """Values of bfloat16, exact.

    words : uint16[n], may be read-only
    x : float32[n]
    """
    for i in range(len(words)):
        x[i] = bf16_to_f32(words[i])
