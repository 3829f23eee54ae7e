"""Running the command line as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import streamconv
from streamconv.errors import Stopped
from streamconv.progress import Silent


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def run() -> Run:
    """Function that runs ``python -m streamconv ARGS`` in a process of its own."""

    def call(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "streamconv", *map(str, args)],
            cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Function that runs a command in this process, which is faster; same result as ``run``."""

    def call(*args: object) -> Result:
        from streamconv.cli import main

        capfd.readouterr()
        code = main([str(a) for a in args])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return Result(code, out, err)

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
