"""Bytes that several tensors are made of are read from disk once: they stay in the page cache until the last was made."""

from __future__ import annotations

import numpy as np

from streamconv.kit import Transposed, cut, split
from streamconv.quant.encode import EncodedRows, mark_read_again
from streamconv.rows import Bytes, File, Rows
from streamconv.sources.stored import StoredRows


class Watched(File):
    """Bytes in memory, and what was said of them."""

    def __init__(self, n_bytes: int) -> None:
        self.data = np.arange(n_bytes, dtype=np.uint8)
        self.said: list[str] = []

    def view(self, offset: int, length: int) -> Bytes:
        return self.data[offset : offset + length]

    def release(self, offset: int, length: int) -> None:
        self.said.append("release")

    def unmap(self, offset: int, length: int) -> None:
        self.said.append("unmap")


def said(parts: list[Rows], file: Watched) -> list[str]:
    items = [EncodedRows(str(n), rows, number=n) for n, rows in enumerate(parts)]
    mark_read_again(items)
    for item in items:
        item.release(0, item.n_rows)
    return file.said


def stored() -> tuple[StoredRows, Watched]:
    file = Watched(2 * 4 * 6 * 4)
    return StoredRows(file, 0, "experts", (2, 4, 6), "F32"), file  # type: ignore[arg-type]


def test_halves_of_rows_leave_their_pages_in_the_cache_until_the_last_was_made() -> None:
    rows, file = stored()
    assert said([Transposed(half) for half in split(rows, [3, 3], 2)], file) == ["unmap", "release"]


def test_parts_that_lie_apart_are_released_one_by_one() -> None:
    rows, file = stored()
    assert said([cut(rows, 0, 1), cut(rows, 1, 2)], file) == ["release", "release"]


def test_a_tensor_alone_is_released() -> None:
    rows, file = stored()
    assert said([rows], file) == ["release"]
