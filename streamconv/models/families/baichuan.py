"""Baichuan: the Llama layout with queries, keys and values in one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import interleaved, split, take
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..keys import BASE, head_count_kv, rope_dimension_count
from ..rules import Rule
from ..tokenizers import SPM
from . import llama


def stated_heads(m: Metadata, a: str, c: Config) -> None:
    """Key/value heads, which most do not state, and what loaders ask for."""
    if c.raw_value("num_key_value_heads") is not None:
        head_count_kv(m, a, c)
    m.string(f"{a}.tensor_data_layout", "Meta AI original pth")


def thirds(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Queries and keys with adjacent rotary pairs, and values."""
    part = rows[0].shape[0] // 3
    query, key, value = split(rows[0], [part] * 3)
    n_keys = c.n_heads if c.n_kv_heads == c.n_heads else c.n_heads // c.n_kv_heads
    return [take(query, interleaved(part, c.n_heads)), take(key, interleaved(part, n_keys)), value]


FAMILY = replace(
    llama.FAMILY,
    arch="baichuan",
    architectures=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    tokenizer=SPM,
    classes={},
    idle=("model_max_length", "z_loss_weight"),
    keys=(*(key for key in BASE if key is not head_count_kv), stated_heads, rope_dimension_count),
    transforms={},
    rules=(
        Rule(
            tuple(f"blk.{{bid}}.attn_{part}.weight" for part in "qkv"),
            ("model.layers.{bid}.self_attn.W_pack.weight",),
            thirds,
        ),
    ),
)
