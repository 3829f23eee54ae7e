"""What ``streamconv/rows.py`` promises of a row source, as checks that every kind of rows has to pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from streamconv.rows import Floats, Rows, Span, digest_of, matrix_shape
from streamconv.sources.widen import STORED_TYPES, widen
from streamconv.workers import Workers


def check_rows(rows: Rows) -> None:
    """Assert that any cut of ``rows``, in any thread and wherever it is written, has the bits of the whole."""
    assert isinstance(rows, Rows)
    assert {rows: 1}[rows] == 1
    assert type(rows).__eq__ is object.__eq__, "rows are keys, and equal to nothing but themselves"
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


def check_spans(fresh: Callable[[], Rows], cut: tuple[int, int], folder: Path) -> None:
    """Assert that rows ``cut`` need no byte but those that they name: all others of weights in ``folder`` are inverted.

    ``fresh`` opens the rows anew, since some keep what they read; their files are changed meanwhile, so they must be copies.
    """
    rows = fresh()
    n_rows = matrix_shape(rows.shape)[0]
    expected = fresh().read(0, n_rows)
    spans = [*rows.spans(*cut), *(rows.everything() if rows.whole else ())]
    assert cut[0] < cut[1] or not list(rows.spans(*cut)), "no rows need no bytes"
    weights = {path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".gguf", ".sbs")}
    assert {span.file.path for span in spans} <= {file.path for file in rows.files} <= weights
    with inverted_elsewhere(weights, spans):
        assert same(rows.read(*cut), expected[slice(*cut)]), f"{rows!r}: rows {cut} need more than {spans}"
        check_stored(rows, *cut, expected[slice(*cut)])


def check_measured(fresh: Callable[[], Rows], folder: Path) -> None:
    """Assert that rows that are told what others have measured, as JSON, need no byte but their spans, and measure nothing."""
    rows, other = fresh(), fresh()
    assert bool(rows.looks) == rows.whole
    n_rows = matrix_shape(rows.shape)[0]
    cut = (n_rows // 3, n_rows - n_rows // 3)
    for look, its in zip(rows.looks, other.looks, strict=True):
        value = its.measure(Workers())
        assert value is not None
        its.measured(value)
        look.measured(json.loads(json.dumps(value)))
        look.measure = None  # type: ignore[method-assign,assignment]
    expected = fresh().read(*cut)
    weights = {path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".gguf", ".sbs")}
    with inverted_elsewhere(weights if rows.looks else (), [*rows.spans(*cut)]):
        assert same(rows.read(*cut), expected), (
            f"{rows!r}: rows {cut} need more than was measured and {[*rows.spans(*cut)]}"
        )
    assert same(other.read(*cut), expected)


@contextmanager
def inverted_elsewhere(paths: Iterable[Path], spans: Iterable[Span]) -> Iterator[None]:
    """All bytes of the files inverted but those of ``spans``, until the block ends; mappings of the files see it."""
    before = {path: path.read_bytes() for path in paths}
    for path, data in before.items():
        kept = np.zeros(len(data), bool)
        for span in (s for s in spans if s.file.path == path):
            assert 0 <= span.offset < span.offset + span.length <= len(data), f"{span} is not in the file"
            kept[span.offset : span.offset + span.length] = True
        now = np.frombuffer(data, np.uint8)
        _overwrite(path, np.where(kept, now, ~now).tobytes())
    try:
        yield
    finally:
        for path, data in before.items():
            _overwrite(path, data)


def _overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def check_identity(fresh: Callable[[], Rows]) -> None:
    """Assert that the identity of rows is JSON, the same whenever they are opened and whatever was read of them."""
    rows, again = fresh(), fresh()
    first = json.dumps(rows.identity())
    rows.read(0, matrix_shape(rows.shape)[0])
    assert json.dumps(rows.identity()) == json.dumps(again.identity()) == first
    assert [file.path for file in rows.files] == [file.path for file in again.files]
    assert len(digest_of(rows.identity())) == 64


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
