"""ruGPT 3 XL: GPT 2 whose queries, keys and values lie apart."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import join
from ...rows import Rows
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv
from ..rules import Rule
from ..tokenizers import BPE
from ._gpt import GELU


def _joined(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    return [join(rows)]


FAMILY = Family(
    arch="gpt2",
    architectures=("RuGPT3XLForCausalLM",),
    tokenizer=BPE,
    assumes={"hidden_act": GELU},
    keys=tuple(key for key in BASE if key is not head_count_kv),
    names={"model.embed_positions": "position_embd"},
    rules=tuple(
        Rule((f"blk.{{bid}}.attn_qkv.{end}",), tuple(f"model.layers.{{bid}}.self_attn.{x}_proj.{end}" for x in "qkv"), _joined)
        for end in ("weight", "bias")
    ),
)  # fmt: skip
