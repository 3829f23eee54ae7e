"""What config.json says twice, or otherwise than the tensors, is told by key; nothing is told where both agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import changed, gemma2

import streamconv
from streamconv.errors import BadInput

_BIAS = "model.layers.0.self_attn.q_proj.bias"


def told(data: Path, tmp_path: Path, case: str, stated: dict[str, Any], bias: str = "") -> list[str]:
    """What is told of ``case`` with ``stated`` in config.json, and with a bias of that name, beyond what is told without."""
    checkpoint, pre = data / "checkpoints" / case / "hf", {"qwen": "qwen2", "llam": "llama-bpe"}.get(case[:4])
    extra = {bias: ("F32", np.ones(64, "<f4"))} if bias else {}
    source = changed(checkpoint, tmp_path / "hf", lambda t: {**t, **extra}, lambda c: c.update(stated))
    before, after = (streamconv.plan(s, tmp_path / "x.gguf", pre=pre)["warnings"] for s in (checkpoint, source))
    known = {text.replace(str(checkpoint), str(source)) for text in before}
    return [text for text in after if text not in known]


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
TOLD = [
    ("mistral-spm", {"attention_bias": True}, "'attention_bias' is True, but the checkpoint has no such bias"),
    ("qwen3-tied", {"mlp_bias": 1}, "'mlp_bias' is 1, but the checkpoint has no such bias"),
    ("qwen2-yarn", {"attention_bias": False}, "'attention_bias' is False, but the checkpoint has biases such as blk."),
    ("qwen2-yarn", {"qkv_bias": False}, "'qkv_bias' is False, but"),
    ("qwen2-yarn", {"lm_head_bias": True}, "'lm_head_bias' is True, but the checkpoint has no such bias"),
    ("gemma1", {"ffn_bias": True}, "'ffn_bias' is True, but the checkpoint has no such bias"),
    ("qwen2-yarn", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "says rope_type yarn and linear"),
    ("mistral-spm", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "says rope_theta 500000.0 and 1000000.0"),
    ("llama3-bpe", {"original_max_position_embeddings": 77}, "says original_max_position_embeddings 256 and 77"),
    ("mistral-spm", {"rope_scaling": {"factor": 2.0}}, "RoPE has a factor of 2.0 and no kind of scaling"),
    ("qwen3-tied", {"rope_scaling": {"type": None, "factor": 4}}, "RoPE has a factor of 4 and no kind of scaling"),
    ("mistral-spm", {"rope_local_base_freq": 5000.0}, "says 'rope_local_base_freq', which this version does not know"),
    ("qwen3-tied", {"output_multiplier": 2.0}, "says 'output_multiplier', which this version does not know"),
    ("gemma3-text", {"init_scale": 2.0}, "says 'init_scale', which this version does not know"),
    ("mistral-spm", {"model_type": "qwen2"}, "but its model_type 'qwen2' is that of 'Qwen2ForCausalLM'"),
    ("gemma1", {"tie_word_embeddings": False}, "'tie_word_embeddings' is False, but the checkpoint has no output head"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "stated", "words"), TOLD, ids=lambda x: x if isinstance(x, str) else str(x)[:40])
def test_a_statement_that_another_contradicts_is_told(
    data: Path, tmp_path: Path, case: str, stated: dict[str, Any], words: str
) -> None:
    assert any(words in text for text in told(data, tmp_path, case, stated)), words


AGREED: list[tuple[str, dict[str, Any]]] = [
    ("qwen2-yarn", {"attention_bias": True, "qkv_bias": True, "mlp_bias": False}),
    ("qwen2-yarn", {"rope_parameters": YARN}),
    ("qwen2-yarn", {"rope_parameters": {}, "original_max_position_embeddings": 64}),
    ("mistral-spm", {"attention_bias": False, "mlp_bias": None, "lm_head_bias": False}),
    ("mistral-spm", {"rope_scaling": {"type": "default", "factor": 1.0}, "rope_parameters": None}),
    ("mistral-spm", {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000}}),
    ("gemma3-text", {"rope_local_base_freq": 5000.0}),
    ("mistral-spm", {"output_attentions": True, "init_std": 0.1, "model_type": "my_own"}),
]


@pytest.mark.parametrize(("case", "stated"), AGREED, ids=lambda x: str(x)[:40])
def test_statements_that_agree_are_not_told(data: Path, tmp_path: Path, case: str, stated: dict[str, Any]) -> None:
    assert told(data, tmp_path, case, stated) == []


def test_a_bias_that_is_denied_is_told_though_runtimes_add_it(data: Path, tmp_path: Path) -> None:
    notes = told(data, tmp_path, "mistral-spm", {"attention_bias": False}, bias=_BIAS)
    assert any("has biases such as blk.0.attn_q.bias, which runtimes add" in text for text in notes)


def test_the_own_output_head_of_a_gemma_is_said_to_be_left_out(data: Path, tmp_path: Path) -> None:
    source = changed(data / "checkpoints" / "gemma1" / "hf", tmp_path / "hf", lambda t: {
        **t, "lm_head.weight": t["model.embed_tokens.weight"]}, lambda c: c.update(tie_word_embeddings=False))  # fmt: skip
    warnings = streamconv.plan(source, tmp_path / "x.gguf")["warnings"]
    assert any("has an output head, which this kind of model lacks: runtimes use the embedding" in w for w in warnings)


@pytest.mark.parametrize("case", ["mistral-spm", "gemma3-text"])
def test_scaling_of_sliding_layers_alone_is_refused_for_every_family(data: Path, tmp_path: Path, case: str) -> None:
    kinds = {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
             "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}  # fmt: skip
    with pytest.raises(BadInput, match=r"config\.json: RoPE of sliding layers is 'linear'"):
        told(data, tmp_path, case, {"rope_parameters": kinds})


WRONG_TYPES = [
    ("qwen3-tied", {"layer_types": "full_attention"}, "'layer_types' is .*, not a list"),
    ("mistral-spm", {"partial_rotary_factor": "1.0"}, "'partial_rotary_factor' of RoPE is .*, not a number"),
    ("mistral-spm", {"rope_parameters": {"partial_rotary_factor": True}}, "'partial_rotary_factor' of RoPE is 'True'"),
    ("qwen2-yarn", {"rope_scaling": {**YARN, "beta_fast": "32"}}, "'beta_fast' of RoPE is .*, not a number"),
    ("gemma1", {"rope_scaling": {"type": "linear", "factor": "2"}}, "'factor' of RoPE is .*, not a number"),
    ("llama3-bpe", {"rope_scaling": {"type": "default", "factor": [2.0]}}, "'factor' of RoPE is .*, not a number"),
]


@pytest.mark.parametrize(("case", "stated", "words"), WRONG_TYPES, ids=lambda x: str(x)[:40])
def test_a_statement_of_the_wrong_type_is_refused_by_key(
    data: Path, tmp_path: Path, case: str, stated: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        told(data, tmp_path, case, stated)


def test_a_gemma_2_without_a_window_has_one_as_long_as_its_context(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "hf")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "sliding_window": None, "max_position_embeddings": 777}))
    streamconv.convert(source, tmp_path / "x.gguf", vocab_only=True)
    assert gguf_reader.read(tmp_path / "x.gguf").keys["gemma2.attention.sliding_window"][1] == 777


def test_what_a_merge_says_is_said_of_its_recipe(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yml"
    model = data / "checkpoints" / "mistral-spm" / "hf"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {model}}}]\n")
    warnings = streamconv.plan(recipe, tmp_path / "x.gguf")["warnings"]
    assert [text for text in warnings if text.startswith(f"{recipe}, config.json: 'sliding_window' is 64")]
