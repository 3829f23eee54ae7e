"""Olmo mixtures: experts, norms on all queries and keys."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed, scaled_to_one
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..rules import experts, packed_experts
from ..tokenizers import BPE


def epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of norms; the class has one."""
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", 1e-5)


FAMILY = Family(
    arch="olmoe",
    architectures=("OlmoeForCausalLM",),
    tokenizer=BPE,
    classes={"olmoe": class_defaults(
        50304, 4096, 2048, 2048, 16, 16, None, rms_norm_eps=1e-5, num_experts=64, num_experts_per_tok=8, norm_topk_prob=False,
        eos_token_id=50279, pad_token_id=1,
    )},
    assumes={
        **GATED_SILU, **scaled_to_one(False), "rms_norm_eps": Assumed((1e-5,), "the output says 1e-05, as the class does"),
        "clip_qkv": Assumed((), "runtimes bound no queries, keys and values"),
    },
    keys=(*BASE, epsilon),
    rules=(
        experts("model.layers.{bid}.mlp.experts", down="down_proj", gate="gate_proj", up="up_proj"),
        *packed_experts("model.layers.{bid}.mlp.experts"),
    ),
)  # fmt: skip
