"""Square roots have the bits that torch gives on processors with AVX-512."""

from __future__ import annotations

import hashlib

import numpy as np

from streamconv.kit.root import root


def test_roots_are_those_of_torch() -> None:
    x = np.linspace(0.5, 8, 1 << 16, endpoint=False, dtype=np.float32)
    # of torch.sqrt, torch 2.13 with MKL on a processor with AVX-512
    assert hashlib.sha256(root(x).tobytes()).hexdigest()[:16] == "698165a634705904"


def test_roots_are_the_nearest_float_or_the_one_below() -> None:
    x = np.exp(np.linspace(-60, 60, 1 << 16, dtype=np.float64)).astype(np.float32)
    off = np.sqrt(x).view(np.int32) - root(x).view(np.int32)
    assert set(np.unique(off)) == {0, 1}
    assert 0.002 < np.mean(off) < 0.01


def test_what_has_no_usual_root_has_that_of_numpy() -> None:
    x = np.array([0, -1, np.inf, np.nan, 1e-38, 1e38], np.float32)
    assert np.array_equal(root(x), [0, np.nan, np.inf, np.nan, np.sqrt(x[4]), np.sqrt(x[5])], equal_nan=True)
