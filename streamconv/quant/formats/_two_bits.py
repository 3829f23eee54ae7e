"""The 64 bytes of 2-bit levels that Q2_K and Q3_K share.

Byte 32 h + l holds, from the lowest bits up, the levels of the weights 128 h + l, + 32, + 64 and + 96.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import inline, kernel

BLOCK = 256


@kernel
def put_two_bits(levels, out, at):  # type: ignore[no-untyped-def]
    """Write the low two bits of the levels of each block from its byte ``at`` on.

    levels : uint8[n_blocks, 256]; out : uint8[n_blocks, block_bytes]
    """
    two, four, six, mask = np.uint8(2), np.uint8(4), np.uint8(6), np.uint8(3)
    for b in range(len(out)):
        for half in range(2):
            qs, q = out[b, at + 32 * half :], levels[b, 128 * half :]
            for l in range(32):
                low = (q[l] & mask) | ((q[32 + l] & mask) << two)
                qs[l] = low | ((q[64 + l] & mask) << four) | (q[96 + l] << six)


@inline
def two_bits(block, at, k):  # type: ignore[no-untyped-def]
    """The bytes with the levels of the sub-block ``k`` of 16 weights, and where in each the two bits begin."""
    return block[at + 32 * (k // 8) + 16 * (k % 2) :], np.uint8(2 * (k // 2 % 4))
