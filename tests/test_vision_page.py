"""The commands that docs/vision.md gives for MiniCPM-V-2_6-int4 do what the page says, on a small model of that kind."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from minicpmv_files import minicpmv

from streamconv.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "vision.md"


def test_the_commands_of_the_page_make_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made, _, _ = minicpmv(tmp_path / "made", tower=False)
    made.rename(tmp_path / "MiniCPM-V-2_6-int4")
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words = shlex.split(line)[1:]
        # Only a published vocabulary is known by what it splits a text into.
        assert main([*words, *(["--pre", "qwen2"] if words[0] in ("plan", "convert") else [])]) == 0, line
    assert {path.name for path in tmp_path.glob("*.gguf")} == {"minicpmv-model.gguf", "minicpmv-mmproj.gguf"}
