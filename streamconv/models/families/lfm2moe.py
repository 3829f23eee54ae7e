"""LFM 2 mixtures: short convolutions, attention, and experts behind some dense layers."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import scaled_to_one
from ..rules import experts
from . import lfm2
from ._stated import fixed, numbers

FAMILY = replace(
    lfm2.FAMILY,
    arch="lfm2moe",
    architectures=("Lfm2MoeForCausalLM",),
    classes={"lfm2_moe": lfm2.defaults(
        2048, 7168, moe_intermediate_size=1792, num_dense_layers=2, num_experts=32, num_experts_per_tok=4,
        norm_topk_prob=True,
    )},
    assumes={**lfm2.FAMILY.assumes, **scaled_to_one(True)},
    idle=(*lfm2.FAMILY.idle, "use_expert_bias", "routed_scaling_factor"),
    keys=(*lfm2.LFM_KEYS, fixed({"expert_gating_func": 2}), numbers({
        "expert_feed_forward_length": "moe_intermediate_size", "leading_dense_block_count": "num_dense_layers",
    })),
    names={**lfm2.FAMILY.names, "model.layers.{bid}.feed_forward.expert_bias": "blk.{bid}.exp_probs_b.bias"},
    rules=(experts("model.layers.{bid}.feed_forward.experts", gate="w1", down="w2", up="w3"),),
)  # fmt: skip
