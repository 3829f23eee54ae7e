"""Hunyuan 3: experts with one that every token uses, norms on heads, a block that predicts a further token."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from ._nextn import COUNTED, NEXTN_NAMES, counted, further
from ._stated import fixed, numbers
from .deepseek2 import EXPERTS_OF_MLP


def shared(m: Metadata, a: str, c: Config) -> None:
    """Width of what every token uses, and how the weights of experts are scaled."""
    if c.get("num_shared_experts") is not None:
        width = c.integer("moe_intermediate_size") * c.integer("num_shared_experts")
        m.u32(f"{a}.expert_shared_feed_forward_length", width)
    m.boolean(f"{a}.expert_weights_norm", c.get("route_norm") is not False)
    scale = c.get("router_scaling_factor")
    m.f32(f"{a}.expert_weights_scale", 1.0 if scale is None else c.real("router_scaling_factor"))


FAMILY = Family(
    arch="hy_v3",
    named_as="glm4moe",
    architectures=("HYV3ForCausalLM",),
    tokenizer=BPE,
    classes={"hy_v3": class_defaults(
        120832, 131072, 4096, 13312, 80, 64, 8, head_dim=128, rms_norm_eps=1e-5, num_experts=192, num_experts_per_tok=8,
        num_shared_experts=1, moe_intermediate_size=1536, router_scaling_factor=2.826, rope_parameters={
            "rope_type": "default", "rope_theta": 11158840.0},
    )},
    assumes={**GATED_SILU, **COUNTED, "moe_router_use_sigmoid": Assumed((True,)), "qk_norm": Assumed((True,))},
    further=further,
    idle=("enable_*", "first_k_dense_replace", "mlp_layer_types", "num_nextn_*", "moe_router_*", "output_multiplier"),
    keys=(
        *BASE, numbers({"expert_feed_forward_length": "moe_intermediate_size"}), shared, fixed({"expert_gating_func": 2}), counted,
    ),
    names={
        **NEXTN_NAMES, "model.layers.{bid}.mlp.expert_bias": "blk.{bid}.exp_probs_b", "model.layers.{bid}.final_layernorm":
        "blk.{bid}.nextn.shared_head_norm", "model.layers.{bid}.mlp.router.gate": "blk.{bid}.ffn_gate_inp",
        "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.ffn_norm",
    },
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
