"""What a new family can say in its own file, without a change to the builder."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import gguf_reader
import numpy as np
import pytest
from small_models import Tensors, changed

import streamconv
from streamconv.errors import BadInput
from streamconv.models import FAMILIES, PROJECTORS
from streamconv.models.family import Family
from streamconv.models.gguf_names import known_names
from streamconv.models.names import stem_of

_QKV, _GATE_UP = "self_attn.qkv_proj", "mlp.gate_up_proj"
_BLOCK = "model.layers.{bid}."
#: query, key and value in one matrix, gate and up in another, as Phi 3 has them
FUSED = replace(
    FAMILIES["MistralForCausalLM"],
    arch="phi3",
    architectures=("FusedForCausalLM",),
    names={_BLOCK + _QKV: "blk.{bid}.attn_qkv", _BLOCK + _GATE_UP: "blk.{bid}.ffn_up"},
    transforms={},
)


def fused(tensors: Tensors) -> Tensors:
    """The Llama layout with the matrices joined."""
    parts = {
        _QKV: [f"self_attn.{x}_proj" for x in "qkv"],
        _GATE_UP: ["mlp.gate_proj", "mlp.up_proj"],
    }
    for block in range(2):
        at = f"model.layers.{block}."
        for joined, names in parts.items():
            found = [tensors.pop(f"{at}{name}.weight") for name in names]
            tensors[f"{at}{joined}.weight"] = found[0][0], np.concatenate([words for _, words in found])
    return tensors


@pytest.fixture
def fused_model(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(FAMILIES, "FusedForCausalLM", FUSED)
    mistral = data / "checkpoints" / "mistral-spm" / "hf"
    return changed(mistral, tmp_path / "hf", fused, lambda c: c.update(architectures=["FusedForCausalLM"]))


def test_a_family_with_joined_matrices_needs_no_others(fused_model: Path, tmp_path: Path) -> None:
    streamconv.convert(fused_model, tmp_path / "x.gguf", type="f32", threads=1)
    found = gguf_reader.read(tmp_path / "x.gguf")
    assert found.keys["general.architecture"][1] == "phi3"
    per_block = ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
    blocks = {f"blk.{b}.{name}.weight" for b in range(2) for name in per_block}
    assert set(found.tensors) == blocks | {"token_embd.weight", "output_norm.weight", "output.weight"}


@pytest.mark.parametrize("stem", [_QKV, _GATE_UP])
def test_a_joined_matrix_has_the_sum_of_the_sizes(fused_model: Path, tmp_path: Path, stem: str) -> None:
    def shorten(tensors: Tensors) -> None:
        dtype, words = tensors[f"model.layers.0.{stem}.weight"]
        tensors[f"model.layers.0.{stem}.weight"] = dtype, words[:-8]

    source = changed(fused_model, tmp_path / "short", shorten)
    with pytest.raises(BadInput, match=r"has shape \[\d+, 64\], config\.json asks for \[\d+, 64\]"):
        streamconv.convert(source, tmp_path / "x.gguf")


def stems(family: Family) -> set[str]:
    """Stems of all tensors that a family may have."""
    targets = [*(name for _, name in known_names(family.named_as or family.arch)), *family.names.values()]
    return {stem_of(name) for name in [*targets, *(t for rule in family.rules for t in rule.targets)]}


@pytest.mark.parametrize(
    "family", [*FAMILIES.values(), *PROJECTORS.values()], ids=lambda f: f"{f.kind} {f.architectures[0]}"
)
def test_a_family_tells_only_of_tensors_that_it_names(family: Family) -> None:
    known = stems(family)
    known = [*known, *(f"{stem}{suffix}" for stem in known for suffix in family.suffixes)]
    for pattern in family.transforms:
        assert any(fnmatchcase(stem, pattern) for stem in known), pattern
    for pattern in family.misfits:
        names = (f"{block}{stem}.{end}" for block in ("", "blk.0.") for stem in known for end in ("weight", "bias"))
        assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_a_bias_is_as_long_as_its_weight_has_rows(data: Path, tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> None:
        dtype, words = tensors["model.layers.0.self_attn.q_proj.bias"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = dtype, words[:-8]

    source = changed(data / "checkpoints" / "qwen2-yarn" / "hf", tmp_path / "short", shorten)
    with pytest.raises(BadInput, match=r"q_proj\.bias. has shape \[56\], config\.json asks for \[64\]"):
        streamconv.convert(source, tmp_path / "x.gguf", pre="qwen2")
