"""Compiled kernels on disk: kept for the next process, made again when damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the kernels of one run, and what it printed."""
    folder = tmp_path_factory.mktemp("kernels")
    return folder, run(folder)


@pytest.fixture
def first(once: tuple[Path, str], tmp_path: Path) -> str:
    """What the run printed that left its kernels in ``tmp_path``."""
    shutil.copytree(once[0], tmp_path, dirs_exist_ok=True)
    return once[1]


def test_kernels_that_a_program_compiled_are_there_for_later_ones_and_never_run_damaged(
    tmp_path: Path, first: str
) -> None:
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
    os.utime(damaged, (old, old))  # bits rot without a word
    assert run(tmp_path) == first
    assert bytes(content) not in [p.read_bytes() for p in tmp_path.rglob("*.nbc")]


def test_what_another_process_has_just_compiled_is_not_thrown_away_before_it_vouches_for_it(
    tmp_path: Path, first: str
) -> None:
    index = next(tmp_path.rglob("*.nbi"))
    added = index.read_bytes() + b"\0"  # such as another overload
    index.write_bytes(added)
    later = (tmp_path / "seal.json").stat().st_mtime + 1
    os.utime(index, (later, later))
    assert run(tmp_path) == first
    assert index.read_bytes() == added
