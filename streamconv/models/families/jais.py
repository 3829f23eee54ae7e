"""Jais: GPT 2 with a gated network, distances as biases of attention, and scaled embeddings and logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...kit import Mapped, times
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv, rope_freq_base
from ..rules import Rule, rename
from ..tokenizers import BPE
from .gpt2 import transposed

_EMBEDDING, _SLOPES = "transformer.wte.weight", "transformer.relative_pe.slopes"


def scale_of_embeddings(c: Config) -> float:
    """What embeddings are multiplied with."""
    return c.real("mup_embeddings_scale", "embeddings_scale")


def scale_of_logits(c: Config) -> float:
    """What logits are multiplied with."""
    if c.get("mup_output_alpha") is not None:
        return c.real("mup_output_alpha") * c.real("mup_width_scale")
    return c.real("width_scale")


def strength(m: Metadata, a: str, c: Config) -> None:
    """The strength of distances, of which the checkpoint has the slopes of heads; 8 where it has none."""
    slopes = c.checkpoint.tensors.get(_SLOPES) if c.checkpoint is not None else None
    found = 8.0
    if slopes is not None:
        first = float(slopes.read(0, 1)[0, 0])
        if not 0 < first < 1:
            raise BadInput(f"{c.folder}: the first of {_SLOPES!r} is {first}, not a slope between 0 and 1")
        found = float(-round(math.log2(first) * 2 ** math.floor(math.log2(max(c.n_heads, 1)))))
    m.f32(f"{a}.attention.max_alibi_bias", found)


def scaled(by: Any) -> Any:
    """Numbers times what the configuration says."""

    def make(rows: Rows, c: Config) -> Rows:
        return Mapped(rows, times(by(c)))

    return make


def tied(family: Family, c: Config) -> Family:
    """With an output of its own, scaled otherwise, where the checkpoint has the embedding only."""
    names = c.checkpoint.tensors if c.checkpoint is not None else {}
    if "lm_head.weight" in names or _EMBEDDING not in names:
        return family
    twice = (rename(_EMBEDDING, "token_embd.weight"), Rule(("output.weight",), (_EMBEDDING,)))
    return replace(family, rules=(*family.rules, *twice))


FAMILY = Family(
    arch="jais",
    architectures=("JAISLMHeadModel",),
    tokenizer=BPE,
    variant=tied,
    assumes={
        "activation_function": Assumed(("swiglu",)), "position_embedding_type": Assumed(("alibi",)),
        **{key: Assumed((True,)) for key in ("scale_attn_weights", "scale_qk_dot_by_d", "mup_scale_qk_dot_by_d")},
        "scale_attn_by_inverse_layer_idx": Assumed((False,)), "add_cross_attention": Assumed((False,)),
        "alibi_scaling": Assumed(()),
    },
    idle=("summary_*", "reorder_and_upcast_attn", "mup_width_scale", "width_scale", "embeddings_scale"),
    keys=(*(key for key in BASE if key not in (head_count_kv, rope_freq_base)), strength),
    drops={"*.attn.bias": "a buffer", "*.attn.masked_bias": "a buffer", _SLOPES: "a key of the output says it"},
    transforms={
        **dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_gate", "ffn_down"), transposed),
        "token_embd": scaled(scale_of_embeddings), "output": scaled(scale_of_logits),
    },
)  # fmt: skip
