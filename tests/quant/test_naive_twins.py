"""The legacy and K formats: bytes equal to those of slow, obvious twins wherever rows are awkward."""

from __future__ import annotations

import k_naive
import numpy as np
import pytest
from numpy.typing import NDArray

import streamconv

F = np.float32
N_COLS = 256
#: name -> whether the twin knows importance; Q8_0 does not use it, and Q3_K has a twin in ``test_k_codecs``
TWINS = {"Q8_0": False, "Q2_K": False, **dict.fromkeys((*k_naive.LEGACY, "Q4_K", "Q5_K", "Q6_K"), True)}
CASES = [(name, weighted) for name, knows in TWINS.items() for weighted in (False, True) if knows or not weighted]


def awkward_rows() -> NDArray[np.float32]:
    """float32[9, 256]: noise, and what takes each of the other ways through a search."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((9, N_COLS)).astype(F)
    x[1, 32:80] = 0
    x[2] *= F(1e-15)
    x[3] = np.round(x[3] * 4) / 8
    x[4, 1:] *= F(1e-6)
    x[5] = np.sign(x[5])
    x[6] = np.abs(x[6]) + F(0.25)
    x[7] *= F(10) ** rng.integers(-12, 4, N_COLS).astype(F)
    x[8] = -np.abs(x[8]) * F(1e4)
    return x


@pytest.mark.parametrize(("name", "weighted"), CASES)
def test_bytes_equal_those_of_a_loop_over_single_weights(name: str, weighted: bool) -> None:
    weights = None
    if weighted:
        rng = np.random.default_rng(8)
        weights = rng.standard_gamma(0.3, N_COLS).astype(F)
        weights[rng.random(N_COLS) < 0.1] = 0
    x = awkward_rows()
    got = streamconv.quantize(x, name, imatrix=weights, threads=1)
    wrong = [i for i, row in enumerate(x) if (got[i] != k_naive.quantize(name, row, weights)).any()]
    assert not wrong, f"rows {wrong}"
