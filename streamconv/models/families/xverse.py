"""XVERSE: the Llama layout, with key heads in the order of as many groups as there are."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from ..keys import BASE, head_count_kv, rope_dimension_count
from ..tokenizers import TokenizerRule
from ..tokenizers.xverse import read_xverse
from . import llama
from ._stated import fixed


def shared(m: Metadata, a: str, c: Config) -> None:
    """Key/value heads, where there are fewer."""
    if c.raw_value("num_key_value_heads") is not None:
        head_count_kv(m, a, c)


FAMILY = replace(
    llama.FAMILY,
    arch="xverse",
    architectures=("XverseForCausalLM",),
    tokenizer=TokenizerRule(("json",), own={"json": ("tokenizer.json", read_xverse)}),
    classes={},
    idle=("max_tokenizer_truncation",),
    keys=(
        *(key for key in BASE if key is not head_count_kv),
        shared,
        rope_dimension_count,
        fixed({"tensor_data_layout": "Meta AI original pth"}),
    ),
    rules=(),
)
