"""What a command loads before it does anything: seconds that every call would cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: slow to load, and needed by some commands only
HEAVY = {
    "numba",
    "llvmlite",
    "requests",
    "urllib3",
    "huggingface_hub",
    "tokenizers",
    "sentencepiece",
    "transformers",
    "torch",
    "zstandard",
}


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter has after ``code``."""
    program = f"import sys\n{code}\nprint('|' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("|")[2].split())


def run(*arguments: str) -> str:
    return f"from streamconv import cli\ntry: cli.main({list(arguments)!r})\nexcept SystemExit: pass"


@pytest.mark.parametrize("code", ["import streamconv", run("--help"), run("convert", "--help"), run("--version")])
def test_nothing_but_arguments_and_errors_is_loaded_to_answer_at_once(code: str) -> None:
    loaded = loaded_by(code)
    assert not loaded & {*HEAVY, "numpy", "yaml"}
    assert {name for name in loaded if name.startswith("streamconv.")} <= {
        "streamconv.errors",
        "streamconv.limits",
        "streamconv.units",
        "streamconv.file_names",
        "streamconv.terminal",
        "streamconv.flags",
        "streamconv.found",
        "streamconv.cli",
    }


def test_a_plan_needs_neither_compiler_nor_recipes_nor_network(tiny_model: Path, tmp_path: Path) -> None:
    loaded = loaded_by(run("plan", str(tiny_model), str(tmp_path / "x.gguf"), "--type", "Q4_K_M"))
    assert "streamconv.conversion" in loaded
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.startswith(("streamconv.merging", "streamconv.check.values"))}
