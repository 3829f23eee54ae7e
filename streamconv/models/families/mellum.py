"""Mellum: experts in every layer, norms on heads, windows in some layers."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import EVERY_LAYER_SPARSE, GATED_SILU, Assumed, scaled_to_one
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, expert_feed_forward_length, sliding_window
from ..tokenizers import QWEN
from ._layers import kinds
from .deepseek2 import EXPERTS_OF_MLP


def windows(m: Metadata, a: str, c: Config) -> None:
    """The window, where it is used, and which layers have it."""
    if c.get("use_sliding_window") is not False and c.get("sliding_window"):
        sliding_window(m, a, c)
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", [kind == "sliding_attention" for kind in kinds(c, 1)])


FAMILY = Family(
    arch="mellum",
    named_as="qwen3moe",
    architectures=("MellumForCausalLM",),
    tokenizer=QWEN,
    classes={"mellum": {**class_defaults(
        98304, 131072, 2304, 7168, 28, 32, 4, head_dim=128, sliding_window=1024, num_experts=64, num_experts_per_tok=8,
        moe_intermediate_size=896, norm_topk_prob=True,
    ), "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500000.0},
                           "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}},
    assumes={
        **{key: value for key, value in GATED_SILU.items() if key not in ("layer_types", "use_sliding_window")},
        **EVERY_LAYER_SPARSE, **scaled_to_one(True),
        "mlp_layer_types": Assumed(lambda _, c: (["sparse"] * c.n_layers,)),
    },
    idle=("mtp_*", "num_nextn_*", "use_sliding_window"),
    keys=(*BASE, expert_feed_forward_length, windows),
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
