"""Counting keys: the loops behind an exact selection by rank.

A key is the bit pattern of a float32 that is not negative, as uint32 < 2^31: such patterns order like the numbers.
"""

from __future__ import annotations

import numpy as np

from ...quant.lanes import bits, kernel

_ABS = np.int32(0x7FFFFFFF)


@kernel
def coarse(keys, counts):  # type: ignore[no-untyped-def]
    """Count keys by their upper 16 bits.

    keys : uint32[n]
    counts : int64[65536], added to
    """
    for k in range(len(keys)):
        counts[keys[k] >> np.uint32(15)] += 1


@kernel
def difference_keys(x, which, keys):  # type: ignore[no-untyped-def]
    """Keys of the differences of some inputs to the first.

    x : float32[n_inputs, n]
    which : int64[n_kinds], numbers of inputs
    keys : uint32[n_kinds, n]
    """
    base = x[0]
    for i in range(len(which)):
        row, out = x[which[i]], keys[i]
        for k in range(len(out)):
            out[k] = np.uint32(bits(row[k] - base[k]) & _ABS)


@kernel
def window(keys, kinds, lows, width, above, hits, n_hits):  # type: ignore[no-untyped-def]
    """For every search list its keys in a window from ``low`` on, and count those beyond.

    keys : uint32[n_kinds, n]
    kinds : int64[n_searches], which keys
    lows : uint32[n_searches], first key of the window
    width : int64, of all windows
    above : int64[n_searches], added to
    hits : uint32[n_searches, n], keys in the window, less ``low``, in order
    n_hits : int64[n_searches], how many they are
    """
    limit = np.int32(width)
    for s in range(len(kinds)):
        row, low, found = keys[kinds[s]], np.int32(lows[s]), hits[s]
        beyond = 0
        m = 0
        for at in range(0, len(row), 512):
            part = row[at : at + 512]
            some = np.int32(0)
            for k in range(len(part)):
                offset = np.int32(np.int32(part[k]) - low)
                some = np.int32(some + (np.int32(1) if offset >= limit else np.int32(0)))
            beyond += some
            for k in range(len(part)):
                offset = np.int32(np.int32(part[k]) - low)
                if (offset >= 0) & (offset < limit):  # seldom, so a branch is cheaper than none
                    found[m] = np.uint32(offset)
                    m += 1
        above[s] += beyond
        n_hits[s] = m


@kernel
def tally(hits, counts):  # type: ignore[no-untyped-def]
    """Count hits one by one.

    hits : uint32[n]
    counts : int64[width], added to
    """
    for k in range(len(hits)):
        counts[hits[k]] += 1


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
    low = np.int32(min(threshold, np.uint32(_ABS)))
    for k in range(ties):
        x[k] = x[k] if np.int32(keys[k]) >= low else np.float32(0)
    rest, rest_keys = x[ties:], keys[ties:]
    for k in range(len(rest)):
        rest[k] = rest[k] if np.int32(rest_keys[k]) > low else np.float32(0)
