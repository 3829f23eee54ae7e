"""A GGUF file of Gemma 2 or 3 as the checkpoint that it was converted from: names, norms and config.json; its tokenizer is another.

Source: ``models/families`` of Gemma 2 and 3, backwards.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...kit import MINUS_ONE, Mapped
from ...metadata import Metadata
from ...rows import Rows
from ...sources.checkpoint import Checkpoint

#: architecture -> that of Hugging Face, ``model_type``, base of RoPE where there is no key, layers of the 27B model
_ARCHITECTURES = {
    "gemma2": ("Gemma2ForCausalLM", "gemma2", 1e4, 46),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text", 1e6, 62),
}
_GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_OF_BLOCKS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
#: key of config.json -> key of GGUF behind the architecture
_KEYS = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
}  # fmt: skip
_OPTIONAL = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")


def as_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """The GGUF file ``checkpoint`` in the names of Hugging Face.

    Raises
    ------
    BadInput : it is of another architecture, lacks a key, or has tensors that such a model has not
    """
    metadata = checkpoint.metadata
    assert metadata is not None
    arch = str(metadata.get("general.architecture"))
    if arch not in _ARCHITECTURES:
        raise BadInput(
            f"{checkpoint.path}: gemma.cpp does not run {arch!r}, or weight files of it are not made from GGUF",
            "From GGUF they are made of gemma2 and gemma3; give the checkpoint that it was converted from.",
        )
    tensors = dict(_renamed(checkpoint, name, rows) for name, rows in checkpoint.tensors.items())
    template = metadata.get("tokenizer.chat_template")
    side: dict[str, Any] = {"chat_template.jinja": str(template).encode()} if template else {}
    config = _config(checkpoint, metadata, arch)
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    return replace(checkpoint, tensors=tensors, config=config, metadata=None, side=side)


def _renamed(checkpoint: Checkpoint, name: str, rows: Rows) -> tuple[str, Rows]:
    stem = name.removesuffix(".weight")
    match = _BLOCK.fullmatch(stem)
    inner = _OF_BLOCKS.get(match[2]) if match else None
    found = f"model.layers.{match[1]}.{inner}" if match and inner else _GLOBAL.get(stem)
    if found is None or stem == name:
        raise BadInput(f"{checkpoint.path}: tensor {name!r} does not belong to Gemma as gemma.cpp knows it")
    return f"{found}.weight", Mapped(rows, MINUS_ONE) if stem.endswith("norm") else rows


def _config(checkpoint: Checkpoint, metadata: Metadata, arch: str) -> dict[str, Any]:
    name, model_type, base, n_of_27b = _ARCHITECTURES[arch]
    config: dict[str, Any] = {"architectures": [name], "model_type": model_type}
    for key, stored in _KEYS.items():
        value = metadata.get(f"{arch}.{stored}")
        if value is None and key not in _OPTIONAL:
            raise BadInput(f"{checkpoint.path}: key {f'{arch}.{stored}'!r} is missing")
        config[key] = round(value, 9) if key == "rms_norm_eps" and isinstance(value, float) else value
    heads = max(int(config["num_attention_heads"]), 1)
    is_27b = config["num_hidden_layers"] == n_of_27b
    config["query_pre_attn_scalar"] = config["hidden_size"] // heads if is_27b else config["head_dim"]
    kind = metadata.get(f"{arch}.rope.scaling.type", "none")
    scaling = {
        "rope_type": "default" if kind == "none" else kind,
        "rope_theta": metadata.get(f"{arch}.rope.freq_base", base),
    }
    if kind != "none":
        scaling["factor"] = metadata.get(f"{arch}.rope.scaling.factor")
    if arch == "gemma3":
        config["rope_parameters"] = {
            "full_attention": scaling, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }  # fmt: skip
    else:
        config["rope_parameters"] = scaling
    ends = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    config["eos_token_id"] = list(dict.fromkeys(token for token in ends if token is not None)) or None
    return config
