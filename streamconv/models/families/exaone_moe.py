"""EXAONE mixtures: EXAONE 4's windows and further blocks, with experts from some layer on."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import exaone4
from ._stated import WEIGHTS, fixed, numbers
from .deepseek2 import EXPERTS_OF_MLP


def mixture(m: Metadata, a: str, c: Config) -> None:
    """The width of what every token uses, and the layers without experts."""
    if c.get("num_shared_experts") is not None:
        shared = c.integer("moe_intermediate_size") * c.integer("num_shared_experts")
        m.u32(f"{a}.expert_shared_feed_forward_length", shared)
    names = "first_k_dense_replace", "first_last_k_dense_replace"
    m.u32(f"{a}.leading_dense_block_count", c.integer(*names) if c.get(*names) is not None else 0)
    if c.get("num_nextn_predict_layers") is not None:
        m.u32(f"{a}.nextn_predict_layers", exaone4.n_further(c))


FAMILY = replace(
    exaone4.FAMILY,
    arch="exaone-moe",
    architectures=("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
    classes={"exaone_moe": {
        **exaone4.DEFAULTS, "num_experts": 64, "num_experts_per_tok": 8, "num_shared_experts": 1, "n_group": 1, "topk_group": 1,
        "moe_intermediate_size": 1024, "first_k_dense_replace": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    }},
    idle=(*exaone4.FAMILY.idle, "is_moe_layer", "mlp_layer_types", "topk_method"),
    keys=(*exaone4.FAMILY.keys, mixture, *WEIGHTS, fixed({"rope.scaling.type": "none"}), numbers({
        "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": "num_shared_experts",
    })),
    names={f"model.layers.{{bid}}.{name}": f"blk.{{bid}}.{target}"
           for name, target in (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"))},
    rules=(*exaone4.FAMILY.rules, EXPERTS_OF_MLP),
)  # fmt: skip
