"""Qwen 3 (dense): no biases, a norm on each query and key head, head_dim stated apart from the hidden size."""

from __future__ import annotations

from ..family import Family, class_defaults
from ..keys import BASE, pooling_type
from ..tokenizers import QWEN

FAMILY = Family(
    arch="qwen3",
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    classes={"qwen3": class_defaults(151936, 32768, 4096, 22016, 32, 32, 32, head_dim=128)},
    idle=("sliding_window",),
    keys=(*BASE, pooling_type),
    tokenizer=QWEN,
)
