"""A configuration says to us what it says to transformers: class defaults, old and new spellings, null."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.models import FAMILIES
from streamconv.models.config import Config, normalise
from streamconv.models.families import gemma2, granite_hybrid, llama, t5
from streamconv.models.families._longrope import original_context
from streamconv.models.keys import rope_freq_base, rope_scaling, soft_caps

_RECORDED = Path(__file__).resolve().parents[1] / "data" / "configurations.json"
#: parameters of RoPE that have another name or place
_SAID_ELSEWHERE = ("type", "max_position_embeddings")
#: parameters that a kind's class computes, and nobody reads
_COMPUTED = {"mistral4": "partial_rotary_factor"}
_OTHER_THAN_NULL = ("tie_word_embeddings", "norm_topk_prob", "scale_decoder_outputs")
#: keys that a kind's class makes one of, and nobody reads
_UNREAD = {
    "bert": ("num_key_value_heads",),
    "camembert": ("num_key_value_heads",),
    **{
        kind: ("num_key_value_heads",)
        for kind in ("qwen2_moe", "gpt_bigcode", "gpt2", "gpt_neox", "falcon", "bloom", "chameleon")
    },
    **{
        kind: ("num_key_value_heads",)
        for kind in (
            "distilbert",
            "git",
            "ernie4_5_moe",
            "modernbert",
            "nemotron",
            "roberta",
            "xlm-roberta",
        )
    },
    **{
        kind: ("head_dim",)
        for kind in ("deepseek_v2", "deepseek_v3", "minicpm3", "mistral4", "glm5_next_text", "glm_moe_dsa", "youtu")
    },
    "dbrx": ("num_key_value_heads", "d_model"),
    "hrm_text": ("num_hidden_layers", "num_key_value_heads"),
    "hy_v4": ("head_dim", "num_key_value_heads"),
    "nemotron_h": (
        "num_experts_per_tok",
        "norm_topk_prob",
        "moe_intermediate_size",
    ),  # a model without experts is one of the older ones
    "mpt": ("num_key_value_heads", "layer_norm_epsilon", "d_model"),
}


def recorded() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """``(model_type, what is stated, what transformers makes of it)``."""
    plain: dict[str, dict[str, Any]] = {}
    for kind, given, changed in json.loads(_RECORDED.read_text()):
        plain.setdefault(kind, changed)
        yield kind, given, {**plain[kind], **changed}


CASES = list(recorded())


@cache
def classes() -> dict[str, Mapping[str, Any]]:
    return {kind: family.classes for family in FAMILIES.values() for kind in family.classes}


def rope_of(made: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """RoPE of full and of sliding layers, without what has another name."""
    rope = made.get("rope_parameters") or {}
    full, local = (rope["full_attention"], rope["sliding_attention"]) if "full_attention" in rope else (rope, {})
    return ({k: v for k, v in part.items() if k not in _SAID_ELSEWHERE} for part in (full, local))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in CASES}))
def test_every_class_is_read_as_transformers_reads_it(kind: str) -> None:
    differences = [
        f"{given}: {difference}"
        for other, given, made in CASES
        if other == kind
        for difference in differences_of(kind, normalise({**given, "model_type": kind}, classes()[kind]), made)
    ]
    assert not differences, "\n".join(differences)


def differences_of(kind: str, config: Config, made: dict[str, Any]) -> Iterator[str]:
    """Where ``config`` is read otherwise than transformers has ``made`` of it."""
    for key, value in made.items():
        null_is_said = value is None and key in _OTHER_THAN_NULL
        is_read = key != "rope_parameters" and key not in _UNREAD.get(kind, ()) and not null_is_said
        if is_read and config.values.get(key) != value:
            yield f"{key} is {config.values.get(key)}, not {value}"
    if "rope_theta" in str(made.get("rope_parameters")) and "main" not in made["rope_parameters"]:
        full, local = rope_of(made)
        stretched = "original_max_position_embeddings"  # which some classes have beside the parameters only
        ours = {k: v for k, v in config.rope.items() if k not in _SAID_ELSEWHERE and (k in full or k != stretched)}
        if ours != {k: v for k, v in full.items() if k != _COMPUTED.get(kind)}:
            yield f"RoPE is {ours}, not {full}"
        if {k: v for k, v in config.rope_local.items() if k != "type"} != local:
            yield f"RoPE of windows is {config.rope_local}, not {local}"


def test_all_kinds_of_all_families_are_recorded() -> None:
    unknown = {"vllama3", "llama_bidirec"}  # of code beside the weights
    kinds = {kind for family in FAMILIES.values() for kind in family.classes} - unknown
    assert kinds == {kind for kind, _, _ in CASES}


def test_a_kind_that_no_class_is_known_of_is_read_as_it_stands() -> None:
    config = normalise({"model_type": "aquila", "hidden_size": 8}, llama.FAMILY.classes)
    assert config.get("intermediate_size") is None
    assert normalise({"hidden_size": 8}, llama.FAMILY.classes).get("intermediate_size") == 11008
    assert normalise({"model_type": ["llama"]}, llama.FAMILY.classes).get("intermediate_size") == 11008


def test_a_family_that_is_read_raw_has_no_defaults() -> None:
    for family in (FAMILIES["MambaForCausalLM"], granite_hybrid.FAMILY):
        assert normalise({"model_type": "mamba", "rms_norm_eps": None}, family.classes).get("rms_norm_eps") is None


def test_kin_of_one_family_have_classes_of_their_own() -> None:
    sizes = {kind: normalise({"model_type": kind}, t5.FAMILY.classes) for kind in ("t5", "mt5", "umt5")}
    assert [c.get("d_ff") for c in sizes.values()] == [2048, 1024, 1024]
    assert [c.get("vocab_size") for c in sizes.values()] == [32128, 250112, 250112]
    deep = normalise({"model_type": "t5", "num_layers": 3}, t5.FAMILY.classes)
    assert deep.get("num_decoder_layers") == 3


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("gemma4_text", "max_position_embeddings", 131072),
        ("gemma4_unified_text", "max_position_embeddings", 262144),
        ("gemma4_text", "sliding_window", 512),
        ("gemma4_unified_text", "sliding_window", 1024),
        ("glm4_moe", "max_position_embeddings", 131072),
        ("glm4v_moe_text", "max_position_embeddings", 65536),
    ],
)
def test_contexts_and_windows_of_kin_are_their_own(kind: str, key: str, value: int) -> None:
    assert normalise({"model_type": kind}, classes()[kind]).get(key) == value


def test_the_context_before_it_was_stretched_is_that_of_the_stretching() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    stated = {"model_type": "phi3", "original_max_position_embeddings": 256, "rope_scaling": rope}
    config = normalise(stated, FAMILIES["Phi3ForCausalLM"].classes)
    assert original_context(config) == 128
    assert original_context(normalise({"model_type": "phi3"}, FAMILIES["Phi3ForCausalLM"].classes)) == 4096


def test_layers_with_an_indexer_follow_from_how_often_there_is_one() -> None:
    family, stated = FAMILIES["GlmMoeDsaForCausalLM"], {"model_type": "glm_moe_dsa", "num_hidden_layers": 6}
    often = {**stated, "index_topk_freq": 2, "index_skip_topk_offset": 1}
    assert normalise(stated, family.classes).get("indexer_types") == ["full"] * 6
    assert normalise(often, family.classes).get("indexer_types") == ["full", "shared"] * 3
    lettered = {**stated, "index_topk_pattern": "FSSFSS"}
    assert normalise(lettered, family.classes).get("indexer_types") == ["full", "shared", "shared"] * 2


def test_older_models_without_experts_have_no_defaults_of_mixtures() -> None:
    family = FAMILIES["NemotronHForCausalLM"]
    found = [
        normalise({"model_type": "nemotron_h", "hybrid_override_pattern": p}, family.classes) for p in ("M*-", "M*E")
    ]
    assert [c.get("n_routed_experts") for c in found] == [None, 8]


def test_a_cap_that_is_null_is_no_cap() -> None:
    stated = {"model_type": "gemma2", "attn_logit_softcapping": None}
    m = Metadata()
    soft_caps(m, "x", normalise(stated, gemma2.FAMILY.classes))
    assert m.get("x.attn_logit_softcapping") == 1e9
    assert m.get("x.final_logit_softcapping") == 30.0


@pytest.mark.parametrize("kind", ["yarn", "llama3", "longrope"])
def test_the_original_context_is_the_whole_where_it_is_not_said(kind: str) -> None:
    stated = {"model_type": "llama", "max_position_embeddings": 512, "rope_scaling": {"rope_type": kind, "factor": 2.0}}
    assert normalise(stated, llama.FAMILY.classes).rope["original_max_position_embeddings"] == 512


def test_scaling_that_is_said_twice_is_the_old_one() -> None:
    stated = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    both = {**stated, "rope_scaling": {"type": "linear", "factor": 2.0}}
    m = Metadata()
    rope_scaling(m, "x", normalise(both, llama.FAMILY.classes))
    assert m.get("x.rope.scaling.factor") == 2.0


@pytest.mark.parametrize("rope", [[], "x", 7, {"full_attention": 3, "sliding_attention": {}}, {"rope_type": None}])
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_rope_parameters_of_no_use_are_no_crash(spelling: str, rope: Any) -> None:
    for architecture in FAMILIES:
        stated = {spelling: rope, "max_position_embeddings": 64}
        try:
            config: Config = normalise(stated, FAMILIES[architecture].classes)
        except BadInput:
            continue
        rope_freq_base(Metadata(), "x", config)
        rope_scaling(Metadata(), "x", config)
