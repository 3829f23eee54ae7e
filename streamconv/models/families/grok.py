"""Grok 1 and 2: experts, norms before and after each sublayer, caps of every kind of logit."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, final_soft_cap
from ..rules import experts
from ..tokenizers import QWEN
from ._stated import numbers, reals
from .minimax_m2 import EXPERTS


def keys(m: Metadata, a: str, c: Config) -> None:
    """Caps and scales, and the stretching of positions that is said beside the others."""
    for key in ("attn_logit_softcapping", "router_logit_softcapping"):
        m.f32(f"{a}.{key}", c.real(key) if c.get(key) is not None else 30.0)
    multiplier = c.get("attn_output_multiplier")
    m.f32(f"{a}.attention.output_scale", c.head_dim**-0.5 if multiplier is None else c.real("attn_output_multiplier"))
    if c.get("rope_type") in ("yarn", "original") and c.get("scaling_factor") is not None:
        m.string(f"{a}.rope.scaling.type", "yarn")
        m.f32(f"{a}.rope.scaling.factor", c.real("scaling_factor"))
        m.u32(f"{a}.rope.scaling.original_context_length", c.integer("original_max_position_embeddings"))
        for key, name in (
            ("ext_factor", "extrapolation_factor"),
            ("attn_factor",) * 2,
            ("beta_fast",) * 2,
            ("beta_slow",) * 2,
        ):
            m.f32(f"{a}.rope.scaling.yarn_{key}", c.real(name))


FAMILY = Family(
    arch="grok",
    architectures=("GrokForCausalLM", "Grok1ForCausalLM"),
    tokenizer=QWEN,
    classes={"git": {"vocab_size": 30522, "intermediate_size": 3072, "layer_norm_eps": 1e-12, "tie_word_embeddings": False}},
    assumes={"sliding_window_size": Assumed((-1,)), "global_attn_every_n": Assumed((1,)), "max_attn_value": Assumed((30.0,)),
             "residual_moe": Assumed((True,))},
    idle=("rope_type", "original_max_position_embeddings"),
    keys=(*BASE, final_soft_cap, keys, numbers({
        "expert_feed_forward_length": "moe_intermediate_size", "attention.temperature_length": "attn_temperature_len",
    }), reals({"embedding_scale": "embedding_multiplier_scale", "logit_scale": "output_multiplier_scale"})),
    names={
        "transformer.decoder_layer.{bid}.rms_norm_1": "blk.{bid}.attn_output_norm",
        "model.layers.{bid}.pre_attn_norm": "blk.{bid}.attn_norm",
        "model.layers.{bid}.post_attn_norm": "blk.{bid}.attn_output_norm",
    },
    rules=(
        experts("transformer.decoder_layer.{bid}.moe", gate="linear", down="linear_1", up="linear_v"), EXPERTS,
    ),
)  # fmt: skip
