"""Squares of inputs, summed over tokens in whatever order they come."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streamconv.errors import BadInput
from streamconv.forward.importance import Importance, squares
from streamconv.quant.imatrix_files import Shape

RNG = np.random.default_rng(3)
BLOCKS = [RNG.standard_normal((n, 24)).astype(np.float32) for n in (40, 40, 40, 17)]
EXPERTS = {(e, b): RNG.standard_normal((e + b + 1, 8)).astype(np.float32) for e in (0, 2) for b in range(3)}
SHAPES = [Shape("w", 1, 24), Shape("e", 3, 8)]


def _told(order: list[tuple[str, int, int | None]]) -> dict[str, tuple[bytes, list[int]]]:
    importance = Importance(SHAPES)
    for name, block, expert in order:
        importance(name, block, BLOCKS[block] if expert is None else EXPERTS[expert, block], expert)
    return {name: (f.squares.tobytes(), f.counts.tolist()) for name, f in importance.result().items()}


ALL = [*(("w", b, None) for b in range(4)), *(("e", b, e) for e, b in EXPERTS)]


def test_squares_are_those_of_float64_arithmetic() -> None:
    x = BLOCKS[0]
    assert np.allclose(squares(x), (x.astype(np.float64) ** 2).sum(axis=0), rtol=1e-6)


def test_sums_and_counts_are_those_of_all_tokens() -> None:
    importance = Importance(SHAPES)
    for name, block, expert in ALL:
        importance(name, block, BLOCKS[block] if expert is None else EXPERTS[expert, block], expert)
    found = importance.result()
    whole = np.concatenate(BLOCKS).astype(np.float64)
    assert np.allclose(found["w"].squares, (whole**2).sum(axis=0), rtol=1e-6)
    assert found["w"].counts.tolist() == [137]
    assert found["e"].counts.tolist() == [6, 0, 12]
    assert not found["e"].squares[1].any()


def test_the_order_in_which_blocks_come_changes_no_bit() -> None:
    first = _told(ALL)
    for seed in range(5):
        order = ALL[:]
        random.Random(seed).shuffle(order)
        assert _told(order) == first


def test_what_has_no_entry_is_ignored() -> None:
    importance = Importance([])
    importance("other", 0, BLOCKS[0])
    assert importance.result() == {}


def test_nan_among_the_inputs_is_refused_by_name() -> None:
    importance = Importance(SHAPES)
    importance("w", 0, np.full((2, 24), np.nan, np.float32))
    with pytest.raises(BadInput, match="w: NaN or Inf"):
        importance.result()


def test_halves_tell_how_much_chance_is_in_the_numbers() -> None:
    importance = Importance([Shape("w", 1, 2)])
    importance("w", 0, np.full((4, 2), 1, np.float32))
    assert importance.result()["w"].deviation == 0  # only one half was there
    importance("w", 1, np.full((4, 2), 2, np.float32))
    assert importance.result()["w"].deviation == pytest.approx(0.75)  # 1 for 4
