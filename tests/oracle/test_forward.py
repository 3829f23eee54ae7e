"""Logits of whole checkpoints of many architectures, from their conversion on, in llama.cpp and here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import streamconv
from streamconv.sources import read_gguf

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

Ask = Callable[..., list[dict[str, Any]]]
#: their activation is looked up in a table of half-precision numbers there, or is another approximation
LOOKED_UP = ("falcon", "gemma", "gptneox", "grok", "mpt", "phi2", "spark25", "starcoder2")
CASES = (
    "afmoe", "apertus", "arcee", "bailingmoe", "bailingmoe3", "bailingmoe3-vl", "bamba", "chatglm4", "cohere2", "cohere2moe",
    "command-r", "dbrx", "deci-7b", "deepseek", "deepseek3", "dots1", "ernie4_5-moe", "falcon", "falcon-h1", "falcon-mamba",
    "gemma", "gemma2", "gemma3-hfvocab", "glm4", "glm4-moe", "glm5v", "gpt-oss-bf16", "gptneox", "granite", "granite-hybrid",
    "granite-hybrid-dense", "granite-moe-shared", "granite-moe-swa", "granite-swa", "grok", "grok-2", "hunyuan-moe",
    "hunyuan-vl", "hy-v3", "internlm2", "jamba", "jamba-hf", "kimi-linear", "kimi-linear-b", "laguna", "lfm2", "lfm2-b",
    "lfm2moe", "llama", "llama4", "mamba", "mamba-b", "mamba2", "mamba2-b", "mimo2", "minicpm", "minicpm3-defaults",
    "minimax-m2", "ministral3", "mistral", "mistral4", "mixtral", "mpt", "muse-glimmer", "nemotron", "nemotron-h",
    "nemotron-h-moe", "nemotron-h-moe-mtp", "nemotron-h-puzzle", "olmo", "olmo2", "olmo3", "olmoe", "paddleocr", "phi2", "plamo3",
    "qwen2", "qwen2moe", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "seed-oss", "smollm3", "spark25", "stablelm",
    "starcoder2", "step35",
)  # fmt: skip
#: they choose which positions a token sees, of so many in these models
CHOOSING = {"deepseek32": 16, "glm-dsa": 16, "minimax-m3": 32}


@pytest.mark.parametrize("name", [*CASES, *CHOOSING])
def test_logits_of_a_converted_checkpoint_are_those_of_llama_cpp(
    name: str, recipes: ModuleType, reference: Path, llama: Ask, tmp_path: Path
) -> None:
    case = recipes.materialise(reference / "golden" / "zoo" / f"{name}.json", tmp_path / "hf")
    file, answer = tmp_path / "m.gguf", tmp_path / "logits.npy"
    streamconv.convert(tmp_path / "hf", file, type="f32", pre=case.get("pretokenizer_override") or None, threads=1)
    n_vocab = read_gguf(file).tensors["token_embd.weight"].shape[0]
    ids = [(i * 7919 + 3) % (n_vocab - 10) for i in range(CHOOSING.get(name, 80))]
    said = llama({"do": "logits", "file": str(file), "tokens": ids, "out": str(answer)})[0]
    assert said["ok"], said
    want = np.load(answer)
    bound = 1e-2 if name.startswith(LOOKED_UP) else 1e-3
    for source in (file, tmp_path / "hf"):
        got = streamconv.logits(source, ids)
        assert np.abs(got - want).max() <= bound * want.std(), source.name
