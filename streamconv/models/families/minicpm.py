"""MiniCPM: the Llama layout with scaled embeddings, residual streams and logits."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..keys import BASE
from ..tokenizers import SPM
from . import llama
from ._longrope import factor_rule, has_factors

_PLAIN = ("default", "linear", "yarn")


def scales(m: Metadata, a: str, c: Config) -> None:
    """What embeddings, residual streams and logits are scaled by."""
    m.f32(f"{a}.embedding_scale", c.real("scale_emb"))
    m.f32(f"{a}.residual_scale", c.real("scale_depth") / max(c.n_layers, 1) ** 0.5)
    m.f32(f"{a}.logit_scale", c.hidden / c.real("dim_model_base"))


#: with factors the scaling is known by them
LONG = {**GATED_SILU, "rope_type": Assumed(lambda stated, c: (stated if has_factors(c) else "default", *_PLAIN))}
FAMILY = replace(
    llama.FAMILY,
    arch="minicpm",
    architectures=("MiniCPMForCausalLM",),
    tokenizer=SPM,
    classes={},
    keys=(*BASE, scales),
    assumes=LONG,
    rules=(factor_rule(lambda c: c.head_dim),),
)
