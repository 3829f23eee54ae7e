"""Qwen 2 mixtures: experts that a router chooses, and one that every token uses."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import scaled_to_one
from ..family import class_defaults
from . import qwen3moe

FAMILY = replace(
    qwen3moe.FAMILY,
    arch="qwen2moe",
    architectures=("Qwen2MoeForCausalLM",),
    classes={"qwen2_moe": class_defaults(
        151936, 32768, 2048, 5632, 24, 16, 16, num_experts=60, num_experts_per_tok=4, moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632, norm_topk_prob=False,
    )},
    assumes={**qwen3moe.FAMILY.assumes, **scaled_to_one(False)},
)  # fmt: skip
