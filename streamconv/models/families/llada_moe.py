"""LLaDA mixtures: experts in every layer, norms on heads; fill in masks."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed, scaled_to_one
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..tokenizers import BPE
from ._stated import numbers
from .bert import looks_both_ways
from .deepseek2 import EXPERTS_OF_MLP
from .llada import diffusion


def mask(m: Metadata, _a: str, _c: Config) -> None:
    """The token to fill in."""
    m.u32("tokenizer.ggml.mask_token_id", 156895)


FAMILY = Family(
    arch="llada-moe",
    architectures=("LLaDAMoEModel", "LLaDAMoEModelLM"),
    tokenizer=BPE,
    assumes={
        **GATED_SILU, **scaled_to_one(False), "qk_layernorm": Assumed((True,)), "shared_expert_intermediate_size": Assumed((0,)),
        "moe_layer_freq": Assumed(lambda _, c: (1, [1] * c.n_layers)),
    },
    idle=("routed_scaling_factor", "num_diffusion_steps"),
    keys=(*BASE, looks_both_ways, diffusion, numbers({
        "feed_forward_length": "dense_intermediate_size", "expert_feed_forward_length": "expert_intermediate_size",
    })),
    token_keys=(mask,),
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
