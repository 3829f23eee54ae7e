"""ERNIE 4.5 mixtures: experts from some layer on, with some that every token uses."""

from __future__ import annotations

from dataclasses import replace

from ...kit import Reshaped
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import class_defaults
from ..rules import Rule, experts
from . import ernie4_5
from ._stated import numbers


def shared(m: Metadata, a: str, c: Config) -> None:
    """The true width of what every token uses; the reference writes another number where heads do not happen to fit."""
    if n := c.integer("moe_num_shared_experts") if c.get("moe_num_shared_experts") is not None else 0:
        m.u32(f"{a}.expert_shared_feed_forward_length", n * c.integer("moe_intermediate_size"))


_BIAS = "model.layers.{bid}.mlp.moe_statics.e_score_correction.bias"
_MTP = "no runtime predicts further tokens with this architecture"
FAMILY = replace(
    ernie4_5.FAMILY,
    arch="ernie4_5-moe",
    architectures=("Ernie4_5_MoeForCausalLM",),
    classes={"ernie4_5_moe": class_defaults(
        103424, 131072, 2560, 12288, 28, 20, 4, rms_norm_eps=1e-5, tie_word_embeddings=True, moe_intermediate_size=1536,
        moe_k=6, moe_num_experts=64, moe_num_shared_experts=2, moe_layer_start_index=1, moe_layer_interval=1,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )},
    assumes={**ernie4_5.FAMILY.assumes, "moe_gate": Assumed(("topk",)), "moe_use_aux_free": Assumed((True,)),
             "moe_norm_min": Assumed((1e-12,))},
    idle=(*ernie4_5.FAMILY.idle, "moe_*", "num_nextn_predict_layers"),
    keys=(*ernie4_5.FAMILY.keys, shared, numbers({
        "expert_used_count": "moe_k", "interleave_moe_layer_step": "moe_layer_interval",
        "leading_dense_block_count": "moe_layer_start_index", "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_count": "moe_num_shared_experts",
    })),
    drops={"model.mtp_*": _MTP},
    rules=(
        Rule(("blk.{bid}.exp_probs_b.bias",), (_BIAS,), lambda rows, _: [Reshaped(rows[0], (1, rows[0].shape[-1]))]),
        experts("model.layers.{bid}.mlp.experts", gate="gate_proj", up="up_proj", down="down_proj"), *ernie4_5.FAMILY.rules,
    ),
)  # fmt: skip
