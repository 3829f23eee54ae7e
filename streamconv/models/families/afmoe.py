"""AFMoE (Trinity): experts behind some dense layers, gated attention with windows in three of four layers."""

from __future__ import annotations

from ..assumed import GATED_SILU, Assumed, layers
from ..family import Family, class_defaults
from ..keys import BASE, rope_dimension_count, sliding_window, vocab_size
from ..rules import experts
from ..tokenizers import LLAMA
from ._stated import flags, numbers, reals
from .llama import ROPE_FREQS

FAMILY = Family(
    arch="afmoe",
    architectures=("AfmoeForCausalLM",),
    tokenizer=LLAMA,
    classes={"afmoe": class_defaults(
        200192, 16384, 2048, 6144, 32, 16, None, head_dim=128, rms_norm_eps=1e-5, num_experts=64, num_experts_per_tok=6,
        num_shared_experts=2, moe_intermediate_size=1408, num_dense_layers=1, route_scale=1.0, sliding_window=1024,
    )},
    assumes={
        **GATED_SILU, "layer_types": layers(4), "global_attn_every_n_layers": Assumed((4,)), "mup_enabled": Assumed((True,)),
        "attention_bias": Assumed((False,)), "num_expert_groups": Assumed((1,)), "num_limited_groups": Assumed((1,)),
    },
    idle=("load_balance_coeff", "use_grouped_mm"),
    keys=(*BASE, vocab_size, rope_dimension_count, sliding_window, numbers({
        "expert_shared_count": "num_shared_experts", "expert_feed_forward_length": "moe_intermediate_size",
        "leading_dense_block_count": "num_dense_layers",
    }), flags({"expert_weights_norm": "route_norm"}), reals({"expert_weights_scale": "route_scale"})),
    names={"model.layers.{bid}.mlp.expert_bias": "blk.{bid}.exp_probs_b.bias"},
    rules=(ROPE_FREQS, experts("model.layers.{bid}.mlp.experts", gate="gate_proj", up="up_proj", down="down_proj")),
)  # fmt: skip
