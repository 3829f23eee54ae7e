"""Arctic: a network and experts side by side in every layer."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed
from ..tokenizers import ARCTIC
from . import llama
from .minimax_m2 import EXPERTS

FAMILY = replace(
    llama.FAMILY,
    arch="arctic",
    architectures=("ArcticForCausalLM",),
    tokenizer=ARCTIC,
    classes={},
    assumes={**GATED_SILU, "use_residual": Assumed((True,)), "parallel_attn_mlp_res": Assumed((True,)),
             "moe_layer_frequency": Assumed((1,))},
    idle=("quantization", "enable_expert_tensor_parallelism", "moe_*", "enc_index", "ds_optimized_*", "sliding_window"),
    names={
        "model.layers.{bid}.residual_layernorm": "blk.{bid}.ffn_norm",
        "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.ffn_norm_exps",
        **{f"model.layers.{{bid}}.residual_mlp.{name}": f"blk.{{bid}}.ffn_{part}"
           for name, part in (("w1", "gate"), ("w3", "up"), ("w2", "down"))},
    },
    rules=(*llama.FAMILY.rules, EXPERTS),
)  # fmt: skip
