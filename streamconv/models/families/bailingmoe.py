"""Ling 1: fused queries, keys and values, experts with some that every token uses."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import UnitColumns, split
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, rope_dimension_count, vocab_size
from ..rules import Rule
from ..tokenizers import BPE
from ._stated import MIXTURE, fixed, flags
from .deepseek2 import EXPERTS_OF_MLP
from .llama import interleave_k, interleave_q


def heads(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Queries, keys and values, one behind the other."""
    return split(rows[0], [n * c.head_dim for n in (c.n_heads, c.n_kv_heads, c.n_kv_heads)])


QKV = Rule(
    tuple(f"blk.{{bid}}.attn_{part}.weight" for part in "qkv"),
    ("model.layers.{bid}.attention.query_key_value.weight",),
    heads,
)
FAMILY = Family(
    arch="bailingmoe",
    architectures=("BailingMoeForCausalLM",),
    tokenizer=BPE,
    assumes={
        **GATED_SILU, "norm_softmax": Assumed((False,)), "use_bias": Assumed((False,)),
        "use_qkv_bias": Assumed((False,)),
    },
    idle=("max_window_layers", "multi_gate", "router_*"),
    keys=(
        *BASE, rope_dimension_count, vocab_size, MIXTURE, fixed({"expert_weights_scale": 1.0}),
        flags({"expert_weights_norm": "norm_topk_prob"}),
    ),
    rules=(QKV, EXPERTS_OF_MLP),
    transforms={
        "attn_q": interleave_q, "attn_k": interleave_k,
        "output": lambda rows, c: UnitColumns(rows) if c.get("norm_head") else rows,
    },
)  # fmt: skip
