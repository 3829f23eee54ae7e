"""Qwen 2 and 2.5: biases on query, key and value, no head_dim key, rotary halves as the runtime has them."""

from __future__ import annotations

from ..family import Family
from ..tokenizers import QWEN

QWEN_DEFAULTS = {
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}

FAMILY = Family(
    arch="qwen2",
    architectures=("Qwen2ForCausalLM", "Qwen2Model"),
    defaults=QWEN_DEFAULTS,
    tokenizer=QWEN,
)
