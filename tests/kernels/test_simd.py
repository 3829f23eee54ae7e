"""Vectors as values inside kernels."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from streamconv.kernels.simd import (
    choose,
    count_bits,
    first_bit,
    lane_bits,
    largest_lane,
    least_lane,
    load16,
    look_up,
    shift_lanes,
    spread,
    store,
)


@njit
def look_at(table, places, out, found):  # type: ignore[no-untyped-def]
    t, p = load16(table, 0), load16(places, 1)
    looked_up = look_up(t, p >> np.int32(8))
    store(out, 0, looked_up)
    store(out, 16, choose(t > looked_up, t * np.float32(2) - looked_up, spread(np.float32(7), t)))
    found[0] = lane_bits(t > looked_up)
    found[1] = first_bit(found[0])
    found[2] = count_bits(found[0])
    found[3] = lane_bits(p != shift_lanes(p))
    found[4] = largest_lane(t)
    found[5] = least_lane(p)


@njit
def mix(table, places):  # type: ignore[no-untyped-def]
    return lane_bits(load16(table, 0) + load16(places, 0) > np.float32(0))


def test_every_lane_gets_what_numpy_computes() -> None:
    rng = np.random.default_rng(3)
    table = rng.permutation(16).astype(np.float32)
    places = rng.integers(0, 1 << 20, 17).astype(np.int32)
    places[4] = places[5]
    out, found = np.zeros(32, np.float32), np.zeros(6, np.int64)
    look_at(table, places, out, found)
    p = places[1:]
    looked_up = table[p >> 8 & 15]
    above = table > looked_up
    assert (out[:16] == looked_up).all()
    assert (out[16:] == np.where(above, table * 2 - looked_up, 7)).all()
    bits = int(np.dot(above, 1 << np.arange(16)))
    changes = np.concatenate([[False], p[1:] != p[:-1]])
    expected = [bits, np.flatnonzero(above)[0], above.sum(), np.dot(changes, 1 << np.arange(16)), 15, p.min()]
    assert found.tolist() == expected


def test_vectors_of_different_numbers_do_not_mix() -> None:
    with pytest.raises(TypingError):
        mix(np.zeros(16, np.float32), np.zeros(16, np.int32))
