"""Qwen 2 and 2.5: biases on query, key and value, no head_dim key, rotary halves as the runtime has them."""

from __future__ import annotations

from ..family import Family, class_defaults
from ..keys import BASE, pooling_type
from ..tokenizers import QWEN

FAMILY = Family(
    arch="qwen2",
    architectures=("Qwen2ForCausalLM", "Qwen2Model", "DotsOCRForCausalLM"),
    classes={"qwen2": class_defaults(151936, 32768, 4096, 22016, 32, 32, 32)},
    idle=("sliding_window",),
    keys=(*BASE, pooling_type),
    tokenizer=QWEN,
)
