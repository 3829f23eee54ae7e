"""Counting keys: the loops behind an exact selection by rank.

A key is the bit pattern of a float32 that is not negative, as uint32 < 2^31: such patterns order like the numbers.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import bits, inline, kernel
from ...kernels.tiles import value

_ABS = np.int32(0x7FFFFFFF)
#: elements that go through all searches together, so that their keys stay in the first-level cache
_STEP = 1024


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

    x : float32[n_inputs, n], or bfloat16 as uint16
    which : int64[n_kinds], numbers of inputs
    keys : uint32[n_kinds, n]
    """
    base = x[0]
    for i in range(len(which)):
        row, out = x[which[i]], keys[i]
        for k in range(len(out)):
            out[k] = np.uint32(bits(value(row[k]) - value(base[k])) & _ABS)


@inline
def _beyond(keys, low, width):  # type: ignore[no-untyped-def]
    """How many of int32 ``keys`` are beyond the window."""
    count = np.int32(0)
    for k in range(len(keys)):
        offset = np.int32(np.int32(keys[k]) - low)
        count = np.int32(count + (np.int32(1) if offset >= width else np.int32(0)))
    return count


@inline
def _list(keys, low, width, found, n):  # type: ignore[no-untyped-def]
    """Append those of int32 ``keys`` in the window to ``found``, which holds ``n`` = uint64; how many it holds then."""
    limit = np.uint32(width)
    for k in range(len(keys)):
        offset = np.uint32(np.int32(np.int32(keys[k]) - low))
        found[n] = offset  # overwritten by the next one unless it counts: cheaper than a branch that goes either way
        n = np.uint64(n + np.uint64(offset < limit))
    return n


@kernel
def window(keys, kinds, lows, widths, above, hits, n_hits):  # type: ignore[no-untyped-def]
    """For every search list its keys in a window from ``low`` on, and count those beyond.

    keys : uint32[n_kinds, n]
    kinds : int64[n_searches], which keys
    lows, widths : uint32[n_searches], first key of the window and its size, both below 2^31
    above : int64[n_searches], added to
    hits : uint32[n_searches, n], keys in the window, less ``low``, in order
    n_hits : int64[n_searches], how many they are
    """
    for s in range(len(kinds)):
        found = np.uint64(0)
        low, width = np.int32(lows[s]), np.int32(widths[s])
        for at in range(0, keys.shape[1], _STEP):
            part = keys[kinds[s], at : at + _STEP]
            above[s] += _beyond(part, low, width)
            found = _list(part, low, width, hits[s], found)
        n_hits[s] = np.int64(found)


@kernel
def difference_window(x, which, lows, widths, above, hits, n_hits):  # type: ignore[no-untyped-def]
    """As ``window`` for the keys of differences of some inputs to the first, which are made on the way.

    x : float32[n_inputs, n], or bfloat16 as uint16
    which : int64[n_searches], numbers of inputs
    lows, widths, above, hits, n_hits : see ``window``
    """
    base, keys = np.empty(_STEP, np.float32), np.empty(_STEP, np.int32)
    found = np.zeros(len(which), np.uint64)
    for at in range(0, x.shape[1], _STEP):
        origin = x[0, at : at + _STEP]
        b, key = base[: len(origin)], keys[: len(origin)]
        for k in range(len(b)):
            b[k] = value(origin[k])
        for s in range(len(which)):
            if s == 0 or which[s] != which[s - 1]:
                row = x[which[s], at : at + _STEP]
                for k in range(len(key)):
                    key[k] = bits(value(row[k]) - b[k]) & _ABS
            above[s] += _beyond(key, np.int32(lows[s]), np.int32(widths[s]))
            found[s] = _list(key, np.int32(lows[s]), np.int32(widths[s]), hits[s], found[s])
    for s in range(len(which)):
        n_hits[s] = np.int64(found[s])


@kernel
def tally(hits, shift, counts):  # type: ignore[no-untyped-def]
    """Count hits by their upper bits.

    hits : uint32[n]
    shift : int64, how many lower bits do not count
    counts : int64[width of the window >> shift], added to
    """
    for k in range(len(hits)):
        counts[hits[k] >> np.uint32(shift)] += 1


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
