"""What is compiled from vectors of LLVM does what its Python says, whatever the numbers are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from streamconv.kernels import blocks
from streamconv.kernels.lanes import kernel

F32, I32 = np.float32, np.int32


def rows() -> Iterator[np.ndarray]:
    """float32[32]: ordinary ones, zeros of both signs, NaN and infinities of both signs, denormals, any bits."""
    rng = np.random.default_rng(3)
    yield rng.standard_normal(32, dtype=F32)
    yield -np.abs(rng.standard_normal(32, dtype=F32))
    yield np.array([0.0, -0.0] * 16, F32)
    special = rng.standard_normal(32, dtype=F32)
    special[[3, 9, 20, 30]] = np.nan, -np.nan, np.inf, -np.inf
    yield special
    yield (rng.integers(0, 1 << 20, 32, dtype=np.uint32)).view(F32)
    for _ in range(8):
        yield rng.integers(0, 1 << 32, 32, dtype=np.uint32).view(F32)


def as_words(x: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers: bfloat16."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


@kernel
def extremes(x):  # type: ignore[no-untyped-def]
    """x : float32[32] or uint16[32]"""
    return blocks.highest(x), blocks.highest_negated(x), blocks.lowest_ordered(x), blocks.highest_ordered(x)


@kernel
def truncated(x, base, factor, offset, cap, five, row, start):  # type: ignore[no-untyped-def]
    """As ``truncated_levels``."""
    blocks.truncated_levels(x, base, factor, offset, cap, five, row, start)


@kernel
def nearest(x, base, factor, bottom, top, five, row, start):  # type: ignore[no-untyped-def]
    """As ``nearest_levels``."""
    blocks.nearest_levels(x, base, factor, bottom, top, five, row, start)


@kernel
def moved(x, bytes_, columns, target, back):  # type: ignore[no-untyped-def]
    """x : float32[512]; bytes_, back : uint8[64]; columns, target : float32[n]."""
    blocks.transpose(x, 3, 21, columns, 5, 17)
    blocks.copy_16(x, 2, target, 1)
    blocks.copy_16(bytes_, 7, target, 20)
    blocks.copy_16(target, 20, back, 9)


@pytest.mark.parametrize("words", [False, True], ids=["float32", "bfloat16"])
def test_maxima_are_those_of_the_bits(words: bool) -> None:
    for x in rows():
        given = as_words(x) if words else x
        wanted = extremes.py_func(given)
        assert tuple(extremes(given)) == tuple(int(v) for v in wanted)
        numbers = (given.astype(np.uint32) << 16).view(F32) if words else given
        if not np.isnan(numbers).any():
            ends = [blocks.from_ordered(I32(v), I32(16 if words else 0)) for v in wanted[2:]]
            assert ends == [numbers.min(), numbers.max()]


@pytest.mark.parametrize("five", [False, True])
def test_levels_are_rounded_limited_and_put_together_as_written(five: bool) -> None:
    for x in rows():
        x = np.where(np.abs(x) < 1e30, x, F32(0)).astype(F32)  # what a scale that fits leaves
        with np.errstate(all="ignore"):
            for function, numbers in (
                (truncated, (F32(-0.3), F32(7.5), F32(0.5), F32(31 if five else 15))),
                (nearest, (F32(0.1), F32(5.0), I32(-16), I32(15)) if five else (F32(0), F32(-3.0), I32(0), I32(15))),
            ):
                for given in (x, as_words(x)):
                    compiled, written = np.zeros((2, 24), np.uint8)
                    function(given, *numbers, five, compiled, 6)
                    function.py_func(given, *numbers, five, written, 6)
                    assert compiled.tolist() == written.tolist()
                    assert five or not compiled[:6].any()


def test_columns_and_bytes_come_where_they_belong() -> None:
    x = np.arange(512, dtype=F32)
    bytes_ = np.arange(200, 264, dtype=np.int64).astype(np.uint8)
    compiled = np.zeros(400, F32), np.zeros(64, F32), np.zeros(64, np.uint8)
    written = tuple(np.zeros_like(a) for a in compiled)
    moved(x, bytes_, *compiled)
    moved.py_func(x, bytes_, *written)
    for a, b in zip(compiled, written, strict=True):
        assert a.tolist() == b.tolist()
    assert written[0][5 + 17 * 2 + 4] == x[3 + 21 * 4 + 2]
    assert written[2][9:25].tolist() == bytes_[7:23].tolist()
