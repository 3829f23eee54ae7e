"""Our files in real llama.cpp: they load, compute the recorded logits, generate text, and equal its own quantizer's."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import gemma2

import streamconv
from streamconv.check import check_gguf

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

Ask = Callable[..., list[dict[str, Any]]]

#: largest difference seen between torch's logits and llama.cpp's, which has a half-precision table of GELU
SILU, GELU = 3e-5, 6e-3
CASES = {
    "llama2-spm": SILU, "llama3-bpe": SILU, "llama-linear-sharded": SILU, "mistral-spm": SILU, "qwen2-yarn": SILU,
    "qwen3-tied": SILU, "gemma1": GELU, "gemma3-text": GELU, "gemma3-mm": GELU,
}  # fmt: skip
#: file type -> its number in llama.h
FTYPES = {"Q4_K_M": 15, "Q4_K_S": 14, "Q5_K_M": 17, "Q6_K": 18, "Q4_0": 2, "Q5_1": 9, "Q8_0": 7}


def check_errors(path: Path) -> list[str]:
    return [f.message for f in check_gguf(path, scan=True) if f.severity == "error"]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_reference_file_and_of_torch(
    reference: Path, llama: Ask, tmp_path: Path, case: str
) -> None:
    folder = reference / "golden" / "gguf" / case
    facts = json.loads((folder / "case.json").read_text())
    out, made = tmp_path / "x.gguf", tmp_path / "logits.npy"
    streamconv.convert(folder / "hf", out, type="f32", pre=facts["pretokenizer_override"])
    assert check_errors(out) == []
    question = {"do": "logits", "file": str(out), "tokens": facts["token_ids"], "out": str(made)}
    assert llama(question)[0] == {"ok": True}
    ours = np.load(made)
    recorded = np.load(folder / "logits.llamacpp-f32.npy")
    torch = np.load(folder / "logits.transformers.npy")
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= 1e-4
    n = min(ours.shape[1], torch.shape[1])
    assert np.abs(ours[:, :n] - torch[:, :n]).max() <= CASES[case]


@pytest.mark.parametrize("type_name", FTYPES)
def test_one_pass_gives_the_bytes_of_two(tiny_model: Path, llama: Ask, tmp_path: Path, type_name: str) -> None:
    f32, theirs, ours = tmp_path / "f32.gguf", tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    streamconv.convert(tiny_model, f32, type="f32")
    streamconv.convert(tiny_model, ours, type=type_name)
    question = {"do": "quantize", "file": str(f32), "out": str(theirs), "ftype": FTYPES[type_name]}
    assert llama(question)[0] == {"ok": True}
    a, b = gguf_reader.read(ours), gguf_reader.read(theirs)
    assert set(a.tensors) == set(b.tensors)
    different = {n: (t.type, b.tensors[n].type) for n, t in a.tensors.items() if t.data != b.tensors[n].data}
    # A converter keeps what is not quantized in the checkpoint's type, a quantizer has only seen F32.
    assert different == {}
    assert {n: t.type for n, t in a.tensors.items()} == {n: t.type for n, t in b.tensors.items()}
    assert a.keys["general.file_type"] == b.keys["general.file_type"]


@pytest.mark.parametrize("type_name", ["Q4_K_M", "Q6_K"])
def test_requantizing_our_file_gives_the_quantizer_s_tensors_in_its_order(
    tiny_model: Path, llama: Ask, tmp_path: Path, type_name: str
) -> None:
    f32, theirs, ours = tmp_path / "f32.gguf", tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    streamconv.convert(tiny_model, f32, type="f32")
    streamconv.convert(f32, ours, type=type_name)
    question = {"do": "quantize", "file": str(f32), "out": str(theirs), "ftype": FTYPES[type_name]}
    assert llama(question)[0] == {"ok": True}
    a, b = gguf_reader.read(ours), gguf_reader.read(theirs)
    assert list(a.tensors) == list(b.tensors)
    assert a.tensors == b.tensors
    keys = {k: v for k, v in a.keys.items() if k != "streamconv.job"}
    assert {k: v for k, v in b.keys.items() if k != "streamconv.job"} == keys


@pytest.mark.parametrize("type_name", ["BF16", "Q8_0", "Q4_K_M"])
def test_the_bundled_model_writes_code(tiny_model: Path, llama: Ask, tmp_path: Path, type_name: str) -> None:
    out = tmp_path / "x.gguf"
    streamconv.convert(tiny_model, out, type=type_name)
    assert check_errors(out) == []
    (answer,) = llama({"do": "generate", "file": str(out), "prompt": "def main(", "n": 32})
    assert answer["ok"], answer
    assert answer["ended"] or len(answer["tokens"]) == 32
    assert answer["text"].isprintable() or "\n" in answer["text"]
    assert ")" in answer["text"], "a model of code closes the bracket"


def test_gemma_2_loads_and_computes(llama: Ask, tmp_path: Path) -> None:
    out, made = tmp_path / "x.gguf", tmp_path / "logits.npy"
    streamconv.convert(gemma2(tmp_path / "hf"), out, type="f32")
    assert check_errors(out) == []
    assert llama({"do": "logits", "file": str(out), "tokens": [2, 30, 40, 50], "out": str(made)})[0] == {"ok": True}
    logits = np.load(made)
    assert np.isfinite(logits).all()
    assert np.abs(logits).max() <= 30.0, "the soft cap holds"


def without_tensor(source: Path, name: str, out: Path) -> Path:
    """A copy of ``source`` whose tensor ``name`` is called otherwise, which a loader cannot tell from its absence."""
    raw = source.read_bytes()
    spelling = struct.pack("<Q", len(name)) + name.encode()
    assert raw.count(spelling) == 1
    out.write_bytes(raw.replace(spelling, spelling[:-1] + b"?"))
    return out


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "output_norm.weight", "blk.1.ffn_down.weight"])
def test_check_and_the_loader_refuse_a_file_without_a_tensor(data: Path, llama: Ask, tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole.gguf"
    streamconv.convert(data / "checkpoints" / "mistral-spm" / "hf", whole, type="q8_0")
    broken = without_tensor(whole, name, tmp_path / "broken.gguf")
    assert check_errors(whole) == []
    assert any(name in message for message in check_errors(broken))
    answers = llama({"do": "load", "file": str(whole)}, {"do": "load", "file": str(broken)})
    assert [a["ok"] for a in answers] == [True, False]
