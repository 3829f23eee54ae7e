"""Row sources over row sources: any cut of them gives the rows of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from streamconv.models.transforms import Constant, FirstRows, Interleaved, PlusOne
from streamconv.rows import Bytes, Floats

HEADS, HEAD, N_COLS = 3, 6, 5  # half a head is an odd number of rows
N_ROWS = HEADS * HEAD


class HalfRows(Constant):
    """A tensor stored as float16."""

    def __init__(self, values: Floats) -> None:
        super().__init__(values)
        self.dtype = "F16"

    def stored(self, start: int, stop: int) -> Bytes | None:
        return self._rows[start:stop].astype(np.float16).view(np.uint8)


@pytest.fixture
def x() -> Floats:
    return np.random.default_rng(2).standard_normal((N_ROWS, N_COLS)).astype(np.float32)


def test_wherever_a_chunk_begins_and_ends_heads_are_reordered_as_in_the_whole(x: Floats) -> None:
    whole = x.reshape(HEADS, 2, HEAD // 2, N_COLS).swapaxes(1, 2).reshape(N_ROWS, N_COLS)
    rows = Interleaved(Constant(x), HEADS)
    for start in range(N_ROWS):
        for stop in range(start + 1, N_ROWS + 1):
            out = np.full((stop - start, N_COLS), np.nan, np.float32)
            assert rows.read(start, stop, out) is out
            assert (out == whole[start:stop]).all(), f"rows {start}..{stop} as values"
            stored = rows.stored(start, stop)
            assert stored is not None
            assert (stored.view(np.float32) == whole[start:stop]).all(), f"rows {start}..{stop} as bytes"


def test_a_bias_is_reordered_like_the_rows_of_its_matrix(x: Floats) -> None:
    bias = x[:, 0].copy()
    of_matrix = Interleaved(Constant(x), HEADS).read(0, N_ROWS)[:, 0]
    rows = Interleaved(Constant(bias), HEADS)
    assert rows.stored(0, 1) is None
    assert (rows.read(0, 1)[0] == of_matrix).all()


def test_heads_that_do_not_divide_the_rows_are_refused(x: Floats) -> None:
    for n_heads in (4, 6):  # 18 rows are not 4 heads, and heads of 3 rows have no pairs
        with pytest.raises(ValueError, match=f"are not {n_heads} heads of even width"):
            Interleaved(Constant(x), n_heads)


def test_one_is_added_in_the_precision_of_the_checkpoint() -> None:
    values = np.float32([[0.0001, -1, 0.33325195, 2047.5]])
    half = PlusOne(HalfRows(values))
    assert half.read(0, 1).tolist() == (values + np.float32(1)).astype(np.float16).astype(np.float32).tolist()
    assert PlusOne(Constant(values)).read(0, 1).tolist() == (values + np.float32(1)).tolist()
    assert half.stored(0, 1) is None


def test_the_first_rows_are_a_tensor_of_their_own(x: Floats) -> None:
    rows = FirstRows(Constant(x), 7)
    assert rows.shape == (7, N_COLS)
    assert (rows.read(2, 7) == x[2:7]).all()
