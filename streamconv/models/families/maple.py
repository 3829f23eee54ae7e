"""Maple: experts in every layer, clamped gates, windows and rotation in some layers."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..keys import vocab_size
from . import mellum


def clamped(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions, and the bound of gates."""
    factor = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int(c.head_dim * (1 if factor is None else factor)))
    m.array(f"{a}.swiglu_clamp_exp", "FLOAT32", [7.0] * c.n_layers)


FAMILY = replace(
    mellum.FAMILY,
    arch="maple",
    architectures=("MapleForCausalLM",),
    assumes={
        **{key: value for key, value in mellum.FAMILY.assumes.items() if key != "partial_rotary_factor"},
        "norm_topk_prob": Assumed((True,)), "nope_on_global_attention": Assumed((True,)), "num_shared_experts": Assumed((0,)),
    },
    keys=(*mellum.FAMILY.keys, vocab_size, clamped),
)  # fmt: skip
