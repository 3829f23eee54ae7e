"""Mistral 7B and its kin: the Llama layout with other defaults; the sliding window is not written, as runtimes expect."""

from __future__ import annotations

from dataclasses import replace

from . import llama

FAMILY = replace(
    llama.FAMILY,
    architectures=("MistralForCausalLM",),
    defaults={
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
)
