"""``make convert`` hands on any name as it is, and ``make clean`` removes no model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def make(folder: Path, *words: str) -> list[list[str]]:
    """The arguments of every call of streamconv by ``make WORDS`` in ``folder``."""
    (folder / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (folder / "pyproject.toml").touch()
    program = folder / "venv" / "bin" / "streamconv"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text('#!/bin/sh\nfor x in "$@"; do printf "%s\\0" "$x"; done >> calls; printf "\\n\\0" >> calls\n')
    program.chmod(0o755)
    (folder / "venv" / ".installed").touch()
    done = subprocess.run(
        ["make", *words, "VENV=venv"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    calls = (folder / "calls").read_bytes().decode() if (folder / "calls").exists() else ""
    return [call.split("\0")[:-1] for call in calls.split("\n\0")[:-1]]


@pytest.mark.parametrize(
    "name",
    ["plain.gguf", "my models/x y.gguf", "it's.gguf", 'a"b`touch hacked`.gguf', "a;touch hacked;.gguf", "x&y|z.gguf"],
)
def test_make_convert_hands_on_every_name_as_it_is(tmp_path: Path, name: str) -> None:
    calls = make(tmp_path, "convert", f"MODEL=in {name}", f"OUT={name}", "TYPE=Q8_0")
    assert calls == [["convert", f"in {name}", name, "--type", "Q8_0", "--update"], ["check", name]]
    made = {p.name for p in tmp_path.iterdir()} - {"Makefile", "pyproject.toml", "venv", "calls"}
    assert made == ({name.split("/")[0]} if "/" in name else set())


def test_make_clean_leaves_what_was_converted(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.gguf").write_text("took hours")
    make(tmp_path, "clean")
    assert (tmp_path / "out" / "model.gguf").exists()
