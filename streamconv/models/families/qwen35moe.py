"""Qwen 3.5 mixtures: Qwen 3.5 with experts, and one that every token uses."""

from __future__ import annotations

from dataclasses import replace

from ..family import class_defaults
from . import qwen2moe, qwen3next, qwen35

FAMILY = replace(
    qwen35.FAMILY,
    arch="qwen35moe",
    architectures=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    classes={"qwen3_5_moe_text": class_defaults(
        248320, 32768, 2048, None, 40, 16, 2, head_dim=256, num_experts=256, num_experts_per_tok=8,
        moe_intermediate_size=512, shared_expert_intermediate_size=512, **qwen35.DELTA,
    )},
    keys=(*qwen2moe.FAMILY.keys, qwen35.sections, qwen3next.keys),
    rules=(*qwen2moe.FAMILY.rules, *qwen35.FAMILY.rules),
)  # fmt: skip
