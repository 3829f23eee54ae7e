"""What ``streamconv.kernels.simd`` gives kernels, in numpy: vectors are arrays of one dimension, and their operators numpy's.

``install`` puts it in that module's place, before any kernel is imported.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[Any]


def install() -> None:
    """Let kernels that are imported from now on find this module as ``streamconv.kernels.simd``."""
    assert "streamconv.kernels.simd" not in sys.modules
    sys.modules["streamconv.kernels.simd"] = sys.modules[__name__]


def _load(array: Lanes, at: int, n: int) -> Lanes:
    lanes: Lanes = array[at : at + n].copy()
    assert len(lanes) == n, "read past the end"
    return lanes


def load16(array: Lanes, at: int) -> Lanes:
    return _load(array, at, 16)


def load32(array: Lanes, at: int) -> Lanes:
    return _load(array, at, 32)


def store(array: Lanes, at: int, v: Lanes) -> None:
    assert at + len(v) <= len(array), "written past the end"
    array[at : at + len(v)] = v


def spread(value: float, like: Lanes) -> Lanes:
    return np.full(len(like), value)


def choose(mask: Lanes, a: Lanes, b: Lanes) -> Lanes:
    assert a.dtype == b.dtype
    return np.where(mask, a, b)


def to_floats(v: Lanes) -> Lanes:
    return v.astype(np.float32)


def as_ints(v: Lanes) -> Lanes:
    return v.view(np.int32)


def as_floats(v: Lanes) -> Lanes:
    return v.view(np.float32)


def roots(v: Lanes) -> Lanes:
    return np.sqrt(v)


def lane_bits(mask: Lanes) -> int:
    return sum(1 << int(i) for i in np.flatnonzero(mask))


def first_bit(v: int) -> int:
    v = int(v) & (1 << 64) - 1
    return (v & -v).bit_length() - 1 if v else 64


def count_bits(v: int) -> int:
    return (int(v) & (1 << 64) - 1).bit_count()


def shift_lanes(v: Lanes) -> Lanes:
    return np.concatenate([v[:1], v[:-1]])


def largest_lane(v: Lanes) -> Any:
    return v.max()


def least_lane(v: Lanes) -> Any:
    return v.min()


def look_up(table: Lanes, index: Lanes) -> Lanes:
    found: Lanes = table[index & 15]
    return found
