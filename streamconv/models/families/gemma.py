"""Gemma 1: norms stored as offsets from one, the embedding always used as output."""

from __future__ import annotations

from ...kit import PLUS_ONE, Mapped
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GELU_TANH
from ..config import Config
from ..family import Family, class_defaults
from ..keys import (
    Key,
    block_count,
    context_length,
    embedding_length,
    feed_forward_length,
    file_type,
    head_count,
    head_count_kv,
    key_value_length,
    rms_epsilon,
    rope_freq_base,
    rope_scaling,
)
from ..tokenizers import GEMMA1

GEMMA_CLASS = {"tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
#: no runtime reads an output head
UNTIED = {"lm_head.weight": "the runtime uses the embedding as output"}


def plus_one(rows: Rows, _config: Config) -> Rows:
    """Norm weights as the runtime multiplies by them."""
    return Mapped(rows, PLUS_ONE)


def unusual_rope(m: Metadata, a: str, c: Config) -> None:
    """Base and scaling, where they are not what loaders take anyway."""
    rope_scaling(m, a, c)
    if c.rope.get("rope_theta") != 10000:
        rope_freq_base(m, a, c)


GEMMA_KEYS: tuple[Key, ...] = (
    context_length, embedding_length, block_count, feed_forward_length, head_count, head_count_kv, rms_epsilon,
    key_value_length, unusual_rope, file_type,
)  # fmt: skip

FAMILY = Family(
    arch="gemma",
    architectures=("GemmaForCausalLM",),
    classes={"gemma": class_defaults(
        256000, 8192, 3072, 24576, 28, 16, 16, head_dim=256, hidden_act="gelu_pytorch_tanh", **GEMMA_CLASS,
    )},
    assumes=GELU_TANH,
    keys=GEMMA_KEYS,
    transforms={"*norm": plus_one},
    drops=UNTIED,
    tokenizer=GEMMA1,
)  # fmt: skip
