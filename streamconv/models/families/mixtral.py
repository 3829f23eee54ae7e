"""Mixtral: the Llama layout with several feed-forward networks, of which a router chooses for every token."""

from __future__ import annotations

from dataclasses import replace

from ..rules import experts, packed_experts
from . import llama

FAMILY = replace(
    llama.FAMILY,
    architectures=("MixtralForCausalLM",),
    defaults={
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    derive_head_dim=False,
    rules=(
        *llama.FAMILY.rules,
        # the reference writes them in the order of their names
        experts("model.layers.{bid}.block_sparse_moe.experts", gate="w1", down="w2", up="w3"),
        *packed_experts("model.layers.{bid}.mlp.experts"),
    ),
)
