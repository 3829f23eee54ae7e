"""What transformers makes of small configurations: run with transformers 5 to write ``tests/data/configurations.json``.

python tests/models/make_configurations.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING  # type: ignore[import-not-found]

OUT = Path(__file__).resolve().parents[1] / "data" / "configurations.json"
TYPES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "gemma", "gemma2", "gemma3_text",
    "gpt_oss", "bert", "camembert", "t5", "mt5", "umt5",
)  # fmt: skip
#: types of which a few configurations are recorded, as they are read like the others
MORE_TYPES = (
    "ministral3", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "qwen3_vl_text", "qwen3_vl_moe_text",
    "qwen3_omni_moe_text", "qwen3_5_text", "qwen3_5_moe_text", "gemma3n_text", "gemma4_text", "gemma4_unified_text", "phi", "phi3",
    "phimoe", "granite", "granitemoe", "granitemoeshared", "olmo", "olmo2", "olmo3", "olmoe", "cohere", "cohere2", "smollm3",
    "stablelm", "gpt_bigcode", "starcoder2", "gpt2", "gpt_neox", "falcon", "mpt", "bloom", "internlm3", "seed_oss", "exaone4",
    "arcee", "apertus", "hunyuan_v1_dense", "qwen2_vl", "qwen2_5_vl", "deepseek_v2", "deepseek_v3", "distilbert",
    "deepseek_v4", "dots1", "ernie4_5", "bitnet", "chameleon",
    "ernie4_5_moe", "eurobert", "git", "glm4", "glm4_moe", "glm4v_moe_text", "glm4v_text", "glm_ocr_text", "jamba", "kimi_linear",
    "glm5_next_text", "laguna", "lfm2", "lfm2_moe", "llama4_text", "mellum", "minicpm3", "mistral4", "modernbert", "nemotron",
    "roberta", "xlm-roberta", "afmoe", "dbrx", "exaone_moe", "exaone4_5_text", "glm_moe_dsa", "glm4_moe_lite", "granite_swa",
    "granitemoe_swa", "hrm_text", "hunyuan_vl", "hunyuan_vl_text", "hy_v3", "hy_v4", "iquestcoder", "jais2", "minimax_m2",
    "muse_glimmer_text", "muse_glimmer_assistant", "nemotron_h", "paddleocr_vl", "paddleocr_vl_text", "solar_open", "youtu",
)  # fmt: skip
#: types that compute a head's width of null, and such that pass over ``rope_theta`` as they have parameters of their own
_COMPUTED = (
    "afmoe",
    "cohere2",
    "internlm3",
    "seed_oss",
    "ernie4_5",
    "glm_ocr_text",
    "kimi_linear",
    "iquestcoder",
    "paddleocr_vl",
    "paddleocr_vl_text",
)
_THEIR_OWN = (
    "ministral3", "mistral4", "gemma4_text", "gemma4_unified_text", "gpt_neox", "apertus", "laguna", "mellum", "modernbert",
)  # fmt: skip
#: types that are sections of others, or read like another
_SECTIONS = {
    "qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text", "hunyuan_vl": "hunyuan_vl_text",
    "paddleocr_vl": "paddleocr_vl_text", "exaone4_5_text": "exaone4",
}  # fmt: skip
_SIZES = {"hidden_size": 96, "num_attention_heads": 3, "num_hidden_layers": 2, "max_position_embeddings": 777}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
#: of classes that compare them
_MORE_SIZES = {"glm5_next_text": {"num_key_value_heads": 3}}
STATED: tuple[dict[str, Any], ...] = (
    {}, {"head_dim": 48}, {"head_dim": None}, {"num_key_value_heads": 1}, {"num_key_value_heads": None},
    {"num_experts": 5}, {"num_local_experts": 5}, {"sliding_window": None}, {"sliding_window": 64},
    {"attn_logit_softcapping": None, "final_logit_softcapping": None},
)  # fmt: skip
ROPE: tuple[dict[str, Any], ...] = (
    {"rope_theta": 5000.0}, {"rope_scaling": None}, {"rope_parameters": None}, {"rope_theta": 5000.0, "rope_scaling": None},
    {"rope_scaling": {}}, {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, {"rope_scaling": _YARN}, {"rope_scaling": _LLAMA3},
    {"rope_parameters": {**_LLAMA3, "rope_theta": 7.0, "original_max_position_embeddings": 64}},
    {"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}, "rope_theta": 9.0}, {"rope_parameters": {"rope_theta": 7.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 3.0}}, {"partial_rotary_factor": 0.5},
    {"rope_parameters": {"rope_theta": 7.0}, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"partial_rotary_factor": 0.5, "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
)  # fmt: skip
#: Gemma 3 has two kinds of layers, and says nothing of flat parameters
TWO_KINDS: tuple[dict[str, Any], ...] = (
    {}, {"rope_theta": 5000.0}, {"rope_scaling": None}, {"rope_theta": 5000.0, "rope_local_base_freq": 11.0},
    {"rope_local_base_freq": 11.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    {"rope_parameters": {"full_attention": {"rope_theta": 7.0, "rope_type": "linear", "factor": 8.0},
                         "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"}}},
    {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
)  # fmt: skip
KEYS = (
    "vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "num_experts_per_tok",
    "moe_intermediate_size", "shared_expert_intermediate_size", "attn_logit_softcapping", "final_logit_softcapping",
    "tie_word_embeddings", "norm_topk_prob", "query_pre_attn_scalar", "type_vocab_size", "d_model", "d_ff", "num_layers",
    "num_decoder_layers", "num_heads", "relative_attention_num_buckets", "linear_key_head_dim", "scale_decoder_outputs",
    "rope_parameters",
)  # fmt: skip


def cases(kind: str) -> tuple[dict[str, Any], ...]:
    """What is stated beside the sizes."""
    if "t5" in kind or kind in ("bert", "camembert"):
        return ({},)
    if kind in MORE_TYPES:
        stated = [each for each in STATED[:5] if each != {"head_dim": None} or kind not in _COMPUTED]
        return *stated, *({"rope_theta": 5000.0} for _ in "1" if kind not in _THEIR_OWN)
    return (*STATED, *(TWO_KINDS if kind == "gemma3_text" else ROPE))


def class_of(kind: str) -> Any:
    """The class of a type."""
    return CONFIG_MAPPING[_SECTIONS.get(kind, kind)]


def main() -> None:
    """Write, for every kind, what is made of the sizes alone, then what other keys change of it."""
    found = []
    for kind in (*TYPES, *MORE_TYPES):
        plain: dict[str, Any] = {}
        for stated in cases(kind):
            given = {**({} if "t5" in kind else _SIZES), **_MORE_SIZES.get(kind, {}), **stated}
            try:
                made = class_of(kind).from_dict(json.loads(json.dumps(given))).to_dict()
            except Exception:  # what it refuses, the reference reads as it stands
                continue
            changed = {key: made[key] for key in KEYS if key in made and (not plain or made[key] != plain.get(key, ""))}
            plain = plain or changed
            found.append([kind, given, changed])
    OUT.write_text("[\n" + ",\n".join(json.dumps(case) for case in found) + "\n]\n")


if __name__ == "__main__":
    main()
