"""The same checkpoints through llama.cpp's converter and ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gguf_reader
import pytest
from small_models import gemma2

import streamconv

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

#: what we write where the reference leaves a loader to guess
OURS = {"streamconv.job", "gemma3.rope.local_freq_base", "tokenizer.ggml.eot_token_id"}


@pytest.fixture(scope="module")
def converter(peers: Path) -> list[str]:
    script = peers.parent.parent / "llama.cpp" / "convert_hf_to_gguf.py"
    if not script.exists():
        pytest.skip(f"no converter at {script}; make peers fetches it")
    return [str(peers), str(script)]


@pytest.mark.parametrize("type_name", ["f16", "bf16", "q8_0", "auto"])
@pytest.mark.parametrize("model", ["bundled", "gemma2"])
def test_the_reference_converter_writes_the_same(
    converter: list[str], tiny_model: Path, tmp_path: Path, model: str, type_name: str
) -> None:
    source = tiny_model if model == "bundled" else gemma2(tmp_path / "hf")
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    command = [*converter, str(source), "--outfile", str(theirs), "--outtype", type_name]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    streamconv.convert(source, ours, type=type_name)
    a, b = gguf_reader.read(ours), gguf_reader.read(theirs)
    assert list(a.tensors.items()) == list(b.tensors.items())
    assert [(k, v) for k, v in a.keys.items() if k in b.keys] == list(b.keys.items())
    assert set(a.keys) - set(b.keys) <= OURS
