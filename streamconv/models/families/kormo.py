"""KORMo: Qwen 2 without biases, whose norms have names of their own."""

from __future__ import annotations

from dataclasses import replace

from . import qwen2

FAMILY = replace(
    qwen2.FAMILY,
    architectures=("KORMoForCausalLM",),
    classes={},
    names={
        "model.layers.{bid}.pre_attention_layernorm": "blk.{bid}.attn_norm",
        "model.layers.{bid}.pre_mlp_layernorm": "blk.{bid}.ffn_norm",
    },
)
