"""Small files."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_gguf

import streamconv


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
