"""Seed-OSS: the layout of Qwen 2 with heads of a stated width."""

from __future__ import annotations

from ..config import UnlessNull
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE

FAMILY = Family(
    arch="seed_oss",
    architectures=("SeedOssForCausalLM",),
    tokenizer=BPE,
    classes={"seed_oss": class_defaults(155136, 524288, 4096, 27648, 64, 80, 8, head_dim=UnlessNull(128))},
    keys=BASE,
)
