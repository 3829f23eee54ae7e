"""The kernels of task vectors against plain numpy: blocks and segments that end anywhere, from any element of a tensor on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamconv.kernels import load
from streamconv.merging.counter_random import CounterRandom

Floats = NDArray[np.float32]
_ALL = 0x7FFFFFFF
_N = 3000
#: the streams of two inputs; a third is kept whole, a fourth not at all
STREAMS = [CounterRandom(1, "tensor", i) for i in range(2)]
LIMITS = [1 << 31, 1 << 28, 1 << 32, 0]
CHANCES = np.array(
    [[*STREAMS[0].key, LIMITS[0]], [*STREAMS[1].key, LIMITS[1]], [0, 0, LIMITS[2]], [0, 0, 0]], np.uint64
)
#: where segments end, and the bounds of the keys that are kept in them of each input
BOUNDS = np.array(
    [
        [1, -1, _ALL, -1, _ALL, 0x3F000000, _ALL, -1, _ALL],
        [1029, -1, _ALL, 0x3E000000, _ALL, 0x3F000000, 0x3FC00000, -1, _ALL],
        [_N, -1, _ALL, 0x3E000001, _ALL, -1, 0x3F800000, -1, _ALL],
    ],
    np.int32,
)


@pytest.fixture(params=["float32", "bfloat16"])
def inputs(request: pytest.FixtureRequest) -> tuple[NDArray[Any], Floats]:
    """What the kernels read, and the same numbers as float32: so far apart that sums in float64 depend on the order."""
    r = np.random.default_rng(0)
    x = (r.standard_normal((5, _N)) * 2.0 ** r.integers(-40, 20, (5, _N))).astype(np.float32)
    if request.param == "float32":
        return x, x
    words = (x.view(np.uint32) >> 16).astype(np.uint16)
    return words, (words.astype(np.uint32) << 16).view(np.float32)


def kept(x: Floats, first: int) -> tuple[Floats, Floats]:
    """All differences, and those with zeros where chance or bounds do not keep them."""
    d = x[1:] - x[0]
    thin = d.copy()
    for i, limit in enumerate(LIMITS):
        words = np.zeros(_N, np.uint32)
        if i < len(STREAMS):
            STREAMS[i].words(first, words)
        thin[i][words >= limit] = 0
        at = 0
        for end, *limits in BOUNDS.tolist():
            keys = np.abs(thin[i, at:end]).view(np.int32)
            thin[i, at:end][(keys <= limits[2 * i]) | (keys > limits[2 * i + 1])] = 0
            at = end
    return d, thin


def in_order(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows added up one after the other."""
    total: NDArray[Any] = np.cumsum(np.concatenate([np.zeros_like(rows[:1]), rows]), axis=0, dtype=rows.dtype)[-1]
    return total


def magnitude_sum(d: Floats) -> float:
    """Σ|d| in the order that is promised: 16 sums side by side, then these, then what is left."""
    wide = np.abs(d).astype(np.float64)
    whole = len(d) - len(d) % 16
    sums = in_order(wide[:whole].reshape(-1, 16)) if whole else np.zeros(16)
    return float(in_order(np.concatenate([sums, wide[whole:]])))


@pytest.mark.parametrize("first", [0, 1, 2, 3, 12345])
@pytest.mark.parametrize("block", [_N, 1024, 700, 129, 16, 5])
def test_magnitudes_are_added_up_in_the_order_that_is_promised(
    inputs: tuple[NDArray[Any], Floats], block: int, first: int
) -> None:
    stored, x = inputs
    found = np.full((-(-_N // block), 2, 4), np.nan)
    load(".merging.kernels.sparse").magnitudes(stored, np.zeros(4, np.uint8), BOUNDS, CHANCES, first, block, found)
    for number, sums in enumerate(found):
        for each, d in zip(sums, kept(x, first), strict=True):
            assert each.tolist() == [magnitude_sum(row) for row in d[:, number * block : (number + 1) * block]]


@pytest.mark.parametrize("first", [0, 3, 12345])
@pytest.mark.parametrize("vote", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_what_is_kept_is_weighed_voted_on_and_added(
    inputs: tuple[NDArray[Any], Floats], vote: bool, normalize: bool, first: int
) -> None:
    stored, x = inputs
    weights, scales = np.array([0.5, -0.3, 1, 2], np.float32), np.array([1.5, 1, 1, 1], np.float32)
    factor, out = np.float32(0.9), np.empty(_N, np.float32)
    load(".merging.kernels.sparse").combine(
        stored, np.zeros(4, np.uint8), BOUNDS, CHANCES, first, weights, scales, vote, normalize, factor, out
    )
    q = kept(x, first)[1] * scales[:, None] * weights[:, None]
    total, agree = in_order(q), np.ones_like(q, bool)
    if vote:
        agree = np.where(total >= 0, q > 0, q < 0)
        total = in_order(np.where(agree, q, np.float32(0)))
    if normalize:
        divisor = in_order(np.where(agree, weights[:, None], np.float32(0)))
        total = total / np.where(divisor == 0, np.float32(1), divisor)
    np.testing.assert_array_equal(out.view(np.uint32), (x[0] + total * factor).view(np.uint32))


def test_from_an_input_that_holds_differences_nothing_is_subtracted() -> None:
    x = np.random.default_rng(1).standard_normal((5, _N)).astype(np.float32)
    found = []
    for stored, ready in ((x, 0), (np.concatenate([x[:1], x[1:] - x[0]]), 1)):
        out, sums = np.empty(_N, np.float32), np.empty((1, 2, 4))
        sparse, each, ones = load(".merging.kernels.sparse"), np.full(4, ready, np.uint8), np.ones(4, np.float32)
        sparse.combine(stored, each, BOUNDS, CHANCES, 7, ones, ones, True, True, np.float32(1), out)
        sparse.magnitudes(stored, each, BOUNDS, CHANCES, 7, _N, sums)
        found.append((out.tobytes(), sums.tobytes()))
    assert found[0] == found[1]
