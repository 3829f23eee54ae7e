"""MiniCPM 3: latent attention that runtimes take apart themselves; its scales are built into them."""

from __future__ import annotations

from ...metadata import Metadata
from ..config import Config
from ..family import Family, class_defaults
from ..keys import (
    block_count,
    context_length,
    embedding_length,
    feed_forward_length,
    file_type,
    head_count,
    head_count_kv,
    rms_epsilon,
    vocab_size,
)
from ..tokenizers import SPM
from ._longrope import factor_rule
from ._stated import numbers
from .minicpm import LONG


def widths(m: Metadata, a: str, c: Config) -> None:
    """Width of a head, and of what of it is rotated."""
    rotated = c.integer("qk_rope_head_dim")
    m.u32(f"{a}.attention.key_length", c.integer("qk_nope_head_dim") + rotated)
    m.u32(f"{a}.rope.dimension_count", rotated)


FAMILY = Family(
    arch="minicpm3",
    architectures=("MiniCPM3ForCausalLM",),
    tokenizer=SPM,
    classes={"minicpm3": class_defaults(
        73448, 32768, 2560, 6400, 62, 40, 40, rms_norm_eps=1e-5, kv_lora_rank=256, q_lora_rank=768, qk_nope_head_dim=64,
        qk_rope_head_dim=32, v_head_dim=64, tie_word_embeddings=True,
    )},
    assumes=LONG,
    idle=("scale_*", "dim_model_base", "v_head_dim", "qk_head_dim", "head_dim", "rope_parameters.*"),
    rules=(factor_rule(lambda c: c.integer("qk_rope_head_dim")),),
    keys=(
        block_count, context_length, embedding_length, feed_forward_length, head_count, head_count_kv, rms_epsilon, vocab_size,
        widths, numbers({"attention.q_lora_rank": "q_lora_rank", "attention.kv_lora_rank": "kv_lora_rank"}), file_type,
    ),
)  # fmt: skip
