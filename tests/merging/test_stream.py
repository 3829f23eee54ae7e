"""Passes over all rows of a tensor: the same for any number of threads, in memory that does not grow with the rows."""

from __future__ import annotations

import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from test_crew import helped
from test_merge_select import Rows

from streamconv.errors import Stopped
from streamconv.merging.inputs import Inputs, Numbers
from streamconv.merging.merged import MergedRows
from streamconv.merging.method import Task
from streamconv.merging.methods import METHODS
from streamconv.merging.stream import Stream
from streamconv.workers import Workers

TILES = 60


def tiles(workers: Workers) -> Stream:
    """A tensor of ``TILES`` tiles of one row."""
    stream = Stream(Inputs([Rows(np.zeros((TILES, 64 << 10), np.float32))], None), workers)
    assert stream.n_tiles == TILES
    return stream


class Part:
    """What a tile adds."""

    def __init__(self, start: int) -> None:
        self.value = np.array([1 / (1 + start)])

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        yield self.value


@pytest.mark.parametrize("helpers", [0, 2])
def test_sums_are_added_in_the_order_of_tiles_and_not_kept(helpers: int) -> None:
    alive: weakref.WeakSet[Part] = weakref.WeakSet()
    leader, workers = threading.current_thread(), Workers()

    def look(x: Numbers, start: int) -> Part:
        if threading.current_thread() is not leader:
            time.sleep(0.002 * (start % 3))
        part = Part(start)
        alive.add(part)
        if not helpers:
            assert len(alive) <= 2
        return part

    total, expected = np.zeros(1), np.zeros(1)
    for start in range(TILES):
        expected += 1 / (1 + start)
    if helpers:
        with helped(workers, helpers):
            tiles(workers).add_up(look, total)
    else:
        tiles(workers).add_up(look, total)
    assert total == expected


def test_a_pass_that_fails_ends_at_once_and_for_all_who_take_part() -> None:
    begun, joined = [], threading.Barrier(3)

    def look(x: Numbers, start: int) -> None:
        begun.append(start)
        if start > 2:
            time.sleep(0.02)
            return
        joined.wait(10)  # all threads are in it
        if start == 0:
            raise OSError("gone")

    workers = Workers()
    with ThreadPoolExecutor(2) as pool:
        helpers = [pool.submit(workers.help) for _ in range(2)]
        with pytest.raises(OSError, match="gone") as failed:
            tiles(workers).map(look)
        workers.dismiss(failed.value)
        for helper in helpers:
            assert isinstance(helper.exception(10), OSError)
    assert len(begun) < TILES / 2


def test_weights_of_columns_take_no_memory_for_every_tile() -> None:
    settings = {"nuslerp_flatten": False, "nuslerp_row_wise": True}

    def prepare(n_rows: int, n_cols: int) -> None:
        task = Task("w", n_rows, n_cols, 2, "ab", False, settings, [{"weight": 1.0}, {"weight": 2.0}])
        rows = Rows(np.ones((n_rows, n_cols), np.float32))
        tracemalloc.reset_peak()
        MergedRows("w", [rows, rows], METHODS["nuslerp"].bound(task), "F32").measure(Workers())

    prepare(1, 2048)  # compiles
    tracemalloc.start()
    try:
        prepare(2048, 2048)
        inputs, sums = 4 * 2048 * 2048, 8 * 3 * 2048
        assert tracemalloc.get_traced_memory()[1] - inputs < 30 * sums
    finally:
        tracemalloc.stop()


def test_a_pass_ends_soon_when_nobody_wants_its_rows_any_more() -> None:
    looked: list[int] = []
    with pytest.raises(Stopped):
        tiles(Workers(lambda: len(looked) < 5)).map(lambda x, start: looked.append(start))
    assert looked == [0, 1, 2, 3, 4]
    tiles(Workers()).map(lambda x, start: looked.append(start))
    assert len(looked) == 5 + TILES
