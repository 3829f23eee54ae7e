"""InternLM 2: the Llama layout with queries, keys and values fused group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import Order, interleaved, take
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..keys import BASE
from ..rules import Rule
from ..tokenizers import TokenizerRule
from ..tokenizers.internlm2 import read_internlm2
from ..tokenizers.vocabulary import TokenType
from . import llama

_END = "<|im_end|>"


def turn_end(m: Metadata, a: str, c: Config) -> None:
    """Texts end as turns do, where a token was added for that."""
    tokens = list(m.get("tokenizer.ggml.tokens", ()))
    at = tokens.index(_END) if _END in tokens else None
    if at is not None and m.get("tokenizer.ggml.token_type")[at] in (TokenType.CONTROL, TokenType.USER_DEFINED):
        m.u32("tokenizer.ggml.eos_token_id", at)


def apart(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Queries and keys with adjacent rotary pairs, and values; stored with keys and values of a group behind its queries."""
    groups, queries = c.n_kv_heads, c.n_heads // max(c.n_kv_heads, 1)
    width = rows[0].shape[0] // max(groups * (queries + 2), 1)
    if rows[0].shape[0] != groups * (queries + 2) * width:
        raise ValueError(f"{groups} groups of {queries} queries do not have {rows[0].shape[0]} rows")
    step = (queries + 2) * width
    query, key, value = (
        take(rows[0], Order((groups, n * width), (step, 1), first * width))
        for n, first in ((queries, 0), (1, queries), (1, queries + 1))
    )
    return [take(query, interleaved(query.shape[0], c.n_heads)), take(key, interleaved(key.shape[0], groups)), value]


FAMILY = replace(
    llama.FAMILY,
    arch="internlm2",
    architectures=("InternLM2ForCausalLM",),
    tokenizer=TokenizerRule(("internlm2",), own={"internlm2": ("tokenizer.model", read_internlm2)}),
    classes={},
    idle=("bias",),
    keys=BASE,
    token_keys=(turn_end,),
    transforms={},
    rules=tuple(
        Rule(tuple(f"blk.{{bid}}.attn_{part}.{end}" for part in "qkv"), (f"model.layers.{{bid}}.attention.wqkv.{end}",), apart)
        for end in ("weight", "bias")
    ),
)  # fmt: skip
