"""The scan for NaN and infinity, against the values that blocks decode to."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_edit import tiny

from streamconv.check import check_gguf, values
from streamconv.quant.types import TYPES


def decoded(raw: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.dequantize(raw, gguf.GGMLQuantizationType[name])


@pytest.mark.parametrize("name", [*values._HALF_FIELDS, "IQ1_M"])
def test_a_block_is_bad_exactly_when_it_decodes_to_something_not_finite(name: str) -> None:
    kind = TYPES[name]
    raw = np.random.default_rng(3).integers(0, 256, (64, 16 * kind.block_bytes), np.uint8)
    try:
        finite = np.isfinite(decoded(raw, name)).reshape(64, 16, kind.block_size).all(axis=2)
    except (NotImplementedError, KeyError):
        pytest.skip(f"gguf-py does not decode {name}")
    bad = values.bad_cells(raw, kind)
    assert bad.shape == (64, 16)
    assert 0 < np.count_nonzero(bad) < bad.size
    assert np.array_equal(bad, ~finite)


@pytest.mark.parametrize(("name", "word"), [("F32", "<f4"), ("F16", "<f2"), ("F64", "<f8")])
def test_floats_are_bad_one_by_one(name: str, word: str) -> None:
    data = np.array([[1, np.nan, -np.inf, 0], [np.inf, 65504, -0.0, 1e-8]], word)
    assert np.array_equal(values.bad_cells(data.view(np.uint8), TYPES[name]), ~np.isfinite(data))


def test_an_exponent_of_255_is_no_number() -> None:
    raw = np.zeros((1, 34), np.uint8)
    raw[0, 17] = 0xFF
    assert values.bad_cells(raw, TYPES["MXFP4"]).tolist() == [[False, True]]


def test_bfloat16_is_told_by_its_exponent() -> None:
    data = np.array([[0x3F80, 0x7F80, 0xFF81, 0x7F7F]], "<u2")
    assert values.bad_cells(data.view(np.uint8), TYPES["BF16"]).tolist() == [[False, True, True, False]]


def test_bad_blocks_are_counted_over_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_WINDOW_BYTES", 100)
    model = tiny("llama")
    blocks = np.ones((64, 34), np.uint8)
    blocks[[9, 40, 41], 1] = 0x7C
    model.tensors["blk.0.ffn_up.weight"] = ((64, 32), "Q8_0", blocks.tobytes())
    found = [f for f in check_gguf(model.write(tmp_path / "x.gguf")) if f.severity == "error"]
    (finding,) = found
    assert finding.where == "blk.0.ffn_up.weight"
    assert "3 of 64 blocks have a scale that is NaN or infinite, the first in row 9, block 0" in finding.message
