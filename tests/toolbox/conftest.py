"""Small files, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import small_gguf

import streamconv


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Here = Callable[..., Result]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Here:
    """Function that runs a command in this process."""

    def call(*args: object) -> Result:
        from streamconv.cli import main

        capfd.readouterr()
        code = main([str(a) for a in args])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return Result(code, out, err)

    return call


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A file with keys of every type."""
    return small_gguf.write(tmp_path / "toy.gguf")


@pytest.fixture(scope="session")
def converted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that loaders take, with its record."""
    path = tmp_path_factory.mktemp("converted") / "model.gguf"
    streamconv.convert(data / "checkpoints" / "mistral-spm" / "hf", path, type="F16")
    return path
