"""Gemma 1: norms stored as offsets from one, the embedding always used as output."""

from __future__ import annotations

from ...kit import PLUS_ONE, Mapped
from ...rows import Rows
from ..config import Config
from ..family import GELU_TANH, Family
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
)
from ..tokenizers import GEMMA1

#: no runtime reads an output head
UNTIED = {"lm_head.weight": "the runtime uses the embedding as output"}


def plus_one(rows: Rows, _config: Config) -> Rows:
    """Norm weights as the runtime multiplies by them."""
    return Mapped(rows, PLUS_ONE)


GEMMA_KEYS: tuple[Key, ...] = (
    context_length, embedding_length, block_count, feed_forward_length, head_count, head_count_kv, rms_epsilon,
    key_value_length, file_type,
)  # fmt: skip

FAMILY = Family(
    arch="gemma",
    architectures=("GemmaForCausalLM",),
    defaults={
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    },
    assumes=GELU_TANH,
    keys=GEMMA_KEYS,
    transforms={"*norm": plus_one},
    drops=UNTIED,
    tokenizer=GEMMA1,
)
