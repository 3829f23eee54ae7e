"""The kernels as plain Python: what numba compiles is what was written, to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if __name__ == "__main__":
    import plain_simd

    plain_simd.install()

import streamconv
from streamconv.quant.base import codec
from streamconv.quant.types import TYPES

NAMES = [t.name for t in TYPES.values() if t.module]
N_COLS = 256


def rows() -> tuple[np.ndarray, np.ndarray]:
    """float32[3, 256] with a small row, a zero and equal weights; importance weights float32[256]."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, N_COLS), dtype=np.float32)
    x[1] *= np.float32(1e-3)
    x[1, 5] = 0
    x[2, 32:64] = 0.5
    return x, rng.random(N_COLS, dtype=np.float32) + np.float32(0.1)


def encoded(name: str) -> dict[str, np.ndarray]:
    """Blocks of ``rows`` without and with importance weights, where there are any, and what they decode to."""
    x, importance = rows()
    found = {}
    for kind, weights in (("plain", None), ("imatrix", importance)):
        if weights is None and codec(name).needs_weights:
            continue
        blocks = streamconv.quantize(x, name, imatrix=weights, threads=1)
        found[kind] = blocks
        found[f"{kind}, decoded"] = streamconv.dequantize(blocks, name, N_COLS, threads=1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_interpreted_kernels_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    out = tmp_path / "interpreted.npz"
    # Python says so when a division by zero gives infinity; the kernels mean it.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", __file__, name, str(out)]
    subprocess.run(command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, check=True, timeout=600)
    compiled, interpreted = encoded(name), np.load(out)
    assert sorted(compiled) == sorted(interpreted.files)
    for kind, values in compiled.items():
        assert values.tobytes() == interpreted[kind].tobytes(), kind


if __name__ == "__main__":
    np.savez(sys.argv[2], **encoded(sys.argv[1]))
