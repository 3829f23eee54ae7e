"""Qwen 3 (dense): no biases, a norm on each query and key head, head_dim stated apart from the hidden size."""

from __future__ import annotations

from ..family import Family
from ..tokenizers import QWEN
from .qwen2 import QWEN_DEFAULTS

FAMILY = Family(
    arch="qwen3",
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    defaults={**QWEN_DEFAULTS, "head_dim": 128},
    tokenizer=QWEN,
)
