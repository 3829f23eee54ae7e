"""Sines and cosines as torch computes them where MKL has AVX-512, whatever this processor is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from streamconv.kit import cosine, sine

#: SHA-256 of ``torch.sin`` and ``torch.cos`` (2.13 with MKL 2024.2, AVX-512) of 65536 numbers from 0 to 1500
SINES = "158991801ca3cbf458f840e24f459345eba6a4a4f019f8818b9db7562cae4de3"
COSINES = "5702c728852daef579c732b165918f26ffbda00d1cfdd4c5bb99dc3f78ec3e99"
Function = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@pytest.mark.parametrize(("ours", "true", "digest"), [(sine, np.sin, SINES), (cosine, np.cos, COSINES)])
def test_the_bits_are_those_of_torch(ours: Function, true: Function, digest: str) -> None:
    x = np.arange(1 << 16).astype(np.float32) * np.float32(1500 / 65536)
    made = ours(x)
    assert hashlib.sha256(made.tobytes()).hexdigest() == digest
    exact = true(x.astype(np.float64))
    assert 0 < np.count_nonzero(made != exact.astype(np.float32)) < len(x) // 15, "which the nearest are not"
    assert np.all(np.abs(made - exact) < 0.61 * np.spacing(np.abs(made)))
