"""The kit of rows: every piece gives what numpy gives for the whole tensor, wherever a chunk begins and ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from row_contract import check_rows, values_of

from streamconv.errors import BadInput
from streamconv.kit import (
    Constant,
    Function,
    Mapped,
    Product,
    Resampled,
    Reshaped,
    Selected,
    Stacked,
    Sum,
    Transposed,
    UnitColumns,
    WithLargest,
    Zeros,
    cut,
    every,
    interleaved,
    join,
    split,
    take,
    transposed,
)
from streamconv.rows import Bytes, Floats, Rows
from streamconv.workers import Workers

HEADS, HEAD, N_COLS = 3, 6, 5  # half a head is an odd number of rows
N_ROWS = HEADS * HEAD
X: Floats = np.random.default_rng(2).standard_normal((N_ROWS, N_COLS)).astype(np.float32)
THREE: Floats = X.reshape(HEADS, HEAD, N_COLS)
VECTOR: Floats = X[:, 0].copy()


class HalfRows(Constant):
    """A tensor stored as float16."""

    def __init__(self, values: Floats) -> None:
        super().__init__(values.astype(np.float16).astype(np.float32))
        self.dtype = "F16"

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        return None if kind != "F16" else self._rows[start:stop].astype(np.float16).view(np.uint8)


def heads(x: Floats) -> Floats:
    return x.reshape(HEADS, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(x.shape)


PIECES: dict[str, tuple[Callable[[], Rows], Floats]] = {
    "halves of heads": (lambda: take(Constant(X), interleaved(N_ROWS, HEADS)), heads(X)),
    "halves of a bias": (lambda: take(Constant(VECTOR), interleaved(N_ROWS, HEADS)), heads(VECTOR)),
    "first rows": (lambda: cut(Constant(X), 0, 7), X[:7]),
    "middle of each matrix": (lambda: cut(Constant(THREE), 1, 4, axis=1), THREE[:, 1:4]),
    "columns of each matrix": (lambda: cut(Constant(THREE), 1, 4, axis=2), THREE[:, :, 1:4]),
    "every other row": (lambda: every(Constant(THREE), 2, 1, axis=1), THREE[:, 1::2]),
    "every tenth row": (lambda: every(Constant(X), 10, 3), X[3::10]),
    "every other column": (lambda: every(Constant(X), 2, 0, axis=-1), X[:, ::2]),
    "every other matrix": (lambda: every(Constant(THREE), 2, 0), THREE[::2]),
    "a part of a part": (lambda: cut(every(Constant(X), 2, 1), 2, 6), X[1::2][2:6]),
    "a stack": (lambda: Stacked([Constant(X), Constant(X + 1)]), np.stack([X, X + 1])),
    "a stack of vectors": (lambda: Stacked([Constant(VECTOR), Constant(VECTOR + 1)]), np.stack([VECTOR, VECTOR + 1])),
    "joined": (lambda: join([Constant(X), Constant(X[:4])]), np.concatenate([X, X[:4]])),
    "joined vectors": (lambda: join([Constant(VECTOR), Constant(VECTOR[:4])]), np.concatenate([VECTOR, VECTOR[:4]])),
    "turned": (lambda: Transposed(Constant(X)), X.T),
    "each turned": (lambda: Transposed(Constant(THREE)), THREE.swapaxes(1, 2)),
    "flat": (lambda: Reshaped(Constant(THREE), (N_ROWS * N_COLS,)), X.reshape(-1)),
    "a column": (lambda: Reshaped(Constant(VECTOR), (N_ROWS, 1)), VECTOR[:, None]),
    "other rows": (lambda: Reshaped(Constant(X), (9, 10)), X.reshape(9, 10)),
    "other rows of a part": (lambda: Reshaped(Constant(X), (4, 10), 7), X.reshape(-1)[7:47].reshape(4, 10)),
    "the same rows of a part": (
        lambda: Reshaped(Constant(X), (4, N_COLS), 3),
        X.reshape(-1)[3 : 3 + 4 * N_COLS].reshape(4, -1),
    ),
    "the largest known": (lambda: WithLargest(Constant(X), "x"), X),
    "filled up": (
        lambda: join([Constant(X), Zeros((2, N_COLS), "F32")]),
        np.concatenate([X, np.zeros((2, N_COLS), X.dtype)]),
    ),
    "a product": (lambda: Product(Constant(X), Constant(X + 1)), X * (X + 1)),
    "columns of length one": (
        lambda: UnitColumns(Constant(X)),
        X / (np.sqrt(np.cumsum(X * X, axis=0)[-1]) + np.float32(1e-7)),
    ),
    "doubled": (lambda: Mapped(Constant(X), Function("double", 1, lambda x: x + x)), X * 2),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_is_what_numpy_makes_of_the_whole(name: str) -> None:
    make, expected = PIECES[name]
    rows = make()
    assert rows.shape == expected.shape
    assert np.array_equal(values_of(rows), expected)
    check_rows(rows)


@pytest.mark.parametrize("name", PIECES)
def test_bytes_are_copied_unless_they_are_computed(name: str) -> None:
    rows = PIECES[name][0]()
    assert (rows.stored(0, 0) is None) == (name in ("doubled", "filled up", "a product", "columns of length one"))


def test_wherever_a_chunk_begins_and_ends_heads_are_reordered_as_in_the_whole() -> None:
    rows, whole = take(Constant(X), interleaved(N_ROWS, HEADS)), heads(X)
    for start in range(N_ROWS):
        for stop in range(start + 1, N_ROWS + 1):
            assert (rows.read(start, stop) == whole[start:stop]).all(), f"rows {start}..{stop} as values"
            stored = rows.stored(start, stop)
            assert stored is not None
            assert (stored.view(np.float32) == whole[start:stop]).all(), f"rows {start}..{stop} as bytes"


def test_heads_that_do_not_divide_the_rows_are_refused() -> None:
    for n_heads in (0, 4, 6):  # 18 rows are not 4 heads, and heads of 3 rows have no pairs
        with pytest.raises(ValueError, match=f"are not {n_heads} heads of even width"):
            interleaved(N_ROWS, n_heads)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="are not parts of 18"):
        split(Constant(X), [9, 8])
    with pytest.raises(ValueError, match="do not stack to"):
        Stacked([Constant(X), Constant(X)], (30, N_COLS))
    with pytest.raises(ValueError, match="not have as many elements"):
        Reshaped(Constant(X), (30, N_COLS))
    with pytest.raises(ValueError, match="as many elements"):
        Reshaped(Constant(X), (N_ROWS, N_COLS), 1)


def test_all_of_a_tensor_is_the_tensor_itself() -> None:
    rows = Constant(X)
    assert cut(rows, 0, N_ROWS) is rows
    assert split(rows, [N_ROWS]) == [rows]
    assert isinstance(cut(rows, 0, 2), Selected)


def test_numbers_of_two_types_are_stacked_as_floats() -> None:
    rows = Stacked([Constant(X), HalfRows(X)])
    assert (rows.dtype, rows.stored(0, 0)) == ("F32", None)
    assert Stacked([HalfRows(X), HalfRows(X)]).dtype == "F16"


def test_blocks_are_stacked_unless_each_tensor_has_a_number_for_all_of_its_own() -> None:
    class Blocks(Constant):
        def native(self, kind: str, start: int, stop: int) -> Bytes | None:
            return np.full((stop - start, 17), 7, np.uint8) if kind in ("MXFP4", "NVFP4") else None

    rows = Stacked([Blocks(X), Blocks(X)])
    stacked = rows.native("MXFP4", N_ROWS - 1, N_ROWS + 1)
    assert stacked is not None
    assert stacked.shape == (2, 17)
    assert rows.native("NVFP4", 0, 0) is None
    assert Stacked([Blocks(X)]).native("NVFP4", 0, 0) is not None


def test_a_function_is_computed_in_the_precision_of_the_checkpoint() -> None:
    values = np.float32([[0.0001, -1, 0.33325195, 2047.5]])
    one = Function("plus one", 1, lambda x: x + np.float32(1))
    half = Mapped(HalfRows(values), one)
    assert half.read(0, 1).tolist() == (values + np.float32(1)).astype(np.float16).astype(np.float32).tolist()
    assert Mapped(Constant(values), one).read(0, 1).tolist() == (values + np.float32(1)).tolist()
    assert half.stored(0, 1) is None


def test_a_function_is_told_from_others_by_its_name_and_version() -> None:
    def identity(*name: object) -> object:
        return Mapped(Constant(X), Function(*name, np.exp)).identity()  # type: ignore[arg-type]

    assert identity("exp", 1) == identity("exp", 1)
    assert len({str(identity(*name)) for name in (("exp", 1), ("exp", 2), ("log", 1))}) == 3


@pytest.mark.parametrize("slab_bytes", [1, 60, 200])
def test_a_turned_matrix_is_made_in_slabs_of_bounded_memory(slab_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transposed, "SLAB_BYTES", slab_bytes)
    for dtype in (Constant, HalfRows):
        rows = Transposed(dtype(THREE))
        assert np.array_equal(values_of(rows), values_of(dtype(THREE)).reshape(THREE.shape).swapaxes(1, 2))
        stored = rows.stored(0, HEADS * N_COLS)
        assert stored is not None
        expected = THREE.swapaxes(1, 2).astype(np.float16 if dtype is HalfRows else np.float32)
        assert stored.tobytes() == expected.tobytes()


class BlockRows(Constant):
    """Rows that are also to be had as blocks: each is its number."""

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        if kind != "MXFP4":
            return super().native(kind, start, stop)
        return np.arange(start, stop, dtype=np.uint8)[:, None].repeat(17, axis=1)


def test_rows_in_another_order_are_copied_as_blocks_of_that_order() -> None:
    odd = every(BlockRows(THREE), 2, 1, axis=1)
    assert odd.native("Q4_0", 0, 0) is None
    found = odd.native("MXFP4", 2, 9)
    assert found is not None
    assert found[:, 0].tolist() == [5, 7, 9, 11, 13, 15, 17]
    assert odd.stored(0, 0) is not None, "its plain numbers are there too"
    assert every(Constant(X), 2, 0).native("F32", 0, 9) is not None


def test_a_grid_is_scaled_as_torch_does_bit_by_bit() -> None:
    grid = np.sin(np.arange(25 * 16, dtype=np.float32)).reshape(1, 25, 16)
    made = Resampled(Constant(grid), 5, 8)
    check_rows(made)
    values = values_of(made).reshape(8, 8, 16)
    assert np.array_equal(values[0, 0], grid[0, 0])
    assert np.array_equal(values[7, 7], grid[0, 24])
    #: torch.nn.functional.interpolate of torch 2
    assert values[3, 2].view(np.uint32)[:4].tolist() == [1046002485, 1057408464, 1052174345, 3188705977]


def test_tensors_are_added_in_the_precision_of_the_checkpoint() -> None:
    added = Sum([Constant(X), Constant(X), Constant(X)])
    check_rows(added)
    assert np.array_equal(values_of(added), (X + X) + X)
    halves = HalfRows(X.astype(np.float16).astype(np.float32))
    expected = (X.astype(np.float16).astype(np.float32) * 2).astype(np.float16)
    assert np.array_equal(values_of(Sum([halves, halves])), expected.astype(np.float32))


def test_the_largest_magnitude_is_that_of_all_rows_and_numbers_only() -> None:
    rows = WithLargest(Constant(np.float32([[1, -7, 3], [2, 5, -6]])), "w")
    assert rows.largest == rows.measure(Workers()) == 7
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(BadInput, match=r"tensor 'w' holds -?(nan|inf) at row 1, column 2"):
            WithLargest(Constant(np.float32([[1, 2, 3], [4, 5, wrong]])), "w").measure(Workers())
