"""DeepSeek's first mixtures: the Llama layout with experts, some of which every token uses."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed, scaled_to_one
from ..keys import BASE, rope_dimension_count, vocab_size
from ..tokenizers import QWEN
from . import llama
from ._stated import MIXTURE, fixed
from .deepseek2 import EXPERTS_OF_MLP

FAMILY = replace(
    llama.FAMILY,
    arch="deepseek",
    architectures=("DeepseekForCausalLM",),
    tokenizer=QWEN,
    classes={},
    assumes={
        **GATED_SILU, **scaled_to_one(False), "moe_layer_freq": Assumed((1,)), "attention_bias": Assumed((False,)),
        "rope_type": Assumed(("default",), "runtimes do not scale the positions of this architecture"),
    },
    idle=("seq_aux", "ep_size"),
    keys=(
        *BASE, rope_dimension_count, vocab_size, MIXTURE, fixed({"expert_weights_scale": 1.0, "rope.scaling.type": "none"}),
    ),
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
