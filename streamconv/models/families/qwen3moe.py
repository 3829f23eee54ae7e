"""Qwen 3 mixtures: Qwen 3 with stacked experts of their own width."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import EVERY_LAYER_SPARSE, GATED_SILU, scaled_to_one
from ..family import class_defaults
from ..keys import BASE, expert_feed_forward_length
from ..rules import experts, packed_experts
from . import qwen3

FAMILY = replace(
    qwen3.FAMILY,
    arch="qwen3moe",
    architectures=("Qwen3MoeForCausalLM",),
    classes={"qwen3_moe": class_defaults(
        151936, 32768, 2048, 6144, 24, 32, 4, num_local_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
        norm_topk_prob=False,
    )},
    assumes={**GATED_SILU, **EVERY_LAYER_SPARSE, **scaled_to_one(True)},
    keys=(*BASE, expert_feed_forward_length),
    rules=(
        experts("model.layers.{bid}.mlp.experts", down="down_proj", gate="gate_proj", up="up_proj"),
        *packed_experts("model.layers.{bid}.mlp.experts"),
    ),
)  # fmt: skip
