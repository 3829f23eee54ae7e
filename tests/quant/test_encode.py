"""Rows in, encoded rows out: however a tensor is cut into chunks and tiles, its bytes are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

import streamconv
from streamconv.errors import BadInput
from streamconv.kit import Constant
from streamconv.quant.encode import EncodedRows, Encoding
from streamconv.quant.overflow import TooLarge
from streamconv.quant.types import TYPES
from streamconv.rows import Bytes, Floats

N_EXPERTS, EXPERT_ROWS, N_COLS = 4, 6, 64


def filled(item: EncodedRows, start: int, stop: int, tile_rows: int) -> Bytes:
    """Rows ``start..stop``, made in tiles of ``tile_rows``."""
    out = np.zeros((stop - start, item.row_bytes[0]), np.uint8)
    item.fill(start, stop, [out], np.empty(2 * tile_rows * item.n_cols, np.float32))
    return out


def item_of(x: Floats, type_name: str, weights: Floats | None = None) -> EncodedRows:
    rows = Constant(x)
    return EncodedRows("blk.0.ffn_up_exps.weight", rows, [Encoding(rows, TYPES[type_name], weights=weights)])


@pytest.mark.parametrize("tile_rows", [1, 4, 5, 6, 7, 100])
def test_every_expert_is_weighted_by_its_own_importance_wherever_chunks_and_tiles_end(tile_rows: int) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((N_EXPERTS, EXPERT_ROWS, N_COLS)).astype(np.float32)
    weights = rng.random((N_EXPERTS, N_COLS), dtype=np.float32) ** 4 + np.float32(1e-3)
    alone = [streamconv.quantize(rows, "Q4_0", imatrix=own) for rows, own in zip(x, weights, strict=True)]
    whole = np.concatenate(alone)
    swapped = streamconv.quantize(x[0], "Q4_0", imatrix=weights[1])
    assert (swapped != alone[0]).any(), "another expert's importance gives other bytes"
    item = item_of(x, "Q4_0", weights)
    for start, stop in ((0, 24), (0, 5), (5, 13), (11, 12), (13, 24)):
        assert (filled(item, start, stop, tile_rows) == whole[start:stop]).all(), f"rows {start}..{stop}"


@pytest.mark.parametrize("tile_rows", [1, 3, 100])
@pytest.mark.parametrize(("type_name", "value"), [("F16", 1e5), ("Q8_0", 1e30), ("Q4_0", 1e30)])
def test_what_is_too_large_is_named_by_its_row_of_the_tensor(type_name: str, value: float, tile_rows: int) -> None:
    x = np.ones((12, N_COLS), np.float32)
    x[9, 40] = value
    with pytest.raises(TooLarge, match=r"ffn_up_exps.*row 9\b"):
        filled(item_of(x, type_name), 4, 12, tile_rows)


@pytest.mark.parametrize("tile_rows", [1, 3, 100])
def test_what_a_search_finds_too_large_is_named_by_its_row_of_the_tensor(tile_rows: int) -> None:
    """The searches of these types stop by themselves, at a row of the tile."""
    x = np.ones((12, 256), np.float32)
    x[9, 40:50] = np.linspace(1e30, 3e38, 10)
    with pytest.raises(TooLarge, match=r"ffn_up_exps.*row 9\b") as caught:
        filled(item_of(x, "IQ3_S", np.ones((1, 256), np.float32)), 4, 12, tile_rows)
    assert caught.value.row == 9


@pytest.mark.parametrize("tile_rows", [1, 3, 100])
def test_what_is_no_number_is_named_by_its_row_of_the_tensor(tile_rows: int) -> None:
    x = np.ones((12, N_COLS), np.float32)
    x[9, 40] = np.nan
    with pytest.raises(BadInput, match=r"ffn_up_exps.* row 9, column 40"):
        filled(item_of(x, "Q8_0"), 4, 12, tile_rows)
