"""EXAONE 3: the Llama layout with names of its own, and heads as they are."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..tokenizers import BPE
from .llama import ROPE_FREQS


def norms(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions, and the epsilon by the name that loaders ask for; config.json calls it that of layer norms."""
    share = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int((1.0 if share is None else share) * (c.hidden // max(c.n_heads, 1))))
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("layer_norm_epsilon", "rms_norm_eps"))


FAMILY = Family(
    arch="exaone",
    architectures=("ExaoneForCausalLM",),
    tokenizer=BPE,
    assumes={"activation_function": GATED_SILU["hidden_act"], "rope_type": GATED_SILU["rope_type"]},
    keys=(*BASE, norms),
    rules=(ROPE_FREQS,),
)
