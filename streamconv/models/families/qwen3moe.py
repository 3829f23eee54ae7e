"""Qwen 3 mixtures: Qwen 3 with stacked experts of their own width."""

from __future__ import annotations

from dataclasses import replace

from ..keys import BASE, expert_feed_forward_length
from ..rules import experts, packed_experts
from . import qwen3

FAMILY = replace(
    qwen3.FAMILY,
    arch="qwen3moe",
    architectures=("Qwen3MoeForCausalLM",),
    defaults={
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "num_local_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    keys=(*BASE, expert_feed_forward_length),
    rules=(
        experts("model.layers.{bid}.mlp.experts", down="down_proj", gate="gate_proj", up="up_proj"),
        *packed_experts("model.layers.{bid}.mlp.experts"),
    ),
)
