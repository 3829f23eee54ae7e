"""Compiled kernels on disk: kept for the next process, made again when damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import numpy as np, streamconv
x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
print(streamconv.quantize(x, "Q8_0", threads=1).tobytes().hex())
"""


def run(cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def compiled(cache: Path) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in cache.rglob("*.nb?")}


def test_kernels_that_a_program_compiled_are_there_for_later_ones_and_never_run_damaged(tmp_path: Path) -> None:
    first = run(tmp_path)
    kernels = compiled(tmp_path)
    assert kernels
    digests = json.loads((tmp_path / "seal.json").read_text())["digests"]
    assert {Path(name).name for name in digests} == set(kernels)

    old = time.time() - 10_000  # an unsealed file would not be trusted any more
    for path in tmp_path.rglob("*.nb?"):
        os.utime(path, (old, old))
    assert run(tmp_path) == first
    assert compiled(tmp_path) == kernels

    damaged = next(tmp_path.rglob("*.nbc"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert run(tmp_path) == first
    assert bytes(content) not in [p.read_bytes() for p in tmp_path.rglob("*.nbc")]
