"""Phi 3, 3.5 and 4: fused projections, RoPE with a factor for each frequency; a window of 0 tells Phi 4 apart."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import GATED_SILU, WINDOW_IGNORED, Assumed
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
    rope_freq_base,
)
from ..names import why_not_of_text
from ..tokenizers import BPE, TokenizerRule
from ..tokenizers.phi3 import read_phi3
from ._longrope import attn_factor, factor_rule, original_context
from .phi2 import n_rotated, rope_dimension_count


def context_before(m: Metadata, a: str, c: Config) -> None:
    """The context before it was stretched."""
    m.u32(f"{a}.rope.scaling.original_context_length", original_context(c))


def window(m: Metadata, a: str, c: Config) -> None:
    """Width of the window, 0 for none."""
    m.u32(f"{a}.attention.sliding_window", c.integer("sliding_window") if c.get("sliding_window") else 0)


def by_class(family: Family, c: Config) -> Family:
    """Phi 4 says by the class of its tokenizer that this is byte-level."""
    said = (c.side("tokenizer_config.json") or {}).get("tokenizer_class")
    return replace(family, tokenizer=BPE) if said == "GPT2Tokenizer" else family


def not_of_text(name: str) -> str | None:
    """Why a tensor is not of the text model."""
    return "not part of the text model" if ".mm_projector." in name else why_not_of_text(name)


_DEFAULTS = class_defaults(
    32064, 4096, 3072, 8192, 32, 32, None, rms_norm_eps=1e-5, original_max_position_embeddings=4096, partial_rotary_factor=1.0,
    bos_token_id=1,
    eos_token_id=32000, pad_token_id=32000,
)  # fmt: skip
ASSUMED = {
    "hidden_act": GATED_SILU["hidden_act"],
    "rope_type": Assumed(("default", "su", "longrope", "yarn")),
    "sliding_window": WINDOW_IGNORED,
}
FAMILY = Family(
    arch="phi3",
    architectures=("Phi3ForCausalLM", "Phi4ForCausalLMV"),
    tokenizer=TokenizerRule(("phi3", "bpe"), own={"phi3": ("tokenizer.model", read_phi3)}),
    classes={"phi3": _DEFAULTS},
    assumes=ASSUMED,
    idle=("mm_*", "*_num_patches", "freeze_*", "tune_*", "use_mm_*", "image_aspect_ratio"),
    keys=(
        attn_factor, context_length, context_before, embedding_length, feed_forward_length, block_count, head_count, head_count_kv,
        rms_epsilon, rope_dimension_count, rope_freq_base, file_type, window,
    ),
    variant=by_class,
    why_not=not_of_text,
    rules=(factor_rule(n_rotated),),
)  # fmt: skip
