"""Qwen 3 (dense): no biases, a norm on each query and key head, head_dim stated apart from the hidden size."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, pooling_type
from ..tokenizers import QWEN
from ._rerank import reranking

_BOS = "tokenizer.ggml.bos_token_id"


def _begin(m: Metadata, a: str, c: Config) -> None:
    """What Intern S1 begins with."""
    if _BOS not in m:
        m.u32(_BOS, 151643)


def variants(family: Family, c: Config) -> Family:
    """Rerankers, and Intern S1."""
    family = reranking(family, c)
    return replace(family, token_keys=(_begin,)) if "InternS1" in str(c.raw.get("architectures")) else family


FAMILY = Family(
    arch="qwen3",
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    classes={"qwen3": class_defaults(151936, 32768, 4096, 22016, 32, 32, 32, head_dim=128)},
    variant=variants,
    idle=("sliding_window",),
    keys=(*BASE, pooling_type),
    tokenizer=QWEN,
)
