"""Shards get their names only after the safetensors library, which all others read them with, has found the right tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from streamconv import cli
from streamconv.engine import files
from streamconv.targets import safetensors

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def command(tiny_model: Path, tmp_path: Path) -> list[str]:
    return ["convert", str(tiny_model), str(tmp_path / "out"), "--max-shard-size", "1MiB", "--quiet"]


def test_every_shard_is_read_by_the_library_before_the_folder_gets_its_name(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(path: Path, framework: str) -> Any:
        assert not (tmp_path / "out").exists()
        read.append(path)
        return safe_open(path, framework)

    monkeypatch.setattr(safetensors, "safe_open", noted)
    assert cli.main(command) == 0
    assert len(read) > 1
    assert sorted(p.name for p in read) == sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))


def shorten(header: dict[str, Any]) -> None:
    header["x"] = header.pop(next(name for name in header if name != "__metadata__"))


def retype(header: dict[str, Any]) -> None:
    entry = next(value for name, value in header.items() if name != "__metadata__")
    entry["dtype"] = "F16" if entry["dtype"] == "BF16" else "I32"


def forget_job(header: dict[str, Any]) -> None:
    del header["__metadata__"]


def overlap(header: dict[str, Any]) -> None:
    entry = next(value for name, value in header.items() if name != "__metadata__")
    entry["data_offsets"] = [n + 2 for n in entry["data_offsets"]]


@pytest.mark.parametrize("edit", [shorten, retype, forget_job, overlap])
def test_a_shard_whose_header_says_something_else_gets_no_name(
    command: list[str], edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = safetensors._accept

    def damaged(tensors: Any, job: str, path: Path) -> None:
        raw = path.read_bytes()
        size = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:size])
        edit(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw[size:])
        real(tensors, job, path)

    monkeypatch.setattr(safetensors, "_accept", damaged)
    assert cli.main(command) == 70
    assert "the safetensors library" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_read_back_twice_of_what_has_its_name(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(command) == 0
    monkeypatch.setattr(files, "open_for_writing", lambda *a, **k: pytest.fail("nothing is written again"))
    assert cli.main(command) == 0
