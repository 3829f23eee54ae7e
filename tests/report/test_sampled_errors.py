"""Errors of a finished output, against what numpy says of the same numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamconv.conversion.sampled_errors import SampledError, sampled_errors
from streamconv.quant.base import codec
from streamconv.quant.encode import EncodedRows, Encoding
from streamconv.quant.types import TYPES
from streamconv.rows import Floats, Rows


class Numbers(Rows):
    dtype = "F32"

    def __init__(self, values: Floats) -> None:
        self.values, self.shape = values, values.shape

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self.values.reshape(-1, self.shape[-1])[start:stop]


def measured(values: Floats, written: bytes, path: Path, **how: Any) -> SampledError:
    """The error of ``written`` as Q8_0 at an offset of a file."""
    rows = Numbers(values)
    item = EncodedRows("x", rows, [Encoding(rows, TYPES["Q8_0"], **how)])
    path.write_bytes(b"header" + written)
    place = SimpleNamespace(item=item, part=0, file=0, offset=6)
    plan = SimpleNamespace(placements=[place], files=[SimpleNamespace(path=path)], verify_inputs=lambda: False)
    prepared: Any = SimpleNamespace(plan=plan, items=[item])
    return sampled_errors(prepared)[0, 0]


def encoded(values: Floats) -> tuple[bytes, Floats]:
    """Rows as Q8_0, and the values that this holds."""
    rows = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
    out = np.empty((len(rows), TYPES["Q8_0"].row_bytes(rows.shape[1])), np.uint8)
    codec("Q8_0").quantize(rows, out, None, False)
    decoded = np.empty_like(rows)
    codec("Q8_0").dequantize(out, decoded)
    return out.tobytes(), decoded


@pytest.fixture
def values() -> Floats:
    return np.random.default_rng(3).standard_normal((3, 4, 64)).astype(np.float32)


def test_every_expert_is_weighted_by_its_own_importance(values: Floats, tmp_path: Path) -> None:
    written, decoded = encoded(values)
    weights = np.random.default_rng(4).random((3, 64)).astype(np.float32) ** 4
    found = measured(values, written, tmp_path / "x", weights=weights)
    x, e = values.reshape(12, 64).astype(np.float64), decoded - values.reshape(12, 64).astype(np.float64)
    w = np.repeat(weights.astype(np.float64), 4, axis=0)
    assert found.relative == pytest.approx(np.sqrt((e**2).sum() / (x**2).sum()))
    assert found.weighted == pytest.approx(np.sqrt((w * e**2).sum() / (w * x**2).sum()))


def test_it_is_the_error_of_what_the_file_holds_and_not_of_what_it_should(values: Floats, tmp_path: Path) -> None:
    written, _ = encoded(np.zeros_like(values))
    assert measured(values, written, tmp_path / "x") == SampledError(pytest.approx(1.0), None)


def test_zeros_have_no_error_unless_something_else_was_written(values: Floats, tmp_path: Path) -> None:
    nothing = np.zeros_like(values)
    assert measured(nothing, encoded(nothing)[0], tmp_path / "x") == SampledError(0.0, None)
    assert measured(nothing, encoded(values)[0], tmp_path / "x") == SampledError(None, None)


def test_what_is_no_number_counts_for_nothing(values: Floats, tmp_path: Path) -> None:
    want = measured(values, encoded(values)[0], tmp_path / "x").relative
    broken = values.copy()
    broken[0, 0, 0], broken[1, 2, 3] = np.nan, np.inf
    found = measured(broken, encoded(values)[0], tmp_path / "x", allow_nonfinite=True).relative
    assert found == pytest.approx(want, rel=0.05)
