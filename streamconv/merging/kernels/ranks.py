"""Counting keys: the loops behind an exact selection by rank.

A key is the bit pattern of a float32 that is not negative, as uint32 < 2^31: such patterns order like the numbers.
"""

from __future__ import annotations

import numpy as np

from ...quant.lanes import bits, from_bits, kernel

_ABS = np.int32(0x7FFFFFFF)


@kernel
def magnitude_keys(x, keys):  # type: ignore[no-untyped-def]
    """Keys of |x|.

    x : float32[n]
    keys : uint32[n]
    """
    for k in range(len(x)):
        keys[k] = np.uint32(bits(x[k]) & _ABS)


@kernel
def coarse(keys, counts):  # type: ignore[no-untyped-def]
    """Count keys by their upper 16 bits.

    keys : uint32[n]
    counts : int64[65536], added to
    """
    for k in range(len(keys)):
        counts[keys[k] >> np.uint32(15)] += 1


@kernel
def window(keys, low, counts, above):  # type: ignore[no-untyped-def]
    """Count the keys from ``low`` on one by one, and those beyond the window as one.

    keys : uint32[n]
    low : uint32, first key of the window
    counts : int64[width], added to
    above : int64[1], added to
    """
    width = np.uint32(len(counts))
    total = 0
    for at in range(0, len(keys), 256):
        part = keys[at : at + 256]
        some = beyond = np.uint32(0)
        for k in range(len(part)):
            offset = np.uint32(part[k] - low)  # wraps around below the window
            beyond += np.uint32(1) if (part[k] >= low) & (offset >= width) else np.uint32(0)
            some |= np.uint32(1) if offset < width else np.uint32(0)
        total += beyond
        if some:
            for k in range(len(part)):
                offset = np.uint32(part[k] - low)
                if offset < width:
                    counts[offset] += 1
    above[0] += total


@kernel
def count_equal(keys, value, counts):  # type: ignore[no-untyped-def]
    """Count keys equal to ``value``.

    keys : uint32[n]
    value : uint32
    counts : int64[1], added to
    """
    found = 0
    for k in range(len(keys)):
        found += 1 if keys[k] == value else 0
    counts[0] += found


@kernel
def keep_top(x, keys, threshold, ties):  # type: ignore[no-untyped-def]
    """Clear what is below ``threshold``, and from element ``ties`` on also what equals it.

    x : float32[n], changed in place
    keys : uint32[n]
    threshold : uint32
    """
    for k in range(ties):
        x[k] = x[k] if keys[k] >= threshold else np.float32(0)
    for k in range(ties, len(x)):
        x[k] = x[k] if keys[k] > threshold else np.float32(0)


@kernel
def drop_top(x, keys, threshold, ties):  # type: ignore[no-untyped-def]
    """Clear what ``keep_top`` would keep.

    x : float32[n], changed in place
    keys : uint32[n]
    threshold : uint32
    """
    for k in range(ties):
        x[k] = np.float32(0) if keys[k] >= threshold else x[k]
    for k in range(ties, len(x)):
        x[k] = np.float32(0) if keys[k] > threshold else x[k]


@kernel
def key_values(keys, x):  # type: ignore[no-untyped-def]
    """The numbers that keys stand for.

    keys : uint32[n]
    x : float32[n]
    """
    for k in range(len(keys)):
        x[k] = from_bits(np.int32(keys[k]))
