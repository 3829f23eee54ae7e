"""Hunyuan mixtures: experts with one that every token uses, norms on heads; lists of one number a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..tokenizers import TokenizerRule
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.tiktoken import read_tiktoken
from ..tokenizers.vocabulary import Vocabulary
from ._hunyuan import stretched
from ._nextn import untied
from .deepseek2 import EXPERTS_OF_MLP
from .hunyuan_dense import SPECIALS


def read_hunyuan(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of ``hy.tiktoken`` (BadInput: it is damaged)."""
    return read_tiktoken(files, config, size, "hy.tiktoken", SPECIALS, pre or "hunyuan")


def of_all(c: Config, name: str) -> int:
    """What ``name`` says of every layer, which must be one number."""
    stated = c.get(name)
    if isinstance(stated, list):
        if len(set(map(str, stated))) != 1:
            raise BadInput(f"{c.place}: {name!r} differs between layers, of which runtimes know nothing")
        return replace(c, values={name: stated[0]}).integer(name)
    return c.integer(name)


def keys(m: Metadata, a: str, c: Config) -> None:
    """Experts, and the base of RoPE that stretches the context."""
    m.u32(f"{a}.expert_shared_feed_forward_length", c.integer("intermediate_size"))
    m.u32(f"{a}.expert_feed_forward_length", of_all(c, "moe_intermediate_size"))
    m.u32(f"{a}.expert_used_count", of_all(c, "moe_topk"))
    m.u32(f"{a}.expert_shared_count", of_all(c, "num_shared_expert"))
    if c.rope.get("rope_type") != "dynamic":
        return
    alpha, base, width = c.rope.get("alpha") or 1000, c.rope.get("rope_theta"), c.head_dim
    if (alpha, base, width) != (1000, 10000, 128):
        raise BadInput(
            f"config.json: RoPE of type 'dynamic' with alpha {alpha}, base {base} and heads of {width} is no known Hunyuan",
            "Known are an alpha of 1000, a base of 10000 and heads of 128.",
        )
    stretched(m, a, 1000, 10000, 128)


def start(m: Metadata, _a: str, _c: Config) -> None:
    """A text begins with a token of its own."""
    m.u32("tokenizer.ggml.bos_token_id", 127959)


FAMILY = Family(
    arch="hunyuan-moe",
    architectures=("HunYuanMoEV1ForCausalLM",),
    tokenizer=TokenizerRule(("bpe", "ranks"), own={"ranks": ("hy.tiktoken", read_hunyuan)}),
    assumes={
        "hidden_act": GATED_SILU["hidden_act"], "rope_type": Assumed(("default", "linear", "yarn", "dynamic")),
        "use_qk_norm": Assumed((True,)), "use_cla": Assumed((False,)), "norm_topk_prob": Assumed((True,)),
        "use_mixed_mlp_moe": Assumed((True,)), "moe_layer_num_skipped": Assumed((0,)),
    },
    idle=("rope_parameters.alpha", "rope_parameters.mscale*", "cla_share_factor", "attention_head_dim", "*_id", "moe_*",
          "use_rotary*",
          "capacity_factor", "group_limited_greedy", "add_classification_head", "class_num", "pool_type", "skip_cls_token"),
    keys=(*BASE, keys),
    token_keys=(start,),
    spelled=untied,
    drops={"tied.*": "config.json ties it to the embedding"},
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
