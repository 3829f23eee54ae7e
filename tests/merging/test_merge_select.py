"""Selection by rank: the same set as sorting gives, whatever way it is found."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamconv.merging import select as selection
from streamconv.merging.inputs import Inputs
from streamconv.merging.select import Cut, Differences, KeySource, MadeKeys, select
from streamconv.merging.stream import Stream
from streamconv.rows import Floats
from streamconv.workers import Workers


class Rows:
    """A matrix as a row source."""

    dtype = "F32"

    def __init__(self, values: Floats) -> None:
        self.values = values
        self.shape = values.shape

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        if out is None:
            return self.values[start:stop].copy()
        out[...] = self.values[start:stop]
        return out

    def stored(self, start: int, stop: int) -> None:
        return None

    def prefetch(self, start: int, stop: int) -> None: ...

    def release(self, start: int, stop: int) -> None: ...


def cuts_of(values: Floats, ranks: list[int], threads: int, keys: KeySource) -> list[Cut]:
    """What ``select`` finds, with helpers beside the thread that calls it."""
    workers = Workers()
    helpers = [threading.Thread(target=workers.help) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    try:
        return select(Stream(Inputs([Rows(np.zeros_like(values)), Rows(values)], None), workers), keys, [ranks])[0]
    finally:
        workers.dismiss()
        for helper in helpers:
            helper.join()


def chosen(values: Floats, ranks: list[int], threads: int = 1) -> list[np.ndarray]:
    """For every rank which elements belong to the set, found with ``select``."""
    cuts = cuts_of(values, ranks, threads, Differences([1]))

    def made(x: Floats, start: int, keys: np.ndarray) -> None:
        keys[0] = np.abs(x[1]).reshape(-1).view("<u4")

    assert cuts_of(values, ranks, threads, MadeKeys(made)) == cuts
    keys = np.abs(values).reshape(-1).view("<u4")
    return [(keys > cut.threshold) | ((keys == cut.threshold) & (np.arange(keys.size) < cut.ties)) for cut in cuts]


def expected(values: Floats, rank: int) -> np.ndarray:
    """The same by a stable sort."""
    order = np.argsort(-np.abs(values).reshape(-1).astype(np.float64), kind="stable")
    found = np.zeros(values.size, bool)
    found[order[:rank]] = True
    return found


def same(found: np.ndarray, values: Floats, rank: int) -> None:
    want, magnitudes = expected(values, rank), np.abs(values).reshape(-1)
    # zeros are all alike: keeping them or not is the same
    np.testing.assert_array_equal(found & (magnitudes > 0), want & (magnitudes > 0))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sets_are_those_of_a_stable_sort(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 50)))
    n = shape[0] * shape[1]
    kind = data.draw(st.sampled_from(["normal", "few", "equal", "zeros", "wide"]))
    r = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = {
        "normal": r.standard_normal(shape), "few": r.integers(-3, 4, shape), "equal": np.full(shape, 0.5),
        "zeros": np.zeros(shape), "wide": 10.0 ** r.integers(-38, 38, shape),
    }[kind].astype("<f4")  # fmt: skip
    ranks = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=3, unique=True))
    for rank, found in zip(ranks, chosen(values, ranks, data.draw(st.integers(1, 3))), strict=True):
        same(found, values, rank)


@pytest.mark.parametrize("listed", [selection._LISTED, 1000, 0])
def test_a_sample_aims_and_lists_overflow_into_counts(listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_LISTED", listed)
    monkeypatch.setattr(selection, "_SMALL", 1 << 10)
    r = np.random.default_rng(1)
    for values in (r.standard_normal((2000, 200)), np.round(r.standard_normal((2000, 200)), 2)):
        values = values.astype("<f4")
        ranks = [1, 1000, 200_000, 399_999]
        for threads in (1, 3):
            for rank, found in zip(ranks, chosen(values, ranks, threads), strict=True):
                same(found, values, rank)


def test_a_sample_that_misleads_costs_a_pass_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_MARGIN", 0.01)
    values = np.random.default_rng(2).standard_normal((1000, 512)).astype("<f4")
    values[::7] *= 1e3  # blocks are alike in nothing
    values[300:420] *= 1e-6
    for rank, found in zip([100, 250_000], chosen(values, [100, 250_000]), strict=True):
        same(found, values, rank)
