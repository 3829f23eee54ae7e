"""Refact: one key head for all heads, positions as biases of attention, gates in one matrix with what they gate."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import split
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, context_length, embedding_length, file_type, head_count
from ..rules import Rule
from ..tokenizers import BPE
from ._gpt import one_kv_head


def width(c: Config) -> int:
    """Width of the network, eight thirds of the model's up to the next multiple of 256."""
    return -(-(8 * c.hidden // 3) // 256) * 256


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Width of the network, and the epsilon of norms."""
    m.u32(f"{a}.feed_forward_length", width(c))
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("layer_norm_epsilon"))


def key_value(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """The key head and the value head."""
    head = c.hidden // max(c.n_heads, 1)
    return split(rows[0], [head, rows[0].shape[0] - head])


def gate_up(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """The gates, and what they gate."""
    return split(rows[0], [width(c), rows[0].shape[0] - width(c)])


_BLOCK = "transformer.h.{bid}"
FAMILY = Family(
    arch="refact",
    architectures=("GPTRefactForCausalLM",),
    tokenizer=BPE,
    assumes={"multi_query": Assumed((True,))},
    idle=("n_inner", "attention_*", "layer_norm_epsilon", "scale_*", "activation_function"),
    keys=(block_count, context_length, embedding_length, head_count, one_kv_head, sizes, file_type),
    names={"transformer.h.{bid}.attn.q": "blk.{bid}.attn_q"},
    rules=(
        Rule(("blk.{bid}.attn_k.weight", "blk.{bid}.attn_v.weight"), (f"{_BLOCK}.attn.kv.weight",), key_value),
        Rule(("blk.{bid}.ffn_gate.weight", "blk.{bid}.ffn_up.weight"), (f"{_BLOCK}.mlp.gate_up_proj.weight",), gate_up),
    ),
)  # fmt: skip
