"""Mixtures, latent attention and hybrids in llama.cpp: mixes and pruning as its quantizer does them, stacks that it computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf_reader
import pytest

import streamconv

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

Ask = Callable[..., list[dict[str, Any]]]
#: case -> a block that the model can do without, None where it needs all, and how many layers it has
CASES: dict[str, tuple[int | None, int]] = {
    "qwen3moe": (0, 2), "mixtral": (1, 2), "deepseek2": (1, 2), "glm4-moe": (0, 2), "gpt-oss-bf16": (1, 2), "granite-moe": (1, 2),
    "minicpm3": (0, 2), "nemotron-h": (1, 5), "lfm2": (1, 4), "kimi-linear": (1, 4), "qwen35": (0, 4), "jamba": (0, 4),
    "falcon-h1": (1, 2), "granite-hybrid": (0, 2), "gemma4-dense": (None, 2), "step35": (3, 4), "nanbeige": (0, 2),
    "apertus": (0, 2),
}  # fmt: skip
#: options of ours, and the same for its quantizer
MIXES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mix": ("Q4_K_M", {}, {"ftype": 15}),
    "low": ("Q2_K", {}, {"ftype": 10}),
    "by name": (
        "Q4_K_M",
        {"tensor_types": ["ffn_.*_exps=Q5_0", "attn_kv_b=F16", "ssm_=Q8_0", "attn_v=Q5_1"]},
        {"ftype": 15, "types": {"ffn_.*_exps": 6, "attn_kv_b": 1, "ssm_": 8, "attn_v": 7}},
    ),
}


@pytest.fixture
def model(request: pytest.FixtureRequest, recipes: ModuleType, reference: Path, tmp_path: Path) -> dict[str, Any]:
    """A case whose checkpoint lies in ``hf``."""
    case: dict[str, Any] = recipes.materialise(reference / "golden" / "zoo" / f"{request.param}.json", tmp_path / "hf")
    return case


def same(ours: Path, theirs: Path) -> None:
    a, b = gguf_reader.read(ours), gguf_reader.read(theirs)
    assert {n: t.type for n, t in a.tensors.items()} == {n: t.type for n, t in b.tensors.items()}
    assert [n for n, t in a.tensors.items() if t.data != b.tensors[n].data] == []


@pytest.mark.parametrize("model", CASES, indirect=True)
def test_mixes_and_pruning_are_those_of_llama_quantize(
    model: dict[str, Any], llama: Ask, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["model"]
    whole, theirs, ours = tmp_path / "whole.gguf", tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    streamconv.convert(tmp_path / "hf", whole, type="f32", pre=model.get("pretokenizer_override") or None, threads=1)
    for kind, options, question in MIXES.values():
        asked = {"do": "quantize", "file": str(whole), "out": str(theirs), **question}
        assert llama(asked)[0] == {"ok": True}
        streamconv.convert(whole, ours, type=kind, threads=1, update=True, **options)
        same(ours, theirs)
    block = CASES[name][0]
    if block is None:
        return
    asked = {"do": "quantize", "file": str(whole), "out": str(theirs), "ftype": 16, "prune": [block]}
    assert llama(asked)[0] == {"ok": True}
    streamconv.convert(whole, ours, type="Q5_K_S", threads=1, update=True, prune_layers=[block])
    same(ours, theirs)
    assert llama({"do": "evaluate", "file": str(ours)})[0]["ok"]


@pytest.mark.parametrize("model", sorted({*CASES} - {"jamba", "qwen35"}), indirect=True)
def test_a_layer_that_comes_twice_is_computed_twice(
    model: dict[str, Any], llama: Ask, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    n = CASES[request.node.callspec.params["model"]][1]
    source = f"model: {tmp_path / 'hf'}, layer_range:"
    slices = f"slices:\n- sources: [{{{source} [0, {n}]}}]\n- sources: [{{{source} [{n - 1}, {n}]}}]\n"
    recipe, out = tmp_path / "stack.yml", tmp_path / "out.gguf"
    recipe.write_text(f"merge_method: passthrough\n{slices}")
    streamconv.convert(recipe, out, type="f16", pre=model.get("pretokenizer_override") or None, threads=1)
    answer = llama({"do": "evaluate", "file": str(out)})[0]
    assert answer["ok"], answer
