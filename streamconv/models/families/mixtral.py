"""Mixtral: the Llama layout with several feed-forward networks, of which a router chooses for every token."""

from __future__ import annotations

from dataclasses import replace

from ..family import class_defaults
from ..rules import experts, packed_experts
from . import llama, mistral

FAMILY = replace(
    llama.FAMILY,
    architectures=("MixtralForCausalLM",),
    classes={"mixtral": class_defaults(
        32000, 131072, 4096, 14336, 32, 32, 8, rms_norm_eps=1e-5, num_local_experts=8, num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, bos_token_id=1, eos_token_id=2,
    )},
    assumes=mistral.FAMILY.assumes,
    rules=(
        *llama.FAMILY.rules,
        # the reference writes them in the order of their names
        experts("model.layers.{bid}.block_sparse_moe.experts", gate="w1", down="w2", up="w3"),
        *packed_experts("model.layers.{bid}.mlp.experts"),
    ),
)  # fmt: skip
