"""Options of llama.cpp's converter through it and ours, where no recorded conversion has them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf_reader
import option_models
import pytest

import streamconv
from streamconv.cli import main

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

#: what we write where the reference leaves a loader to guess
OURS = {
    "streamconv.job", "gemma-embedding.rope.local_freq_base", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eos_token_id",
}  # fmt: skip
Compare = Callable[..., None]


@pytest.fixture
def compare(peers: Path, tmp_path: Path) -> Compare:
    """Function that converts a checkpoint with the same options in both ways and compares all files, shard by shard."""
    script = peers.parent.parent / "llama.cpp" / "convert_hf_to_gguf.py"
    if not script.exists():
        pytest.skip(f"no converter at {script}; make peers fetches it")

    def call(source: Path, type_name: str, *options: str, n_files: int = 1) -> None:
        theirs, ours = tmp_path / "theirs", tmp_path / "ours"
        for folder in (theirs, ours):
            folder.mkdir()
        command = [str(peers), str(script), str(source), "--outfile", str(theirs / "x.gguf"), "--outtype", type_name]
        subprocess.run([*command, *options], check=True, capture_output=True, timeout=300)
        assert main(["convert", str(source), str(ours / "x.gguf"), "--type", type_name, "--quiet", *options]) == 0
        assert sorted(p.name for p in theirs.iterdir()) == sorted(p.name for p in ours.glob("x*"))
        assert len([*ours.glob("x*")]) == n_files
        for path in theirs.iterdir():
            a, b = gguf_reader.read(ours / path.name), gguf_reader.read(path)
            assert list(a.tensors.items()) == list(b.tensors.items())
            assert [(k, v) for k, v in a.keys.items() if k in b.keys] == list(b.keys.items())
            assert set(a.keys) - set(b.keys) <= OURS

    return call


@pytest.fixture
def small(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


@pytest.mark.parametrize("type_name", ["f32", "f16", "bf16", "auto", "q8_0"])
def test_8_bit_floats_become_q8_0(compare: Compare, tmp_path: Path, type_name: str) -> None:
    compare(option_models.fp8(tmp_path / "hf"), type_name, "--fp8-as-q8")


def test_8_bit_floats_are_fused_too(compare: Compare, tmp_path: Path) -> None:
    compare(option_models.fp8(tmp_path / "hf"), "bf16", "--fp8-as-q8", "--fuse-qkv")


@pytest.mark.parametrize("type_name", ["f16", "q8_0"])
def test_dense_modules_are_taken_along(compare: Compare, tmp_path: Path, type_name: str) -> None:
    option_models.embedder(tmp_path / "hf")
    compare(tmp_path / "hf", type_name, "--sentence-transformers-dense-modules")


@pytest.mark.parametrize("limit", [("--split-max-tensors", "9"), ("--split-max-size", "100K")])
def test_the_first_shard_is_empty(compare: Compare, small: Path, limit: tuple[str, str]) -> None:
    compare(small, "f16", "--no-tensor-first-split", *limit, n_files=4)


SAID = {
    **{f"general.{key}": f"a {key}" for key in (
        "author", "url", "name", "version", "quantized_by", "size_label", "license.name", "license.link", "doi", "uuid",
        "repo_url", "source.url", "source.doi", "source.uuid", "source.repo_url", "description", "finetune", "basename",
        "organization",
    )},
    "general.tags": ["q", "r"], "general.languages": ["de"], "general.datasets": [{"name": "D"}],
    "general.base_models": [{"name": "B", "author": "C", "organization": "O", "repo_url": "https://r"}],
    "general.sampling.top_k": 5, "general.sampling.temp": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("said", [SAID, dict.fromkeys(SAID)], ids=["all", "none"])
@pytest.mark.parametrize("more", [(), ("--model-name", "Zed")], ids=["", "named"])
def test_a_file_says_what_the_model_is_called(
    compare: Compare, small: Path, tmp_path: Path, said: dict[str, object], more: tuple[str, ...]
) -> None:
    (tmp_path / "said.json").write_text(json.dumps(said))
    compare(small, "f16", "--metadata", str(tmp_path / "said.json"), *more)


def test_a_licence_can_be_said_too_which_the_reference_forgets(compare: Compare, small: Path, tmp_path: Path) -> None:
    (tmp_path / "said.json").write_text(json.dumps({"general.license": "mit"}))
    with pytest.raises(AssertionError):
        compare(small, "f16", "--metadata", str(tmp_path / "said.json"))
    assert streamconv.open(tmp_path / "ours" / "x.gguf")
    assert gguf_reader.read(tmp_path / "ours" / "x.gguf").keys["general.license"] == ("STRING", "mit")
