"""Ling 2 and Sarvam: norms on heads, half of which are rotated, groups of experts, a block that predicts a further token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...kit import Function, Mapped
from ...metadata import Metadata
from ...rows import Floats, Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..tokenizers import BPE
from ._nextn import COUNTED, NEXTN_NAMES, stated
from ._stated import MIXTURE, WEIGHTS
from .deepseek2 import EXPERTS_OF_MLP


def _centre(x: Floats) -> Floats:
    x -= x.mean(axis=-1, keepdims=True, dtype=np.float32)
    return x


#: of a vector, which is read whole
CENTRED = Function("less its mean", 1, _centre)


def centred(rows: Rows, _config: Config) -> Rows:
    """A bias of selection around nought."""
    return Mapped(rows, CENTRED)


def is_sarvam(c: Config) -> bool:
    """Whether it is Sarvam's, whose heads are rotated wholly."""
    return "Sarvam" in str(c.raw.get("architectures"))


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions, and the width of what every token uses."""
    factor = c.rope.get("partial_rotary_factor")
    m.u32(
        f"{a}.rope.dimension_count",
        c.head_dim if is_sarvam(c) else int(c.head_dim * (0.5 if factor is None else factor)),
    )
    shared = c.get("moe_shared_expert_intermediate_size")
    each = c.integer("moe_intermediate_size") * c.integer("num_shared_experts") if shared is None else 0
    width = each or c.integer("moe_shared_expert_intermediate_size", "moe_intermediate_size")
    m.u32(f"{a}.expert_shared_feed_forward_length", width)


FAMILY = Family(
    arch="bailingmoe2",
    architectures=("BailingMoeV2ForCausalLM", "SarvamMoEForCausalLM", "modeling_sarvam_moe.SarvamMoEForCausalLM"),
    tokenizer=BPE,
    variant=lambda family, c: replace(family, transforms={"exp_probs_b": centred}) if is_sarvam(c) else family,
    assumes={
        **COUNTED,
        **{key: value for key, value in GATED_SILU.items() if key != "partial_rotary_factor"}, "use_qk_norm": Assumed((True,)),
        "use_bias": Assumed((False,)), "use_rmsnorm": Assumed((True,)), "use_qkv_bias": Assumed((False,)),
    },
    idle=("moe_router_enable_expert_bias", "moe_router_*", "router_dtype", "head_dim", "rotary_dim", "mtp_*", "num_nextn_*"),
    keys=(*BASE, vocab_size, MIXTURE, *WEIGHTS, sizes, stated),
    names={**NEXTN_NAMES, "model.layers.{bid}.mlp.gate.expert_bias": "blk.{bid}.exp_probs_b.bias"},
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
