"""NUQ: 256 values in 144 bytes; sixteen centres of clusters, and four bits a value that say which.

    centre SFP[16] | index 4 bits [256]         a byte holds the index of an even value (low) and of the odd one after it (high)

The clusters are the best there are (``_clusters.py``). A shorter last group is filled with its largest value.

Source: gemma.cpp ``compression/nuq-inl.h`` (October 2025), built for a processor with FMA; bit-exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.lanes import ZERO, bits, from_bits, inline, kernel, magnitude
from ...kernels.tiles import value
from ...rows import Bytes, Floats
from ._clusters import MARKS, PAD, SQUARES, SUM, K, N, fill_least, first_of_cluster, make_tables
from .sfp import from_sfp, in_range, to_sfp
from .types import SbsCodec, inverse_of

_BYTES = 16 + N // 2
#: the lowest bits of a value give way to its number in the group
_NUMBER = np.int32(N - 1)
_SIGN = np.int32(-0x80000000)
#: of float32 sums beside exact ones, for ``_clusters``: 48 roundings of half a unit each
_MARGIN = 48 * 2.0**-24
_TABLES = make_tables()


@inline
def _sort(words, spare, counts):  # type: ignore[no-untyped-def]
    """Sort bits of floats with their numbers as the floats would be sorted: by the upper three bytes, one after the other.

    words, spare : int32[N]; counts : int64[3, 256]
    """
    counts[:] = 0
    front, back = 0, N - 1
    for i in range(N):
        word = words[i]
        # negative ones with the same upper bytes go from the last number to the first
        key = np.int32(~word if word < 0 else word | _SIGN)
        at = back if word < 0 else front
        back, front = back - (word < 0), front + (word >= 0)
        spare[at] = key
        for d in range(3):
            counts[d, np.int32(key >> (8 * d + 8)) & 255] += 1
    for d in range(3):
        total = 0
        for i in range(256):
            counts[d, i], total = total, total + counts[d, i]
        source, target = (words, spare) if d == 1 else (spare, words)
        for i in range(N):
            key = source[i]
            byte = np.int32(key >> (8 * d + 8)) & 255
            target[counts[d, byte]] = key
            counts[d, byte] += 1
    for i in range(N):
        key = words[i]
        words[i] = np.int32(key & ~_SIGN) if key < 0 else np.int32(~key)


@inline
def _load(x, inverse, words):  # type: ignore[no-untyped-def]
    """words : int32[N], the bits of the group's values in units of the scale, each with its number."""
    top = in_range(value(x[0]), inverse)
    for i in range(len(x)):
        v = in_range(value(x[i]), inverse)
        top = v if v > top else top
        words[i] = np.int32(np.int32(bits(v) & ~_NUMBER) | np.int32(i))
    for i in range(len(x), N):
        words[i] = np.int32(np.int32(bits(top) & ~_NUMBER) | np.int32(i))


@inline
def _add_up(words, exact, sums):  # type: ignore[no-untyped-def]
    """The sums before each sorted value, in double and rounded; return the margin of ``fill_least``.

    words : int32[N]; exact : float64[N + 1]; sums : float32[2, N + 1 + pad]
    """
    s, squares, largest = 0.0, 0.0, 0.0
    for i in range(N):
        v = np.float64(from_bits(np.int32(words[i] & ~_NUMBER)))
        s += v
        squares += v * v
        exact[i + 1] = s
        sums[SUM, i + 1], sums[SQUARES, i + 1] = np.float32(s), np.float32(squares)
        largest = max(largest, abs(s))
    low, high = magnitude(from_bits(words[0])), magnitude(from_bits(words[N - 1]))
    # off are the sums (one rounding of the largest) and their differences, which count twice the mean, and those of the squares
    return np.float32(_MARGIN * (np.float64(max(low, high)) * largest + squares) + 2.0**-100)


@kernel
def _encode(x, out, inverse, tables):  # type: ignore[no-untyped-def]
    """x : float32[n], or bfloat16 as uint16; out : uint8[n_bytes]; inverse : float32, 1 / scale; tables : see ``_clusters``."""
    words, spare, counts = np.empty(N, np.int32), np.empty(N, np.int32), np.empty((3, 256), np.int64)
    exact, sums, index = np.zeros(N + 1), np.zeros((2, N + 1 + PAD), np.float32), np.empty(N, np.uint8)
    least, window = np.zeros((K, N + PAD), np.float32), np.zeros((K, MARKS + 1, 2), np.int64)
    costs = np.empty(N + PAD, np.float32)
    for g in range(-(-len(x) // N)):
        values, group = x[g * N : (g + 1) * N], out[g * _BYTES : (g + 1) * _BYTES]
        _load(values, inverse, words)
        _sort(words, spare, counts)
        margin = _add_up(words, exact, sums)
        rows = fill_least(sums, tables, margin, least, window, costs)
        last = N - 1
        for k in range(K - 1, -1, -1):
            centre = ZERO
            if last >= 0:
                a = first_of_cluster(sums, tables, least, window, min(k, rows), last)
                centre = np.float32((exact[last + 1] - exact[a]) / np.float64(last + 1 - a))
                for i in range(a, last + 1):
                    index[words[i] & _NUMBER] = np.uint8(k)
                last = a - 1
            group[k] = to_sfp(centre)
        for i in range((len(values) + 1) // 2):
            group[16 + i] = np.uint8(index[2 * i] | np.uint8(index[2 * i + 1] << np.uint8(4)))


@kernel
def _decode(data, out):  # type: ignore[no-untyped-def]
    """data : uint8[n_bytes]; out : float32[n]."""
    centres = np.empty(K, np.float32)
    for g in range(-(-len(out) // N)):
        values, group = out[g * N : (g + 1) * N], data[g * _BYTES : (g + 1) * _BYTES]
        for k in range(K):
            centres[k] = from_sfp(np.int32(group[k]))
        for i in range(len(values) // 2):
            byte = group[16 + i]
            values[2 * i], values[2 * i + 1] = centres[byte & np.uint8(15)], centres[byte >> np.uint8(4)]
        if len(values) % 2:
            values[len(values) - 1] = centres[group[16 + len(values) // 2] & np.uint8(15)]


def _packed(x: Any, out: Bytes, scale: np.float32) -> None:
    _encode(x, out, inverse_of(scale), _TABLES)


def _unpacked(data: Bytes, out: Floats) -> None:
    _decode(data, out)


CODEC = SbsCodec(_packed, _unpacked)
