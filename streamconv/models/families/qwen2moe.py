"""Qwen 2 mixtures: experts that a router chooses, and one that every token uses."""

from __future__ import annotations

from dataclasses import replace

from . import qwen3moe

FAMILY = replace(
    qwen3moe.FAMILY,
    arch="qwen2moe",
    architectures=("Qwen2MoeForCausalLM",),
    defaults={
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "rms_norm_eps": 1e-6,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
)
