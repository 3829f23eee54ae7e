"""dots.llm1: experts from some layer on, with some that every token uses; norms of heads."""

from __future__ import annotations

from ..assumed import GATED_SILU, Assumed
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import QWEN
from ._stated import MIXTURE, WEIGHTS
from .deepseek2 import EXPERTS_OF_MLP

FAMILY = Family(
    arch="dots1",
    architectures=("Dots1ForCausalLM",),
    tokenizer=QWEN,
    classes={"dots1": class_defaults(
        152064, 2048, 4608, 10944, 62, 32, 32, moe_intermediate_size=1408, n_group=1, topk_group=1, first_k_dense_replace=0,
        norm_topk_prob=False, routed_scaling_factor=1.0,
    )},
    assumes={
        **GATED_SILU, "attention_bias": Assumed((False,)), "moe_layer_freq": Assumed((1,)),
        "topk_method": Assumed(("noaux_tc",)),
    },
    idle=("sliding_window",),
    keys=(*BASE, MIXTURE, *WEIGHTS),
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
