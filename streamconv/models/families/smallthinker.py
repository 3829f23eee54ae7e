"""SmallThinker: a router before attention, experts in every layer, windows and rotation in most."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..rules import experts
from ..tokenizers import QWEN
from ._stated import numbers


def router(m: Metadata, a: str, c: Config) -> None:
    """What makes weights of scores; the window, if any layer has one."""
    m.u32(f"{a}.expert_gating_func", 1 if c.get("moe_primary_router_apply_softmax") else 2)
    if any(c.get("sliding_window_layout") or ()):
        m.u32(f"{a}.attention.sliding_window", c.integer("sliding_window_size", "sliding_window"))


EXPERTS = experts("model.layers.{bid}.block_sparse_moe.experts", down="down", gate="gate", up="up")
FAMILY = Family(
    arch="smallthinker",
    architectures=("SmallThinkerForCausalLM",),
    tokenizer=QWEN,
    assumes={
        "moe_enable_early_router": Assumed((True,)), "moe_enable_secondary_experts": Assumed((False,)),
        "norm_topk_prob": Assumed((False, True)), "rope_layout": Assumed(lambda stated, c: (stated, ) if stated in (
            [int(n % 4 > 0) for n in range(c.n_layers)], [1] * c.n_layers) else ()),
    },
    idle=("moe_*", "sliding_window_size"),
    keys=(*BASE, router, numbers({
        "expert_count": "moe_num_primary_experts", "expert_used_count": "moe_num_active_primary_experts",
        "expert_feed_forward_length": "moe_ffn_hidden_size", "feed_forward_length": "moe_ffn_hidden_size",
    })),
    rules=(EXPERTS._replace(make=lambda rows, _: rows),),
)  # fmt: skip
