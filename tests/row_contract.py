"""What ``streamconv/rows.py`` promises of a row source, as one check that every kind of rows has to pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from streamconv.rows import Floats, Rows, matrix_shape
from streamconv.sources.widen import STORED_TYPES, widen


def check_rows(rows: Rows) -> None:
    """Assert that any cut of ``rows``, in any thread and wherever it is written, has the bits of the whole."""
    assert isinstance(rows, Rows)
    n_rows, n_cols = matrix_shape(rows.shape)
    whole = rows.read(0, n_rows)
    assert (whole.shape, whole.dtype) == ((n_rows, n_cols), np.float32)
    for start, stop in cuts(n_rows):
        rows.prefetch(start, stop)
        expected = whole[start:stop]
        assert same(rows.read(start, stop), expected), f"rows {start}..{stop}"
        out = np.full((stop - start, n_cols + 3), np.nan, np.float32)[:, :n_cols]
        assert rows.read(start, stop, out) is out
        assert same(out, expected), f"rows {start}..{stop}, written where rows do not touch"
        check_stored(rows, start, stop, expected)
        rows.release(start, stop)
    with ThreadPoolExecutor(3) as pool:
        for (start, stop), part in zip(cuts(n_rows), pool.map(lambda cut: rows.read(*cut), cuts(n_rows)), strict=True):
            assert same(part, whole[start:stop]), f"rows {start}..{stop}, after they were released, by another thread"


def check_stored(rows: Rows, start: int, stop: int, expected: Floats) -> None:
    """Assert that the bytes of the rows, where there are any, are their values in the type the rows have."""
    stored = rows.stored(start, stop)
    if stored is None:
        assert rows.stored(0, 0) is None, "an empty range tells for all whether they are stored"
        return
    assert (stored.dtype, len(stored)) == (np.uint8, stop - start)
    if rows.dtype in STORED_TYPES and stored.size:
        values = np.empty(expected.shape, np.float32)
        widen(rows.dtype, np.ascontiguousarray(stored), values)
        assert same(values, expected), f"rows {start}..{stop} as they are stored"


def cuts(n_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows: none, all, the halves of all, one at either end, and some that begin and end anywhere."""
    rng = np.random.default_rng(n_rows)
    ends = np.sort(rng.integers(0, n_rows + 1, (6, 2)))
    edges = [(0, 0), (n_rows, n_rows), (0, n_rows), (0, n_rows // 2), (n_rows // 2, n_rows)]
    yield from edges
    if n_rows:
        yield from [(0, 1), (n_rows - 1, n_rows)]
    yield from ((int(a), int(b)) for a, b in ends)


def same(a: Floats, b: Floats) -> bool:
    """Whether all bits are the same, those of NaN and the sign of zero too."""
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def values_of(rows: Rows) -> Floats:
    """All values, float32 in the rows' own shape."""
    return rows.read(0, matrix_shape(rows.shape)[0]).reshape(rows.shape)
