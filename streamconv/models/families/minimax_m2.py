"""MiniMax M2: experts with a bias of selection, norms over all heads together, heads rotated in part."""

from __future__ import annotations

from ..assumed import GATED_SILU, Assumed
from ..family import Family, class_defaults
from ..keys import BASE
from ..rules import experts
from ..tokenizers import BPE
from ._stated import numbers

EXPERTS = experts("model.layers.{bid}.block_sparse_moe.experts", gate="w1", down="w2", up="w3")
FAMILY = Family(
    arch="minimax-m2",
    architectures=("MiniMaxM2ForCausalLM",),
    tokenizer=BPE,
    classes={"minimax_m2": class_defaults(
        200064, 196608, 3072, 1536, 62, 48, 8, head_dim=128, num_local_experts=256, num_experts_per_tok=8, rope_parameters={
            "rope_type": "default", "rope_theta": 5000000.0},
    )},
    assumes={
        **GATED_SILU, "use_qk_norm": Assumed((True,)), "qk_norm_type": Assumed(("per_layer",)),
        "attn_type_list": Assumed(lambda _, c: ([1] * c.n_layers,)), "shared_intermediate_size": Assumed((0,)),
    },
    idle=("use_routing_bias", "use_mtp", "num_mtp_modules", "mtp_transformer_layers"),
    keys=(*BASE, numbers({"expert_feed_forward_length": "intermediate_size", "rope.dimension_count": "rotary_dim"})),
    rules=(EXPERTS,),
)  # fmt: skip
