"""What config.json says otherwise than runtimes compute is refused or told, by key and value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf_reader
import pytest
from small_models import changed

import streamconv
from streamconv.errors import BadInput
from streamconv.models import FAMILIES, family_of
from streamconv.models.assumed import judged
from streamconv.models.build import settled
from streamconv.models.config import Config, normalise
from streamconv.models.rope_places import said_twice
from streamconv.sources import open_checkpoint


@pytest.mark.parametrize(
    ("case", "key", "value"),
    [
        ("mistral-spm", "hidden_act", "gelu"),
        ("mistral-spm", "partial_rotary_factor", 0.5),
        ("mistral-spm", "rope_parameters", {"rope_theta": 10000.0, "partial_rotary_factor": 0.25}),
        ("qwen2-yarn", "hidden_act", "relu"),
        ("gemma3-text", "hidden_activation", "silu"),
        ("gemma1", "attention_bias", True),
    ],
)
def test_what_no_key_of_the_output_can_say_is_refused(
    data: Path, tmp_path: Path, case: str, key: str, value: Any
) -> None:
    source = changed(data / "checkpoints" / case / "hf", tmp_path / "hf", config=lambda c: c.update({key: value}))
    with pytest.raises(BadInput, match=r"config\.json: '\w+' is .*, runtimes compute '\w+' with"):
        streamconv.plan(source, tmp_path / "x.gguf", vocab_only=True)


@pytest.mark.parametrize("value", [None, "silu"])
def test_what_runtimes_compute_is_fine(data: Path, tmp_path: Path, value: Any) -> None:
    mistral = data / "checkpoints" / "mistral-spm" / "hf"
    source = changed(mistral, tmp_path / "hf", config=lambda c: c.update(hidden_act=value, partial_rotary_factor=1.0))
    assert not [w for w in streamconv.plan(source, tmp_path / "x.gguf")["warnings"] if "hidden_act" in w]


TOLD = [
    (
        "qwen2-yarn",
        {"use_sliding_window": True},
        "'use_sliding_window' is True, but runtimes use full attention in every layer",
    ),
    (
        "qwen2-yarn",
        {"layer_types": ["full_attention", "sliding_attention"]},
        "'layer_types' is .* but runtimes use full attention in every layer",
    ),
    ("mistral-spm", {"sliding_window": 64}, "'sliding_window' is 64, but runtimes use full attention in every layer"),
    ("mistral-spm", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'rope_type' is 'dynamic', but no GGUF key"),
    (
        "mistral-spm",
        {"rope_scaling": {"type": "longrope", "factor": 2.0}},
        "'rope_type' is 'longrope', but no GGUF key",
    ),
    (
        "qwen2-yarn",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}},
        "'truncate' is False, but runtimes",
    ),
    ("gemma3-text", {"query_pre_attn_scalar": 77}, "'query_pre_attn_scalar' is 77, but runtimes scale attention"),
    (
        "gemma3-text",
        {"layer_types": ["full_attention"] * 7},
        "'layer_types' is .* but runtimes treat every layer as sliding",
    ),
    (
        "gemma3-text",
        {"sliding_window_pattern": 2},
        "'sliding_window_pattern' is 2, but runtimes use full attention in every sixth",
    ),
    (
        "mistral-spm",
        {"tie_word_embeddings": True},
        "'tie_word_embeddings' is True, but the checkpoint has an output head",
    ),
]


@pytest.mark.parametrize(("case", "stated", "words"), TOLD)
def test_what_changes_little_or_long_texts_only_is_told(
    data: Path, tmp_path: Path, case: str, stated: dict[str, Any], words: str
) -> None:
    source = changed(data / "checkpoints" / case / "hf", tmp_path / "hf", config=lambda c: c.update(stated))
    warnings = streamconv.plan(source, tmp_path / "x.gguf", pre="qwen2" if "qwen" in case else None)["warnings"]
    assert any(re.search(words, text) for text in warnings)
    assert all("config.json" in text for text in warnings if re.search(words, text))


def test_a_head_that_is_nowhere_is_told(data: Path, tmp_path: Path) -> None:
    qwen = data / "checkpoints" / "qwen3-tied" / "hf"
    source = changed(qwen, tmp_path / "hf", lambda t: {n: x for n, x in t.items() if n != "lm_head.weight"}, lambda c: c.update(
        tie_word_embeddings=False))  # fmt: skip
    warnings = streamconv.plan(source, tmp_path / "x.gguf", pre="qwen2")["warnings"]
    assert any("'tie_word_embeddings' is False, but the checkpoint has no output head" in text for text in warnings)


def test_a_window_as_long_as_the_context_is_none(data: Path, tmp_path: Path) -> None:
    mistral = data / "checkpoints" / "mistral-spm" / "hf"
    source = changed(mistral, tmp_path / "hf", config=lambda c: c.update(sliding_window=256))
    assert not [w for w in streamconv.plan(source, tmp_path / "x.gguf")["warnings"] if "window" in w]


def test_what_the_class_says_by_default_is_told_too(data: Path, tmp_path: Path) -> None:
    mistral = data / "checkpoints" / "mistral-spm" / "hf"
    source = changed(
        mistral, tmp_path / "hf", config=lambda c: (c.pop("sliding_window"), c.pop("max_position_embeddings"))
    )
    warnings = streamconv.plan(source, tmp_path / "x.gguf")["warnings"]
    assert any("'sliding_window' is 4096 by default, but" in text for text in warnings)


@pytest.mark.parametrize("case", ["mistral-spm", "qwen2-yarn", "qwen3-tied", "gemma1", "gemma3-text", "llama3-bpe"])
def test_keys_that_nobody_knows_are_named_once_and_no_others(data: Path, tmp_path: Path, case: str) -> None:
    def told(folder: str, stated: dict[str, Any]) -> list[str]:
        source = changed(data / "checkpoints" / case / "hf", tmp_path / folder, config=lambda c: c.update(stated))
        pre = {"qwen": "qwen2", "llam": "llama-bpe"}.get(case[:4])
        return [w for w in streamconv.plan(source, tmp_path / "x.gguf", pre=pre)["warnings"] if "does not know" in w]

    assert told("plain", {"attention_dropout": 0.3, "logits_scaling": None, "auto_map": {"AutoConfig": "x.y"}}) == []
    (text,) = told("other", {"logits_scaling": 8.0, "use_rotor": True, "router_aux_loss_coef": 0.5})
    assert "'logits_scaling', 'use_rotor'" in text
    assert "router_aux_loss_coef" not in text
    (text,) = told("rope", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "wobble": 3}})
    assert "'rope_parameters.wobble'" in text


def test_keys_of_other_modules_are_not_named(data: Path, tmp_path: Path) -> None:
    def nested(config: dict[str, Any]) -> None:
        text = {**config, "model_type": "mistral"}
        config.clear()
        config.update(
            architectures=["LlavaForConditionalGeneration"], text_config=text, projector_depth=3, vision_config={}
        )

    source = changed(data / "checkpoints" / "mistral-spm" / "hf", tmp_path / "hf", config=nested)
    # the architecture inside is named there
    warnings = streamconv.plan(source, tmp_path / "x.gguf")["warnings"]
    assert not [w for w in warnings if "does not know" in w]


def test_llama3_scaling_is_refused_where_no_tensor_can_say_it(data: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    qwen = data / "checkpoints" / "qwen2-yarn" / "hf"
    source = changed(qwen, tmp_path / "hf", config=lambda c: c.update(rope_scaling=rope))
    with pytest.raises(BadInput, match="'rope_type' is 'llama3', which no runtime computes for 'qwen2'"):
        streamconv.plan(source, tmp_path / "x.gguf", pre="qwen2")


def test_what_a_gemma_says_of_rope_is_written_where_it_is_not_as_in_all(data: Path, tmp_path: Path) -> None:
    gemma = data / "checkpoints" / "gemma1" / "hf"
    source = changed(gemma, tmp_path / "hf", config=lambda c: c.update(
        rope_theta=5000.0, rope_scaling={"type": "linear", "factor": 2.0}))  # fmt: skip
    streamconv.convert(source, tmp_path / "x.gguf", vocab_only=True)
    keys = gguf_reader.read(tmp_path / "x.gguf").keys
    assert keys["gemma.rope.freq_base"][1] == 5000.0
    assert keys["gemma.rope.scaling.factor"][1] == 2.0


def _config(family: str, **stated: Any) -> Config:
    return normalise(
        {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4, **stated}, FAMILIES[family].classes
    )


STATED = [
    ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-silu"}, "runtimes compute gelu"),
    ("T5ForConditionalGeneration", {"model_type": "t5"}, "'scale_decoder_outputs' is True"),
    ("T5ForConditionalGeneration", {"relative_attention_max_distance": 64}, None),
    ("BertModel", {"hidden_act": "relu"}, None),
    ("BertModel", {"position_embedding_type": "relative_key"}, None),
    ("BertModel", {"is_decoder": True}, None),
    ("MambaForCausalLM", {"rms_norm": False}, None),
    ("FalconMambaForCausalLM", {"layer_norm_epsilon": 1e-5, "mixer_rms_eps": 1e-6}, "'mixer_rms_eps' is 1e-06"),
    ("GptOssForCausalLM", {"swiglu_limit": 5.0}, None),
    ("GptOssForCausalLM", {"swiglu_alpha": 2.0}, None),
    ("GptOssForCausalLM", {"layer_types": ["full_attention"] * 4}, "except every 2th"),
    ("Qwen2MoeForCausalLM", {"norm_topk_prob": True}, "runtimes do not scale the weights"),
    ("Qwen3MoeForCausalLM", {}, "'norm_topk_prob' is False, but runtimes scale"),
    ("Qwen3MoeForCausalLM", {"decoder_sparse_step": 2}, "runtimes look for experts in every layer"),
    ("Qwen3NextForCausalLM", {"mlp_only_layers": [1]}, "runtimes look for experts in every layer"),
    ("MixtralForCausalLM", {"hidden_act": "gelu"}, None),
    ("MixtralForCausalLM", {"sliding_window": 128}, "'sliding_window' is 128"),
    ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 99}, "'query_pre_attn_scalar' is 99"),
    ("GemmaForCausalLM", {"use_bidirectional_attention": True}, None),
    ("GraniteMoeHybridForCausalLM", {"normalization_function": "layernorm", "attn_layer_indices": [1]}, None),
    (
        "GraniteMoeHybridForCausalLM",
        {"position_embedding_type": "rope", "attn_layer_indices": [1]},
        "runtimes apply no RoPE in hybrids",
    ),
    ("GraniteMoeHybridForCausalLM", {"time_step_limit": [0.1, 1.0], "attn_layer_indices": [1]}, "'time_step_limit' is"),
    ("BambaForCausalLM", {"partial_rotary_factor": 0.5, "attn_layer_indices": [1]}, "'partial_rotary_factor' is 0.5"),
    ("LlamaForCausalLM", {"draft_vocab_size": 100}, None),
]


@pytest.mark.parametrize(("family", "stated", "words"), STATED, ids=lambda x: str(x)[:40])
def test_every_family_says_what_its_runtime_assumes(family: str, stated: dict[str, Any], words: str | None) -> None:
    assumes, config = FAMILIES[family].assumes, _config(family, **stated)
    if words is None:
        with pytest.raises(BadInput, match=f"{list(stated)[-1] if len(stated) == 1 else ''}.*runtimes compute"):
            list(judged(config, assumes, "x"))
    else:
        assert any(words in text for text in judged(config, assumes, "x"))


def test_what_classes_say_by_default_is_never_refused() -> None:
    """But for BitNet's, whose activation llama.cpp does not compute, and HunyuanVL's, which leaves the kind of RoPE out."""
    for name, family in FAMILIES.items():
        for kind in family.classes.keys() - {"bitnet", "hunyuan_vl", "hunyuan_vl_text"}:
            config = normalise({"model_type": kind}, family.classes)
            assert isinstance(list(judged(config, family.assumes, family.arch)), list), name


BOTH = {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}


@pytest.mark.parametrize(("case", "stated", "told"), [
    ("mistral-spm", {**BOTH, "rope_theta": 10000.0}, ["rope_theta 500000.0 and 10000.0: the output has 500000.0,"]),
    ("mistral-spm", {**BOTH, "rope_theta": 500000}, []), ("mistral-spm", {"rope_parameters": None, "rope_theta": 7.0}, []),
    ("mistral-spm", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 500000.0,
                     "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0}},
     ["factor 2.0 and 4.0: the output has 2.0,"]),
    ("qwen2-yarn", {"rope_scaling": {"type": "yarn", "rope_type": "yarn", "factor": 2.0,
                                     "original_max_position_embeddings": 64}, "original_max_position_embeddings": 128},
     ["original_max_position_embeddings 64 and 128: the output has 64,"]),
    ("gemma3-text", {"rope_local_base_freq": 11.0, "rope_theta": 5.0, "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 7.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 3.0}}},
     ["rope_theta 7.0 and 5.0 of full_attention layers: the output has 7.0,",
      "rope_theta 3.0 and 11.0 of sliding_attention layers: the output has 3.0,"]),
])  # fmt: skip
def test_what_config_json_says_twice_of_rope_is_told_where_it_differs(
    data: Path, tmp_path: Path, case: str, stated: dict[str, Any], told: list[str]
) -> None:
    def stating(config: dict[str, Any]) -> None:
        for key in ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq"):
            config.pop(key, None)
        config.update(stated)

    source = changed(data / "checkpoints" / case / "hf", tmp_path / "hf", config=stating)
    pre = "qwen2" if case == "qwen2-yarn" else None
    notes = [
        note for note in streamconv.plan(source, tmp_path / "x.gguf", pre=pre)["warnings"] if "as transformers" in note
    ]
    assert len(notes) == len(told)
    assert all(words in note for words, note in zip(told, notes, strict=True))


@pytest.mark.parametrize(
    "case", ["gemma1", "gemma3-text", "llama-linear-sharded", "llama3-bpe", "mistral-spm", "qwen2-yarn", "qwen3-tied"]
)
def test_models_that_say_it_once_are_told_nothing(data: Path, case: str) -> None:
    checkpoint = open_checkpoint(data / "checkpoints" / case / "hf")
    assert list(said_twice(settled(checkpoint, family_of(checkpoint))[1])) == []
