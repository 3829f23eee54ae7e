"""Shards under the names of one model that two conversions made: no model, whoever reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import gemma2

import streamconv
from streamconv.check import check_gguf
from streamconv.errors import BadInput


def _mixed(tmp_path: Path, suffix: str, **options: object) -> Path:
    """A set of which the first file is of one conversion and all others of another."""
    for seed, name in enumerate("ab"):
        gemma2(tmp_path / name, seed)
        streamconv.convert(tmp_path / name, tmp_path / f"of-{name}" / f"out{suffix}", **options)  # type: ignore[arg-type]
    first, *_ = sorted((tmp_path / "of-a").rglob("*-00001-of-*"))
    target = tmp_path / "of-b" / first.relative_to(tmp_path / "of-a")
    assert target.exists()
    target.write_bytes(first.read_bytes())
    return target


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in ("of-a", "of-b"):
        (tmp_path / name).mkdir()


def test_gguf_shards_of_two_conversions_are_refused_and_checked(tmp_path: Path) -> None:
    first = _mixed(tmp_path, ".gguf", type="F16", split_max_tensors=6)
    with pytest.raises(BadInput, match="were made by different conversions") as caught:
        streamconv.convert(first, tmp_path / "again.gguf", type="copy")
    assert caught.value.exit_code == 65
    assert any("different conversions" in f.message for f in check_gguf(first) if f.severity == "error")


def test_safetensors_shards_of_two_conversions_are_refused(tmp_path: Path) -> None:
    first = _mixed(tmp_path, "", type="BF16", max_shard_bytes=64 << 10)
    with pytest.raises(BadInput, match="were made by different conversions"):
        streamconv.convert(first.parent, tmp_path / "again.gguf", type="F16")
