"""Properties that hold for every type and every finite input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamconv
from streamconv.errors import BadInput
from streamconv.quant.base import has_codec
from streamconv.quant.types import TYPES
from streamconv.rows import Floats

MADE = [name for name in TYPES if has_codec(name)]
N_COLS = 256
FINITE = np.finfo(np.float32)
AWKWARD = [
    0.0,
    -0.0,
    FINITE.tiny,
    -FINITE.smallest_subnormal,
    FINITE.max,
    FINITE.min,
    65504.0,
    65536.0,
    1e-30,
    1e30,
    1.0,
]
#: largest error of any weight, in units of the largest weight of its row
ERROR = {
    "F32": 0, "F16": 0.0005, "BF16": 0.004, "Q8_0": 0.005, "Q6_K": 0.05, "Q5_K": 0.1, "Q5_0": 0.07, "Q5_1": 0.07,
    "Q4_K": 0.2, "Q4_0": 0.14, "Q4_1": 0.14, "IQ4_NL": 0.2, "IQ4_XS": 0.25, "MXFP4": 0.51, "NVFP4": 0.4, "Q3_K": 0.3,
    "Q2_K": 0.5,
}  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> Floats:
    """A row of noise at any scale, in which some values are replaced by awkward ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((1, N_COLS)).astype(np.float32) * np.float32(10.0) ** draw(st.integers(-38, 30))
    if draw(st.booleans()):
        x = np.abs(x) * np.float32(draw(st.sampled_from([1, -1])))
    if draw(st.booleans()):
        x[:, rng.random(N_COLS) < draw(st.floats(0, 1))] = 0
    for at, value in draw(st.lists(st.tuples(st.integers(0, N_COLS - 1), st.sampled_from(AWKWARD)), max_size=4)):
        x[0, at] = value
    return np.clip(x, FINITE.min, FINITE.max)


@st.composite
def importance(draw: st.DrawFn) -> Floats:
    """Importance of the columns: positive, of any scale, some of it zero."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = rng.random(N_COLS).astype(np.float32) * np.float32(10.0) ** draw(st.integers(-12, 12))
    w[rng.random(N_COLS) < draw(st.sampled_from([0, 0, 0.3, 1]))] = 0
    return w


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(x=rows(), w=importance(), weighted=st.booleans())
def test_finite_rows_become_finite_blocks_or_a_clear_error(name: str, x: Floats, w: Floats, weighted: bool) -> None:
    before = x.copy()
    chosen = w if weighted or name.startswith(("IQ1", "IQ2")) else None
    try:
        data = streamconv.quantize(x, name, imatrix=chosen, threads=1)
    except BadInput:
        with pytest.raises(BadInput, match=r"row 0 holds values too large for"):
            streamconv.quantize(x, name, imatrix=chosen, threads=1)
        return
    assert data.shape == (1, TYPES[name].row_bytes(N_COLS))
    y = streamconv.dequantize(data, name, N_COLS, threads=1)
    assert np.isfinite(y).all()
    assert (x.view(np.uint32) == before.view(np.uint32)).all(), "the caller's rows are not written to"


@pytest.mark.parametrize("name", [n for n in ERROR if has_codec(n)])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-3, 3))
def test_decoded_weights_are_near_the_stored_ones(name: str, seed: int, exponent: int) -> None:
    if name == "NVFP4":  # without a scale for the whole tensor small weights are lost
        exponent = max(exponent, -1)
    x = np.random.default_rng(seed).standard_normal((2, N_COLS)).astype(np.float32) * np.float32(10.0) ** exponent
    y = streamconv.dequantize(streamconv.quantize(x, name, threads=1), name, N_COLS, threads=1)
    assert (np.abs(y - x).max(axis=1) <= ERROR[name] * np.abs(x).max(axis=1)).all()


@pytest.mark.parametrize("name", [n for n in MADE if n not in ("F32", "F16", "BF16")])
def test_encoding_what_was_decoded_changes_little(name: str) -> None:
    x = np.random.default_rng(6).standard_normal((4, N_COLS)).astype(np.float32)
    w = np.ones(N_COLS, np.float32)
    once = streamconv.dequantize(streamconv.quantize(x, name, imatrix=w), name, N_COLS)
    twice = streamconv.dequantize(streamconv.quantize(once, name, imatrix=w), name, N_COLS)
    assert np.linalg.norm(twice - once) <= 0.5 * np.linalg.norm(once - x) + 1e-6


def test_a_row_that_does_not_fit_is_named_wherever_it_is() -> None:
    x = np.ones((600, N_COLS), np.float32)
    x[517, 3] = 3e38
    for name in ("IQ3_S", "Q4_K", "F16", "Q8_0"):
        with pytest.raises(BadInput, match="row 517 holds values too large for " + name):
            streamconv.quantize(x, name)
