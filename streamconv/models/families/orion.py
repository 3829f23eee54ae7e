"""Orion: the Llama layout with layer norms, whose epsilon config.json calls that of RMS norms."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family
from ..keys import block_count, counted_kv_heads, embedding_length, feed_forward_length, file_type, head_count
from ..tokenizers import SPM
from .gemma import unusual_rope


def norms(m: Metadata, a: str, c: Config) -> None:
    """What loaders ask for, the context, and the epsilon of norms."""
    m.string(f"{a}.tensor_data_layout", "Meta AI original pth")
    m.u32(f"{a}.context_length", c.integer("max_sequence_length", "max_position_embeddings", "model_max_length"))
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("rms_norm_eps"))


FAMILY = Family(
    arch="orion",
    architectures=("OrionForCausalLM",),
    tokenizer=SPM,
    assumes=GATED_SILU,
    keys=(
        file_type, norms, embedding_length, block_count, feed_forward_length, head_count, counted_kv_heads, unusual_rope,
    ),
)  # fmt: skip
