"""Running the command line as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import Result, Run

import streamconv
from streamconv.errors import Stopped
from streamconv.progress import Silent


@pytest.fixture(scope="session")
def run() -> Run:
    """Function that runs ``python -m streamconv ARGS`` in a process of its own."""

    def call(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "streamconv", *map(str, args)],
            cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def small(data: Path) -> Path:
    """A checkpoint of a few hundred kB that converts in a moment."""
    return data / "checkpoints" / "mistral-spm" / "hf"


class _Slow(Silent):
    def advance(self, n_bytes: int, name: str) -> None:
        time.sleep(0.02)
        super().advance(n_bytes, name)


@pytest.fixture
def unfinished(tiny_model: Path, small: Path, tmp_path: Path) -> Path:
    """The output of a Q8_0 job over the bundled model that was stopped when a part of it was done."""
    streamconv.convert(small, tmp_path / "kernels-are-loaded.gguf", type="q8_0")
    out = tmp_path / "unfinished.gguf"
    with pytest.raises(Stopped):
        streamconv.convert(tiny_model, out, type="q8_0", threads=1, stop_after_s=0.3, reporter=_Slow())
    assert not out.exists()
    return out
